"""Examples to look at: drawn futures beside the real ones, the best, the middle and the worst; and rollouts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor

from occsora_sim.geometry import relative
from occsora_sim.grid import FRAME_SECONDS
from occsora_sim.scenes.recorded import Recorded
from occsora_sim.scenes.start import Start
from occsora_sim.scoring.allocator import give_back
from occsora_sim.scoring.confusion import Confusion
from occsora_sim.scoring.forecasting import (
    HORIZONS,
    ForecastWindow,
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

    Only examples that would be chosen so far are kept; a window that became the middle one later is drawn again.
    """
    drawn = world.variant(mode="sample", follow_route=False)
    scores: list[float] = []
    kept: dict[int, Example] = {}
    places: list[tuple[Recorded, int]] = []
    for scene in scenes_with_windows(scenes):
        for index, window in enumerate(forecast_windows(scene, per_scene, world.grid)):
            number = len(scores)
            score, kept[number] = _forecast(drawn, window, seed + number)
            scores.append(score)
            places.append((scene, index))
            wanted = _chosen(scores)
            kept = {row: example for row, example in kept.items() if row in wanted}
            if on_window:
                on_window(len(scores))
    for number in _chosen(scores):
        if number not in kept:
            scene, index = places[number]
            window = next(islice(forecast_windows(scene, per_scene, world.grid), index, None))
            kept[number] = _forecast(drawn, window, seed + number)[1]
    return [kept[number] for number in _chosen(scores)]


def _chosen(scores: Sequence[float]) -> list[int]:
    """The numbers of the two best, the middle one and the two worst, best first."""
    order, count = sorted(range(len(scores)), key=lambda number: -scores[number]), len(scores)
    return [order[k] for k in sorted({0, 1, count // 2, count - 2, count - 1} & set(range(count)))]


def _forecast(drawn: DiffusionWorld, window: ForecastWindow, seed: int) -> tuple[float, Example]:
    """The mIoU of a drawn future at the last horizon, and its frames at all of them under the real ones."""
    at = [round(horizon / FRAME_SECONDS) - 1 for horizon in HORIZONS]
    state, frames = drawn.reset([window.start], [seed]), []
    for trajectory in chunk_trajectories([window], drawn.frames_per_chunk):
        state = drawn.step(state, trajectory)
        frames.append(state.occupancy[0].cpu())
        give_back()
    answer = torch.cat(frames)
    confusion = Confusion()
    confusion.add(answer[at[-1]], window.truth[at[-1]])
    miou = float(confusion.metrics()["miou"])
    now = window.start.occupancy[-1:]
    return miou, Example(
        name=f"{window.start.name}: mIoU {100 * miou:.0f} % at {HORIZONS[-1]:g} s",
        seconds=(0.0, *HORIZONS),
        frames=torch.cat((now, answer[at])),
        real=torch.cat((now, window.truth[at])),
    )


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
        give_back()
    return torch.stack(kept)
