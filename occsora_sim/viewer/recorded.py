"""A scene as a rollout: what was recorded, from the seat of one of its ego motions."""

from __future__ import annotations

import numpy as np
import torch

from occsora_sim.errors import SceneError
from occsora_sim.grid import FRAME_SECONDS
from occsora_sim.rendering.recorded_users import join_users, record_users
from occsora_sim.rendering.rollout import Rollout
from occsora_sim.scenes.recorded import Drawer, Recorded, drawer_of, recorded_words
from occsora_sim.scenes.start import ego_poses
from occsora_sim.scenes.voxeliser import Voxeliser


def recorded_rollout(
    scene: Recorded, seconds: float, *, begin: float = 0.0, drawer: Drawer | None = None
) -> Rollout:
    """The recording from the ego motion that is known longest, up to `seconds` of it.

    Args:
        scene: what was recorded.
        seconds: how much of it is shown at most.
        begin: when that begins, or as soon as the ego motion is known [s since the scene's beginning].
        drawer: the scene's own, where one is at hand.

    Raises:
        SceneError: the scene has no ego motion, or its frames cannot be read.

    """
    if not len(scene.ego_kind):
        raise SceneError(f"scene {scene.name}: no ego motion is known, so there is no seat to look from")
    ego = int(np.argmax(scene.ego_valid.sum(axis=1)))
    steps = np.flatnonzero(scene.ego_valid[ego])
    first, last = max(begin, float(steps[0] * scene.dt)), float(steps[-1] * scene.dt)
    count = int(min(seconds, last - first) / FRAME_SECONDS + 1e-6) + 1
    time = first + FRAME_SECONDS * torch.arange(count, dtype=torch.float64)
    pose = ego_poses(scene, ego, time)
    exclude = torch.full((count,), int(scene.ego_track[ego]))
    drawer = drawer or drawer_of(scene)
    users = None
    if isinstance(drawer, Voxeliser):
        there = drawer.road_users(pose, time, exclude)
        users = join_users([record_users(there.select([k]), pose[k : k + 1]) for k in range(count)])
    return Rollout(
        occupancy=drawer.frames(pose, time, exclude).cpu().numpy(),
        ego_pose=pose.float().numpy(),
        actions=np.zeros((0, 2), np.float32),
        rewards=np.zeros(0, np.float32),
        planned=np.zeros((count, 0, 3), np.float32),
        route=scene.route(ego).astype(np.float32),
        users=users,
        header={"world": "replay", "name": f"{recorded_words([scene])} {scene.name}", "ended": "time"},
        grid=drawer.grid,
    )
