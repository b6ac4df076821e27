"""What each road user sees of the ground: a crop in its own frame, a code a cell.

Who looks at voxels, at a raster or at a record first says for each column which of five kinds it is; a model of traffic
needs no more of the ground.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from occsora_sim.constants import constant
from occsora_sim.geometry import relative
from occsora_sim.grid import (
    BARRIER,
    DRIVEABLE,
    MANMADE,
    OTHER_FLAT,
    OTHERS,
    SIDEWALK,
    TERRAIN,
    TRAFFIC_CONE,
    VEGETATION,
    Grid,
)

UNSEEN_GROUND, ROAD, PAVEMENT, LAWN, OBSTACLE = range(5)
KINDS = 5
"""Kinds of ground: not seen yet, driveable, pavement, any other ground, and where something stands."""

DIRECTIONS, RANGES = 36, 36
CROP = (DIRECTIONS, RANGES)
"""Cells of a crop: directions all around the road user, closer together ahead of it, and distances along each, every
0.4 m at first and every 1.6 m from 14 m on: where a kerb is counts most nearby."""

_STEPS = (
    (0.4, 12),
    (0.8, 12),
    (1.6, 12),
)  # distance from cell to cell [m], and how many of them: 33.6 m in all

RAY_FEATURES = 4 * DIRECTIONS
"""Numbers of `rays`."""

_STANDS = (MANMADE, VEGETATION, BARRIER, OTHERS, TRAFFIC_CONE)
_REACH = 5  # layers above the ground in which something is in the way: up to 2 m

_GROUND = {DRIVEABLE: ROAD, SIDEWALK: PAVEMENT, TERRAIN: LAWN, OTHER_FLAT: LAWN, 255: UNSEEN_GROUND}
_KIND_OF = tuple(_GROUND.get(label, OBSTACLE) for label in range(256))
_OBSTACLE_OF = tuple(OBSTACLE * (label in _STANDS) for label in range(256))
"""Kinds of the ground by its label, and of what stands on it: the larger one counts."""


def kinds_of_columns(columns: Tensor, grid: Grid) -> Tensor:
    """Kinds (...) uint8 of columns of labels (..., z) uint8 without road users; 255 is unseen."""
    kind, obstacle = (constant(table, columns.device, torch.uint8) for table in (_KIND_OF, _OBSTACLE_OF))
    index = columns[..., grid.ground : grid.ground + 1 + _REACH].int()
    ground, stands = kind[index[..., 0]], obstacle[index].amax(-1)
    return torch.where(ground == UNSEEN_GROUND, ground, torch.maximum(ground, stands))


def crop_points(pose: Tensor, origin: Tensor) -> Tensor:
    """Where the cells of crops around poses (..., 3) lie in the frame `origin` (..., 3): (..., *CROP, 2) [m]."""
    local = relative(
        origin, pose
    )  # far from the world's origin float32 is too coarse, beside the frame it is not
    cos, sin = local[..., 2].cos(), local[..., 2].sin()
    turn = torch.stack((torch.stack((cos, sin), -1), torch.stack((-sin, cos), -1)), -2).float()
    return (_cells(pose.device) @ turn + local[..., None, :2].float()).unflatten(-2, CROP)


@lru_cache(maxsize=8)
def directions(device: torch.device | str = "cpu") -> Tensor:
    """Angles (DIRECTIONS,) [rad] from the heading to the left, from behind on the right to behind on the left."""
    even = (torch.arange(DIRECTIONS, device=device) + 0.5) / DIRECTIONS * 2 - 1
    return torch.pi * even.sign() * even.abs() ** 1.5


@lru_cache(maxsize=8)
def ranges(device: torch.device | str = "cpu") -> Tensor:
    """Distances (RANGES,) [m] of a crop's cells."""
    return torch.cat([torch.full((count,), step, device=device) for step, count in _STEPS]).cumsum(0)


@lru_cache(maxsize=8)
def _cells(device: torch.device) -> Tensor:
    """Where the cells of a crop lie in a road user's own frame, (cells, 2) [m]."""
    angle, distance = directions(device)[:, None], ranges(device)
    return torch.stack((angle.cos() * distance, angle.sin() * distance), dim=-1).flatten(0, 1)


@lru_cache(maxsize=8)
def _limits(device: torch.device) -> Tensor:
    """Distances (RANGES - 1,) [m] half-way between a crop's cells."""
    far = ranges(device)
    return (far[1:] + far[:-1]) / 2


def crop_index(x: Tensor, y: Tensor) -> Tensor:
    """Which cell of a road user's crop, flat, lies nearest to places x ahead and y to the left of it (...) [m]."""
    even = torch.atan2(y, x) / torch.pi
    even = even.sign() * even.abs() ** (1 / 1.5)
    direction = ((even + 1) / 2 * DIRECTIONS).long().clamp(0, DIRECTIONS - 1)
    distance = torch.bucketize(torch.hypot(x, y).contiguous(), _limits(x.device))
    return direction * RANGES + distance


def rays(crops: Tensor) -> Tensor:
    """How far it is in each direction, in crops (..., *CROP) uint8, until the ground is no road any more, no pavement,
    until something stands in the way, and until nothing is known: (..., RAY_FEATURES) float32, 1 is as far as it goes.

    A crop says all of this too; a network learns to read it from there, but takes hours for what is one sum.
    """
    kinds, left = _rulers(crops.device)
    here = crops.new_empty((*crops.shape[:-2], KINDS, *CROP), dtype=torch.float32)
    # Into numbers: a comparison that answers with booleans takes several times as long on a CPU.
    torch.eq(crops[..., None, :, :].float(), kinds, out=here)
    free = 1 - here.mul_(left).amax(-1)  # how far it is to the first cell of each kind
    unseen, road, pavement, lawn, obstacle = free.unbind(-2)
    other = torch.minimum(torch.minimum(unseen, obstacle), lawn)
    return torch.cat((torch.minimum(other, pavement), torch.minimum(other, road), obstacle, unseen), dim=-1)


@lru_cache(maxsize=8)
def _rulers(device: torch.device) -> tuple[Tensor, Tensor]:
    """The kinds (KINDS, 1, 1) as numbers; how far it is from where each cell begins to the end (RANGES,), 1 in all."""
    far = ranges(device)
    left = 1 - torch.cat((far.new_zeros(1), far[:-1])) / far[-1]
    return torch.arange(KINDS, device=device, dtype=torch.float32)[:, None, None], left
