"""Forecasting windows and the baselines that a world model must beat."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from occsora_sim.errors import SceneError
from occsora_sim.geometry import relative
from occsora_sim.grid import FRAME_SECONDS, FREE, Grid
from occsora_sim.models.columns import is_dynamic, without_road_users
from occsora_sim.models.motion import advect
from occsora_sim.models.warp import warp
from occsora_sim.scenes.offers import usable
from occsora_sim.scenes.recorded import Drawer, Recorded, drawer_of
from occsora_sim.scenes.start import Start
from occsora_sim.scenes.voxeliser import Voxeliser

HORIZONS = (1.0, 2.0, 3.0)
"""Instants that are scored [s], as OccWorld and its successors do."""

HISTORY = 4
"""Frames of history given."""

FUTURE = round(HORIZONS[-1] / FRAME_SECONDS)
"""Frames predicted."""

_TOO_SHORT = f"no ego is recorded for {(HISTORY + FUTURE) * FRAME_SECONDS:g} s"


@dataclass(frozen=True, kw_only=True)
class ForecastWindow:
    """A start, the ego's true motion after it, and the truth to score against.

    Attributes:
        start: the history; it holds no route, so nothing of the future reaches a world but the ego's motion.
        poses: (FUTURE, 3) world poses of the ego [m, m, rad].
        truth: (FUTURE, x, y, z) uint8; only the scorer and the tokenizer's ceiling see it.
        velocity: (x, y, 2) float32 [m/s], the road users' true velocity at the last history frame, in its axes; None
            where a source has no tracks. Only the oracle sees it.

    """

    start: Start
    poses: Tensor
    truth: Tensor
    velocity: Tensor | None = None


def forecast_windows(
    scene: Recorded, count: int, grid: Grid, voxeliser: Drawer | None = None
) -> list[ForecastWindow]:
    """`count` windows of a scene, spread evenly over its expert egos and over time; fewer if it holds fewer.

    Raises:
        SceneError: no ego of the scene is recorded long enough.

    """
    voxeliser = voxeliser or drawer_of(scene, grid)
    stride = round(FRAME_SECONDS / scene.dt)
    places = _places(scene)
    if not places:
        raise SceneError(f"{scene.name}: {_TOO_SHORT}; nothing to score")
    chosen = np.unique(np.linspace(0, len(places) - 1, min(count, len(places))).round().astype(int))
    windows = []
    for ego, step in (places[i] for i in chosen):
        steps = step + stride * np.arange(-HISTORY + 1, FUTURE + 1)
        poses = torch.from_numpy(scene.ego_pose[ego, steps]).float()
        times = torch.from_numpy(steps * scene.dt).float()
        exclude = torch.full((len(steps),), int(scene.ego_track[ego]))
        frames = voxeliser.frames(poses, times, exclude)
        start = Start(
            occupancy=frames[:HISTORY],
            ego_pose=poses[:HISTORY],
            route=torch.zeros(0, 2),
            name=f"{scene.name}/{ego}@{step}",
        )
        present = slice(HISTORY - 1, HISTORY)
        velocity = None
        if isinstance(voxeliser, Voxeliser):  # a voxel sequence does not say how road users move
            velocity = voxeliser.motion(poses[present], times[present], exclude[present])[0, ..., :2]
        windows.append(
            ForecastWindow(start=start, poses=poses[HISTORY:], truth=frames[HISTORY:], velocity=velocity)
        )
    return windows


def scenes_with_windows(scenes: Sequence[Recorded]) -> list[Recorded]:
    """Those that hold a window; a `SceneWarning` names the others.

    Raises:
        SceneError: none does.

    """
    reasons = ["" if _places(scene) else _TOO_SHORT for scene in scenes]
    return [scenes[k] for k in usable(scenes, reasons, "window to forecast")]


def _places(scene: Recorded) -> list[tuple[int, int]]:
    """Ego and present step of every window that `forecast_windows` chooses from."""
    stride = round(FRAME_SECONDS / scene.dt)
    places: list[tuple[int, int]] = []
    for ego, kind in enumerate(scene.ego_kind):
        valid = np.flatnonzero(scene.ego_valid[ego])
        if kind == "expert" and len(valid) > (HISTORY + FUTURE) * stride:
            first, last = valid[0] + (HISTORY - 1) * stride, valid[-1] - FUTURE * stride
            places += [(ego, int(step)) for step in range(first, last + 1, FUTURE * stride)]
    return places


def copy_last(window: ForecastWindow, grid: Grid) -> Tensor:
    """The last frame as it is, (FUTURE, x, y, z)."""
    return window.start.occupancy[-1].expand(len(window.poses), *grid.shape)


def ego_warp(window: ForecastWindow, grid: Grid) -> Tensor:
    """The last frame moved by the ego's known motion, free where it showed nothing, (FUTURE, x, y, z)."""
    return warp(window.start.occupancy[-1:], window.start.ego_pose[-1:], window.poses[None], grid, fill=FREE)[
        0
    ]


def oracle(window: ForecastWindow, grid: Grid) -> Tensor | None:
    """Constant-velocity objects on the known map, (FUTURE, x, y, z): the last frame's road users carried at their true
    velocity over the true future's static voxels. None where the velocities are not known.
    """
    if window.velocity is None:
        return None
    seconds = FRAME_SECONDS * torch.arange(1, len(window.poses) + 1).view(1, -1, 1, 1, 1)
    moved, _ = advect(
        window.start.occupancy[-1:],
        window.velocity * seconds,
        window.start.ego_pose[-1:],
        window.poses[None],
        grid,
    )
    return torch.where(is_dynamic(moved[0]), moved[0], without_road_users(window.truth))


def chunk_trajectories(windows: Sequence[ForecastWindow], frames: int) -> list[Tensor]:
    """The ego's true motion in chunks of `frames`: tensors (b, <= frames, 3), each relative to the pose before it."""
    poses = torch.stack([torch.cat((w.start.ego_pose[-1:], w.poses)) for w in windows])  # (b, 1 + FUTURE, 3)
    return [
        relative(poses[:, k : k + 1], poses[:, k + 1 : k + 1 + frames])
        for k in range(0, poses.shape[1] - 1, frames)
    ]
