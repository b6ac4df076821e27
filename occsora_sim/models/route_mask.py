"""The columns of a frame that lie on the route."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from occsora_sim.geometry import to_frame
from occsora_sim.grid import Grid


def route_mask(route: Tensor, poses: Tensor, grid: Grid) -> Tensor:
    """Columns within about 1 m of the route.

    route (b, r, 2) world points about 1 m apart, NaN-padded; poses (b, f, 3) -> (b, f, x, y) float32 of 0 and 1.
    """
    x, y = grid.shape[:2]
    place = to_frame(route[:, None], poses[:, :, None])
    voxel = torch.floor((place - place.new_tensor(grid.lower[:2])) / grid.voxel)
    inside = (voxel >= 0).all(-1) & (voxel[..., 0] < x) & (voxel[..., 1] < y)  # points that are NaN are not
    cells = torch.where(inside, voxel[..., 0] * y + voxel[..., 1], 0.0).long()
    mask = torch.zeros(*inside.shape[:2], x * y, device=place.device)
    mask = mask.scatter_reduce(2, cells, inside.float(), "amax").unflatten(2, (x, y))
    return F.max_pool2d(mask, 5, 1, 2)
