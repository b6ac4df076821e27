"""Arrival: one road user who may come into view, its place and marks drawn from what `newcomers` expect."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from occsora_sim.grid import DRIVEABLE, DYNAMIC, PEDESTRIAN, SMALL, Grid
from occsora_sim.models.newcomers import CELL, GROUND, Expected, Newcomers

MARGIN = (1.0, 0.3)
"""What a vehicle that arrives keeps from others, before and behind it and at its sides, beside its own columns [m]."""

PACE = 0.4
"""What a small road user keeps from others [m]."""

_SURE = 0.7
"""From which length on a mean direction is one: among moving vehicles of 256 validation frames 2 % of those where it is
longer head elsewhere by more than 30 degrees, and 44 % of the others."""

_LANE = 7
"""How far off a cell with a sure direction is looked for [cells]."""

_SAME_LANE = 2.0
"""Who is nearer to a lane's middle line is in it [m]; lanes are 3.2 m wide."""

_ROAD = GROUND.index(DRIVEABLE)  # its plane of `surroundings`
_ON_FOOT = DYNAMIC.index(PEDESTRIAN)


@dataclass(frozen=True, kw_only=True)
class Arrival:
    """A road user who may arrive.

    Attributes:
        kind: index in DYNAMIC.
        place: (2,) its middle [m] in the last frame.
        heading: angle in its axes [rad].
        velocity: (2,) [m/s].
        size: length and width [m].
        height: [voxels].

    """

    kind: int
    place: Tensor
    heading: float
    velocity: Tensor
    size: tuple[float, float]
    height: int

    @property
    def small(self) -> bool:
        """Whether it is a pedestrian, a bicycle or a motorcycle."""
        return DYNAMIC[self.kind] in SMALL

    @property
    def along(self) -> Tensor:
        """Where it heads, a unit vector (2,)."""
        return self.place.new_tensor((math.cos(self.heading), math.sin(self.heading)))

    def in_file(self) -> Iterator[Arrival]:
        """It, and then it behind and before whoever is in its place: cells are drawn each for itself, and where one
        stands the next one waits.
        """
        gap = 2 * (PACE if self.small else MARGIN[0])
        for by in (0.0, -self.size[0] - gap, self.size[0] + gap):
            yield replace(self, place=self.place + by * self.along)

    def corners(self, seconds_ago: float) -> Tensor:
        """Corners and middle of its box (5, 2) [m] in the last frame's axes, that long before it."""
        half = self.size[0] / 2, self.size[1] / 2
        signs = self.place.new_tensor(((1, 1), (1, -1), (-1, 1), (-1, -1), (0, 0)))
        along = self.along
        across = torch.stack((-along[1], along[0]))
        box = signs[:, :1] * half[0] * along + signs[:, 1:] * half[1] * across
        return self.place - seconds_ago * self.velocity + box


def against(one: Arrival, route: Tensor) -> bool:
    """Whether it comes towards who follows `route` (r, 2), points [m] in its axes, NaN-padded, in the same lane."""
    route = route[route.isfinite().all(-1)]
    if one.kind == _ON_FOOT or len(route) < 2:
        return False
    step = route.diff(dim=0)
    aside = (route[:-1] + step / 2 - one.place).norm(dim=-1)
    near = int(aside.argmin())
    onward = step[near] / step[near].norm().clamp(min=1e-6)
    return bool((aside[near] < _SAME_LANE) & (one.along @ onward < -0.5))


def draw_arrival(
    newcomers: Newcomers,
    expected: Expected,
    around: Tensor,
    row: int,
    at: tuple[int, int, int],
    mark: Sequence[float],
    grid: Grid,
) -> Arrival:
    """A road user by six numbers drawn evenly from 0 to 1.

    Args:
        newcomers: knows the classes' sizes.
        expected: what it says of b frames, on the CPU.
        around: (b, CHANNELS, x / CELL, y / CELL), what it was asked about.
        row: the frame.
        at: index in DYNAMIC, and cell. Who drives comes in the lane nearest to it: on a junction, where ways cross, the
            mean of their directions is nobody's.
        mark: the numbers.
        grid: the voxel grid.

    """
    kind, i, j = at
    group = int(newcomers.group[kind])
    if group and around[row, _ROAD, i, j] >= 0.5:
        i, j = _in_lane(expected.direction[row], (i, j))
    lower = grid.lower
    step = CELL * grid.voxel
    place = expected.chance.new_tensor((lower[0] + step * (i + mark[0]), lower[1] + step * (j + mark[1])))
    moves = mark[2] < float(expected.moves[row, group, i, j].sigmoid())
    if group == 0:
        c, s = expected.axis[row, :, i, j].tolist()
        heading = math.atan2(s, c) / 2 + (math.pi if mark[3] < 0.5 else 0.0)
    else:
        c, s = expected.direction[row, :, i, j].tolist()
        heading = math.atan2(s, c)
    speed = float(expected.speed[row, group, i, j]) * (0.8 + 0.4 * mark[4]) if moves else 0.0
    along = place.new_tensor((math.cos(heading), math.sin(heading)))
    length, width, height = newcomers.size[kind].tolist()
    scale = 0.94 + 0.12 * mark[5]
    return Arrival(
        kind=kind,
        place=place,
        heading=heading,
        velocity=speed * along,
        size=(length * scale, width),
        height=max(1, round(height)),
    )


def _in_lane(direction: Tensor, at: tuple[int, int]) -> tuple[int, int]:
    """The cell nearest to `at` where a direction (2, x, y) is sure; `at` itself where there is none within _LANE."""
    i, j = at
    left, low = max(0, i - _LANE), max(0, j - _LANE)
    sure = direction[:, left : i + _LANE + 1, low : j + _LANE + 1].norm(dim=0) >= _SURE
    cells = sure.nonzero() + torch.tensor((left, low))
    if not len(cells):
        return at
    near = (cells - torch.tensor(at)).square().sum(1).argmin()
    return int(cells[near, 0]), int(cells[near, 1])
