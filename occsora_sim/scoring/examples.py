"""Examples to look at: drawn futures beside the real ones, the best, the middle and the worst; and rollouts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from occsora_sim.geometry import relative
from occsora_sim.grid import FRAME_SECONDS
from occsora_sim.scenes.recorded import Recorded
from occsora_sim.scenes.start import Start
from occsora_sim.scoring.confusion import Confusion
from occsora_sim.scoring.forecasting import (
    HORIZONS,
    chunk_trajectories,
    forecast_windows,
    scenes_with_windows,
)
from occsora_sim.scoring.long_rollout import route_poses
from occsora_sim.worlds.diffusion import DiffusionWorld
from occsora_sim.worlds.protocol import World

INSTANTS = (0.0, 4.0, 8.0, 16.0, 32.0)
"""Of a rollout, when it is looked at [s]."""


@dataclass(frozen=True, kw_only=True)
class Example:
    """Frames of one drive.

    Attributes:
        name: of the drive and, if it was scored, with what.
        seconds: (n,) when [s] after the start.
        frames: (n, x, y, z) uint8, what the world drew.
        real: (n, x, y, z) uint8, what was there; None where nobody knows.

    """

    name: str
    seconds: tuple[float, ...]
    frames: Tensor
    real: Tensor | None


def forecast_examples(
    world: DiffusionWorld, scenes: Sequence[Recorded], per_scene: int = 4, seed: int = 0,
    on_window: Callable[[int], None] | None = None,
) -> list[Example]:  # fmt: skip
    """Of `per_scene` windows of each scene the two whose drawn future is best, the middle one and the two worst, by the
    mIoU at the last horizon. All of them where there are five or fewer.
    """
    drawn = world.variant(mode="sample", follow_route=False)
    at = [round(horizon / FRAME_SECONDS) - 1 for horizon in HORIZONS]
    scored: list[tuple[float, Example]] = []
    for scene in scenes_with_windows(scenes):
        for window in forecast_windows(scene, per_scene, world.grid):
            state, frames = drawn.reset([window.start], [seed + len(scored)]), []
            for trajectory in chunk_trajectories([window], world.frames_per_chunk):
                state = drawn.step(state, trajectory)
                frames.append(state.occupancy[0].cpu())
            answer = torch.cat(frames)
            confusion = Confusion()
            confusion.add(answer[at[-1]], window.truth[at[-1]])
            miou = float(confusion.metrics()["miou"])
            now = window.start.occupancy[-1:]
            example = Example(
                name=f"{window.start.name}: mIoU {100 * miou:.0f} % at {HORIZONS[-1]:g} s",
                seconds=(0.0, *HORIZONS),
                frames=torch.cat((now, answer[at])),
                real=torch.cat((now, window.truth[at])),
            )
            scored.append((miou, example))
            if on_window:
                on_window(len(scored))
    scored.sort(key=lambda one: -one[0])
    count = len(scored)
    chosen = sorted({0, 1, count // 2, count - 2, count - 1} & set(range(count)))
    return [scored[k][1] for k in chosen]


def rollout_examples(
    world: World, starts: Sequence[Start], real: World | None = None, seed: int = 0
) -> list[Example]:
    """Each start driven along its route to the last of INSTANTS; with `real`, a recorded world along the same way."""
    f = world.frames_per_chunk
    frames = round(INSTANTS[-1] / FRAME_SECONDS)
    found = []
    for row, start in enumerate(starts):
        poses = route_poses([start], -(-frames // f) * f)
        found.append(
            Example(
                name=start.name,
                seconds=INSTANTS,
                frames=_along(world, start, poses, seed + row),
                real=None if real is None else _along(real, start, poses, seed + row),
            )
        )
    return found


def _along(world: World, start: Start, poses: Tensor, seed: int) -> Tensor:
    """Frames (n, x, y, z) at INSTANTS of a drive along poses (1, 1 + t, 3)."""
    f, wanted = world.frames_per_chunk, [round(instant / FRAME_SECONDS) for instant in INSTANTS]
    state = world.reset([start], [seed])
    kept = [state.occupancy[0, -1].cpu()]
    for k in range(-(-wanted[-1] // f)):
        path = poses[:, k * f : (k + 1) * f + 1]
        state = world.step(state, relative(path[:, :1], path[:, 1:]).float())
        kept += [state.occupancy[0, i].cpu() for i in range(f) if k * f + i + 1 in wanted]
    return torch.stack(kept)
