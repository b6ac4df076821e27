"""Forecasting windows and the baselines that a world model must beat."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from occsora_sim.errors import SceneError
from occsora_sim.geometry import relative
from occsora_sim.grid import FRAME_SECONDS, FREE, Grid
from occsora_sim.models.columns import without_road_users
from occsora_sim.models.warp import warp
from occsora_sim.road_users import RoadUsers, seen_from
from occsora_sim.scenes.offers import usable
from occsora_sim.scenes.recorded import Drawer, Recorded, drawer_of
from occsora_sim.scenes.start import Start
from occsora_sim.scenes.voxeliser import Voxeliser
from occsora_sim.voxels.paint import paint_road_users

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
        users: the tracks of those in view in the history, until its last frame; None where a source has none. The start
            holds voxels alone: only the oracle and who is said to be given tracks see them.

    """

    start: Start
    poses: Tensor
    truth: Tensor
    users: RoadUsers | None = None


def forecast_windows(
    scene: Recorded, count: int, grid: Grid, voxeliser: Drawer | None = None
) -> Iterator[ForecastWindow]:
    """`count` windows of a scene, spread evenly over its expert egos and over time; fewer if it holds fewer. Each is
    voxelised when it is asked for, as all of a scene fill 100 MB.

    Raises:
        SceneError: no ego of the scene is recorded long enough; raised at once.

    """
    places = _places(scene)
    if not places:
        raise SceneError(f"{scene.name}: {_TOO_SHORT}; nothing to score")
    chosen = _spread(len(places), count)
    drawer = voxeliser or drawer_of(scene, grid)
    return (_window(scene, ego, step, drawer) for ego, step in (places[k] for k in chosen))


def window_count(scene: Recorded, count: int) -> int:
    """How many windows `forecast_windows` makes."""
    return len(_spread(len(_places(scene)), count))


def _spread(places: int, count: int) -> np.ndarray:
    """Numbers of up to `count` places, evenly spread."""
    return np.unique(np.linspace(0, places - 1, min(count, places)).round().astype(int))


def _window(scene: Recorded, ego: int, step: int, drawer: Drawer) -> ForecastWindow:
    """The window of an ego motion whose last history frame is at time step `step`."""
    steps = step + round(FRAME_SECONDS / scene.dt) * np.arange(-HISTORY + 1, FUTURE + 1)
    poses = torch.from_numpy(scene.ego_pose[ego, steps]).float()
    times = torch.from_numpy(steps * scene.dt).float()
    exclude = torch.full((len(steps),), int(scene.ego_track[ego]))
    frames = drawer.frames(poses, times, exclude)
    present = slice(HISTORY - 1, HISTORY)
    users = None
    if isinstance(drawer, Voxeliser):  # a voxel sequence has no tracks
        users = drawer.road_users(poses[present], times[present], exclude[present])
        users = users.where(seen_from(users, poses[None, :HISTORY], drawer.grid))
    start = Start(
        occupancy=frames[:HISTORY],
        ego_pose=poses[:HISTORY],
        route=torch.zeros(0, 2),
        name=f"{scene.name}/{ego}@{step}",
    )
    return ForecastWindow(start=start, poses=poses[HISTORY:], truth=frames[HISTORY:], users=users)


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
    """Constant-velocity objects on the known map, (FUTURE, x, y, z): those in view in the last frame go on straight at
    their true velocity over the true future's static voxels. None where there are no tracks.
    """
    if window.users is None:
        return None
    users = window.users.where(seen_from(window.users, window.start.ego_pose[None, -1:], grid))
    way, frames = users.velocity.double() * FRAME_SECONDS, []
    for ground, pose in zip(without_road_users(window.truth), window.poses, strict=True):
        users = users.moved(torch.cat((users.now[..., :2] + way, users.now[..., 2:]), dim=-1), users.velocity)
        frames.append(paint_road_users(ground[None], users, pose[None].double(), grid)[0])
    return torch.stack(frames)


def chunk_trajectories(windows: Sequence[ForecastWindow], frames: int) -> list[Tensor]:
    """The ego's true motion in chunks of `frames`: tensors (b, <= frames, 3), each relative to the pose before it."""
    poses = torch.stack([torch.cat((w.start.ego_pose[-1:], w.poses)) for w in windows])  # (b, 1 + FUTURE, 3)
    return [
        relative(poses[:, k : k + 1], poses[:, k + 1 : k + 1 + frames])
        for k in range(0, poses.shape[1] - 1, frames)
    ]
