"""What each road user sees of the ground: a crop in its own frame, a code a cell.

Who looks at voxels, at a raster or at a record first says for each column which of five kinds it is; a model of traffic
needs no more of the ground.
"""

from __future__ import annotations

import torch
from torch import Tensor

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

CROP = (48, 32)
"""Cells of a crop along and across the road user."""

CELL = 0.8
"""Edge of a cell [m]."""

BEHIND = 9.6
"""How far a crop reaches behind the road user [m]; ahead it reaches 28.8 m, to each side 12.8 m."""

RAYS = 25
"""Directions in which a road user looks how far its ground goes on, from 100 degrees on the right to the left."""

RAY_FEATURES = 4 * RAYS
"""Numbers of `rays`."""

_RAY_STEPS = 32  # places along a ray, a cell apart: 25.6 m

_STANDS = (MANMADE, VEGETATION, BARRIER, OTHERS, TRAFFIC_CONE)
_REACH = 5  # layers above the ground in which something is in the way: up to 2 m


def kinds_of_columns(columns: Tensor, grid: Grid) -> Tensor:
    """Kinds (...) uint8 of columns of labels (..., z) uint8 without road users; 255 is unseen."""
    ground, above = columns[..., grid.ground], columns[..., grid.ground + 1 : grid.ground + 1 + _REACH]
    kind = torch.full_like(ground, LAWN)
    kind = torch.where(ground == DRIVEABLE, ROAD, kind)
    kind = torch.where(ground == SIDEWALK, PAVEMENT, kind)
    stands = torch.zeros_like(above, dtype=torch.bool)
    for label in _STANDS:
        stands |= above == label
    flat = (ground == DRIVEABLE) | (ground == SIDEWALK) | (ground == TERRAIN) | (ground == OTHER_FLAT)
    kind = torch.where(stands.any(-1) | (~flat & (ground != 255)), OBSTACLE, kind)
    return torch.where(ground == 255, UNSEEN_GROUND, kind).to(torch.uint8)


def crop_cells(pose: Tensor, origin: Tensor, cell: float) -> Tensor:
    """Where the cells of crops around poses (..., 3) lie on a lattice of `cell` [m] in the frame `origin` (..., 3):
    (..., 2, *CROP) float32, in cells.
    """
    along = (torch.arange(CROP[0], device=pose.device) + 0.5) * CELL - BEHIND
    across = (torch.arange(CROP[1], device=pose.device) + 0.5) * CELL - CROP[1] * CELL / 2
    grid = torch.stack(torch.meshgrid(along, across, indexing="ij")).flatten(1)  # (2, cells)
    local = relative(
        origin, pose
    )  # far from the world's origin float32 is too coarse, beside the frame it is not
    cos, sin = local[..., 2].cos(), local[..., 2].sin()
    turn = torch.stack((torch.stack((cos, -sin), -1), torch.stack((sin, cos), -1)), -2).float()
    points = turn @ grid + local[..., :2, None].float()
    return (points / cell).unflatten(-1, CROP)


def rays(crops: Tensor) -> Tensor:
    """How far it is along each ray, from the middle of crops (..., *CROP) uint8, until the ground is no road
    any more, no pavement, until something stands in the way, and until nothing is known: (..., RAY_FEATURES) float32, 1
    is 25.6 m.

    A crop says all of this too; a network learns to read it from there, but takes hours for what is one sum.
    """
    cells = _ray_cells(crops.device)
    seen = crops.flatten(-2)[..., cells]  # (..., rays, steps)
    ends = torch.stack((seen != ROAD, seen != PAVEMENT, seen == OBSTACLE, seen == UNSEEN_GROUND), dim=-3)
    far = (~ends).int().cummin(dim=-1).values.sum(dim=-1)
    return far.flatten(-2).float() / _RAY_STEPS


def _ray_cells(device: torch.device) -> Tensor:
    """Flat crop cells (RAYS, steps) int64 under the rays; those beyond the crop's edge are the last ones within."""
    angle = torch.linspace(-100, 100, RAYS, device=device).deg2rad()
    far = (torch.arange(_RAY_STEPS, device=device) + 0.5) * CELL
    i = (angle.cos()[:, None] * far + BEHIND) / CELL
    j = (angle.sin()[:, None] * far + CROP[1] * CELL / 2) / CELL
    return i.long().clamp(0, CROP[0] - 1) * CROP[1] + j.long().clamp(0, CROP[1] - 1)
