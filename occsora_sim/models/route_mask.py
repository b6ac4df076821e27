"""The columns of a frame that lie on the route."""

from __future__ import annotations

import torch
from torch import Tensor

from occsora_sim.constants import constant
from occsora_sim.geometry import to_frame
from occsora_sim.grid import Grid

_BESIDE = 2
"""Columns to either side of a point of the route that are on it too."""


def route_mask(route: Tensor, poses: Tensor, grid: Grid) -> Tensor:
    """Columns within about 1 m of the route.

    route (b, r, 2) world points about 1 m apart, NaN-padded; poses (b, f, 3) -> (b, f, x, y) float32 of 0 and 1.
    """
    x, y = grid.shape[:2]
    place = to_frame(route[:, None], poses[:, :, None])
    voxel = torch.floor((place - constant(grid.lower[:2], place.device)) / grid.voxel)
    inside = ((voxel >= 0) & (voxel < constant((x, y), place.device))).all(-1)  # points that are NaN are not
    # Squares around the points, on a sheet with room for them all around; behind it a cell for who is outside.
    wide, side = y + 2 * _BESIDE, 2 * _BESIDE + 1
    around = tuple(i * wide + j for i in range(side) for j in range(side))
    corner = torch.where(inside, voxel[..., 0] * wide + voxel[..., 1], (x + 2 * _BESIDE) * wide).long()
    cells = (corner[..., None] + constant(around, place.device, torch.int64)).flatten(2)
    sheet = torch.zeros(*inside.shape[:2], (x + 2 * _BESIDE) * wide + around[-1] + 1, device=place.device)
    sheet = sheet.scatter_(2, cells, 1.0)[..., : (x + 2 * _BESIDE) * wide].unflatten(2, (-1, wide))
    return sheet[..., _BESIDE:-_BESIDE, _BESIDE:-_BESIDE].contiguous()
