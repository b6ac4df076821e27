"""Is the same street still there on return? Rounds driven in a world, and the frames of two rounds side by side."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from occsora_sim.cluster import Alone, Crew, Told, batches
from occsora_sim.errors import ConfigurationError
from occsora_sim.geometry import compose, relative, to_frame
from occsora_sim.grid import FRAME_SECONDS, FREE, Grid
from occsora_sim.models.columns import without_road_users
from occsora_sim.scenes.start import Start
from occsora_sim.scoring.allocator import give_back
from occsora_sim.worlds.protocol import World

COMPARED = 4
"""Frames at the beginning of a round that are compared with the next round's."""

PROTOCOL = (
    "egos drive round a square block with rounded corners, whatever is in the way, until the round closes, and "
    f"{COMPARED} frames on; these are held against the first ones, seen from the same poses; IoU of filled voxels of "
    "one class, road users left out; `hidden`: columns that were out of view in between"
)


@dataclass(frozen=True, kw_only=True)
class Block:
    """The block that is driven round.

    Attributes:
        side: of the square, before its corners are rounded [m].
        radius: of the corners [m].
        speed: about [m/s]; a round takes a whole number of frames.

    """

    side: float = 60.0
    radius: float = 12.0
    speed: float = 6.0

    def __post_init__(self) -> None:
        if not (self.radius > 0 and self.side >= 2 * self.radius and self.speed > 0):
            raise ConfigurationError(
                f"block: side {self.side:g} must be at least twice the radius {self.radius:g}, and all positive"
            )

    @property
    def metres(self) -> float:
        """Length of a round [m]."""
        return 4 * (self.side - 2 * self.radius) + 2 * math.pi * self.radius

    def round(self) -> Tensor:
        """Poses (n, 3) [m, m, rad] of one round to the left, FRAME_SECONDS apart, relative to where it begins (in the
        middle of a side); the last is where it began.
        """
        count = max(8, round(self.metres / (self.speed * FRAME_SECONDS)))
        straight, corner = self.side - 2 * self.radius, math.pi / 2 * self.radius
        poses = []
        for k in range(1, count + 1):
            left, pose = self.metres * k / count, torch.zeros(3, dtype=torch.float64)
            for number in range(9):  # straights and corners in turn, the first straight halved
                if number % 2 == 0:
                    length = straight / 2 if number in (0, 8) else straight
                    part = min(left, length)
                    offset = (part, 0.0, 0.0)
                else:
                    length = corner
                    part = min(left, length)
                    turn = part / self.radius
                    offset = (self.radius * math.sin(turn), self.radius * (1 - math.cos(turn)), turn)
                pose = compose(pose, torch.tensor(offset, dtype=torch.float64))
                left -= part
            poses.append(pose)
        return torch.stack(poses)


def revisit_report(
    world: World,
    starts: Sequence[Start],
    *,
    block: Block | None = None,
    seed: int = 0,
    batch: int = 4,
    on_chunk: Callable[[int, int], None] | None = None,
    crew: Crew[World] | None = None,
) -> dict[str, Any]:
    """Drive round a block from each start and compare what stands there on return; see PROTOCOL.

    "iou" over all columns and "hidden" over those that were out of view in between (null where none were), pooled over
    the starts; "kept" where the latter reaches 0.8.

    Args:
        world: any world.
        starts: where to begin.
        block: what is driven round.
        seed: of the first start; the next ones count on.
        batch: starts at once.
        on_chunk: told how many chunks are done, and of how many.
        crew: who rolls; by default this process.

    Raises:
        ConfigurationError: no start.

    """
    if not starts or batch < 1:
        raise ConfigurationError(f"revisit: {len(starts)} starts and batch {batch}; give 1 or more of each")
    block, f = block or Block(), world.frames_per_chunk
    path = block.round()
    lap = len(path)
    path = torch.cat((path, path[:COMPARED]))  # (lap + COMPARED, 3), relative to the start
    groups, done = batches(len(starts), batch), 0

    def told() -> None:
        nonlocal done
        done += 1
        if on_chunk:
            on_chunk(done, len(groups) * -(-len(path) // f))

    units = [([starts[row] for row in rows], [seed + row for row in rows]) for rows in groups]
    same, either = torch.zeros(2, dtype=torch.long), torch.zeros(2, dtype=torch.long)
    for counts in (crew or Alone(world)).map(partial(_drive_round, path=path), units, told):
        same, either = same + counts[0], either + counts[1]
    iou = [float(a) / int(b) if int(b) else None for a, b in zip(same, either, strict=True)]
    return {
        "starts": len(starts),
        "protocol": PROTOCOL,
        "metres": block.metres,
        "seconds": lap * FRAME_SECONDS,
        "iou": iou[0],
        "hidden": iou[1],
        "kept": iou[1] is not None and iou[1] >= 0.8,
    }


def _drive_round(
    world: World, unit: tuple[Sequence[Start], Sequence[int]], told: Told, *, path: Tensor
) -> tuple[Tensor, Tensor]:
    """Drive starts with their seeds along `path` (lap + COMPARED, 3), in one batch; `_agreement`, summed over the
    frames that are compared.
    """
    (starts, seeds), f, lap = unit, world.frames_per_chunk, len(path) - COMPARED
    state = world.reset(starts, seeds)
    origin = torch.stack([start.ego_pose[-1] for start in starts]).double()
    poses = compose(origin[:, None], path[None])
    before = origin
    shown: dict[int, Tensor] = {}
    for first in range(0, len(path), f):
        ahead = poses[:, first : first + f]
        state = world.step(state, relative(before[:, None], ahead).float())
        before = ahead[:, -1]
        if _compared(first, f, lap):
            shown |= {first + i: frame for i, frame in enumerate(state.occupancy.cpu().unbind(1))}
        give_back()
        told()
    same, either = torch.zeros(2, dtype=torch.long), torch.zeros(2, dtype=torch.long)
    for k in range(COMPARED):
        counts = _agreement(shown[k], shown[lap + k], _hidden(path, k, lap, world.grid))
        same, either = same + counts[0], either + counts[1]
    return same, either


def print_revisit_report(report: dict[str, Any]) -> None:
    """Print a report as one line."""
    iou, hidden = ("-" if report[key] is None else f"{report[key]:.3f}" for key in ("iou", "hidden"))
    print(
        f"Revisit: {report['starts']} rounds of {report['metres']:.0f} m; IoU of what stands still on return: {iou}, "
        f"of what was out of view in between: {hidden}"
    )


def _compared(first: int, frames: int, lap: int) -> bool:
    """Whether one of `frames` frames from number `first` on is compared."""
    return first < COMPARED or first + frames > lap


def _hidden(path: Tensor, k: int, lap: int, grid: Grid) -> Tensor:
    """(x, y) bool: columns of frame k that some frame of the round does not show."""
    local = relative(path[k], path[k : k + lap])  # (lap, 3): the poses of the round in frame k
    points = to_frame(grid.centres_xy()[None].double(), local[:, None, None])  # (lap, x, y, 2)
    lower, upper = (points.new_tensor(bound[:2]) for bound in (grid.lower, grid.upper))
    return ~((points >= lower) & (points < upper)).all(-1).all(0)


def _agreement(one: Tensor, two: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
    """Static filled voxels (b, x, y, z) that agree, and that either shows: (2,) each, over all and hidden columns."""
    one, two = without_road_users(one), without_road_users(two)
    filled = (one != FREE) | (two != FREE)
    same = (one == two) & filled
    masks = (torch.ones_like(hidden), hidden)
    return (
        torch.stack([(same & mask[None, ..., None]).sum() for mask in masks]),
        torch.stack([(filled & mask[None, ..., None]).sum() for mask in masks]),
    )
