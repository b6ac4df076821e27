"""The lane of the route on new ground: a street that is to be followed is a street.

A route is the middle line of lanes. The denoiser is shown it and leads streets along it, but a kerb that it draws a
voxel too far in takes the lane from a car that drives well. What is certain is not left to a draw: as recorded ground
is kept, the lane that the route runs in is drivable.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from occsora_sim.grid import DRIVEABLE, FLAT, FREE, NUM_CLASSES, Grid, class_mask
from occsora_sim.models.columns import is_dynamic
from occsora_sim.models.context import route_mask

_WIDER = 2
"""Voxels by which the lane is wider on each side than `route_mask`: nine in all, 3.6 m at 0.4 m; lanes have 3 m, and in
a bend more, where the rear of a car cuts the corner."""


def open_lane(labels: Tensor, route: Tensor, poses: Tensor, grid: Grid) -> Tensor:
    """Drawn frames with the lane of the route drivable, and nothing that stands still in it.

    Args:
        labels: (b, f, x, y, z) uint8.
        route: (b, r, 2) world points about 1 m apart [m], NaN-padded.
        poses: (b, f, 3) world poses of the frames [m, m, rad].
        grid: the voxel grid.

    Returns:
        (b, f, x, y, z) uint8; road users stay. A column without ground of its own gets the road at the grid's ground.

    """
    lane = F.max_pool2d(route_mask(route, poses, grid), 2 * _WIDER + 1, 1, _WIDER) > 0  # (b, f, x, y)
    columns = labels[lane]  # (n, z)
    ground = class_mask(FLAT, labels.device)[:NUM_CLASSES][columns.long()]
    level = torch.arange(grid.shape[2], device=labels.device) == grid.ground
    road = ground | (level & ~ground.any(-1, keepdim=True))
    cleared = torch.where(road, DRIVEABLE, torch.where(is_dynamic(columns), columns, FREE))
    out = labels.clone()
    out[lane] = cleared.to(torch.uint8)
    return out
