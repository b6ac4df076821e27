"""How the human driver of a recording scores from an episode's start: what EPDMS's filter compares an agent with."""

from __future__ import annotations

import numpy as np
import torch

from occsora_sim.geometry import relative
from occsora_sim.grid import FRAME_SECONDS
from occsora_sim.scenes.start import ego_poses
from occsora_sim.scoring.driving import ScoreConfig
from occsora_sim.scoring.episode import advance, begin_episodes
from occsora_sim.vehicle import Vehicle
from occsora_sim.worlds.protocol import Start
from occsora_sim.worlds.replay import ReplayWorld


def human_terms(
    start: Start, world: ReplayWorld, seconds: float, vehicle: Vehicle, config: ScoreConfig
) -> dict[str, torch.Tensor]:
    """The summary (`Episodes.summary`), each (1,), of the recorded drive, `seconds` [s] or as long as is known."""
    scene, ego, step = start.source
    known = np.logical_and.accumulate(scene.ego_valid[ego][step:]).sum() - 1  # steps on end after the start
    frames = int(min(seconds, known * scene.dt) / FRAME_SECONDS + 1e-6)
    time = step * scene.dt + FRAME_SECONDS * torch.arange(frames + 1, dtype=torch.float64)
    poses, chunk = ego_poses(scene, ego, time), world.frames_per_chunk
    state, episodes = world.reset([start], [0]), begin_episodes([start], world.device, config)
    for first in range(0, frames, chunk):
        ahead = poses[first + 1 : first + 1 + chunk]
        speed = ahead[:, :2].sub(poses[first : first + len(ahead), :2]).norm(dim=-1) / FRAME_SECONDS
        state = world.step(state, relative(poses[first].expand_as(ahead), ahead)[None])
        episodes, _ = advance(
            episodes, state.occupancy, state.ego_pose, speed[None].float().to(world.device), world.grid,
            vehicle, config, state.users,
        )  # fmt: skip
    return episodes.summary(config)
