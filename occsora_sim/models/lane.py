"""The lane of the route on new ground: a street that is to be followed is a street, and goes on as wide as it is.

A route is the middle line of lanes. The denoiser is shown it and leads streets along it, but a kerb that it draws a
voxel too far in takes the lane from a car that drives well, and chunk after chunk a street grows narrow. What is
certain is not left to a draw: as recorded ground is kept, the lane that the route runs in is drivable, and so is one
more on either side where for the most part there is one.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from occsora_sim.grid import DRIVEABLE, FLAT, FREE, NUM_CLASSES, Grid, class_mask
from occsora_sim.models.columns import is_dynamic
from occsora_sim.models.context import columns_at, mark_columns, route_mask

_WIDER = 2
"""Voxels by which the lane is wider on each side than `route_mask`: nine in all, 3.6 m at 0.4 m; lanes have 3 m, and in
a bend more, where the rear of a car cuts the corner."""

_BESIDE = (2.0, 2.4, 2.8, 3.2, 3.6, 4.0)
"""Lines beside the route [m], inmost first, each drawn with the columns next to it: one more lane. In the training
towns' streets the lane towards the ego is road as far as this along 99 % and more of straight routes."""

_AROUND = 8
"""Points 0.5 m apart on each side over which the turn of a route is taken."""

_NEARBY = 20
"""Points on each side, 10 m, among which most decide whether such a line is road."""

_INSIDE, _BEND = 2.8, 0.35
"""On the inside of a bend, where the route turns by more than this over 8 m [rad], lines as far from it as this [m] are
road: corners are round, and a car cuts them."""


def open_lane(labels: Tensor, route: Tensor, poses: Tensor, grid: Grid) -> Tensor:
    """Drawn frames with the lane of the route drivable, and nothing that stands still in it.

    Beside it a line parallel to the route is drivable wherever it is so at half and more of the points in view within
    10 m, and all lines nearer to the route are. The inside of a bend is drivable for a metre more.

    Args:
        labels: (b, f, x, y, z) uint8.
        route: (b, r, 2) world points about 1 m apart [m], NaN-padded.
        poses: (b, f, 3) world poses of the frames [m, m, rad].
        grid: the voxel grid.

    Returns:
        (b, f, x, y, z) uint8; road users stay. A column without ground of its own gets the road at the grid's ground.

    """
    lane = F.max_pool2d(route_mask(route, poses, grid), 2 * _WIDER + 1, 1, _WIDER) > 0  # (b, f, x, y)
    lane |= _lanes_beside(labels, route, poses, grid)
    columns = labels[lane]  # (n, z)
    ground = class_mask(FLAT, labels.device)[:NUM_CLASSES][columns.long()]
    level = torch.arange(grid.shape[2], device=labels.device) == grid.ground
    road = ground | (level & ~ground.any(-1, keepdim=True))
    cleared = torch.where(road, DRIVEABLE, torch.where(is_dynamic(columns), columns, FREE))
    out = labels.clone()
    out[lane] = cleared.to(torch.uint8)
    return out


def _lanes_beside(labels: Tensor, route: Tensor, poses: Tensor, grid: Grid) -> Tensor:
    """Columns of the lanes beside the route's that are road for the most part: (b, f, x, y) bool."""
    (b, f), r = poses.shape[:2], route.shape[1]
    if r <= _AROUND:  # too short to have a direction
        return torch.zeros(labels.shape[:4], dtype=torch.bool, device=labels.device)
    half = (route[:, 1:] + route[:, :-1]) / 2
    route = torch.stack((route[:, :-1], half), dim=2).flatten(1, 2)  # (b, n, 2), 0.5 m apart
    along = F.pad((route[:, 2:] - route[:, :-2]).mT, (1, 1), mode="replicate").mT
    left = torch.stack((-along[..., 1], along[..., 0]), dim=-1) / along.norm(dim=-1, keepdim=True)
    turn = _turn(left)
    road = (labels == DRIVEABLE).any(-1)
    row, frame = (torch.arange(size, device=route.device) for size in (b, f))
    beside = torch.zeros(b, f, *grid.shape[:2], device=route.device)
    for side, inside_bend in ((left, turn > _BEND), (-left, turn < -_BEND)):
        inner = torch.ones(b, f, route.shape[1], dtype=torch.bool, device=route.device)
        for metres in _BESIDE:
            voxel, inside = columns_at(route + metres * side, poses, grid)
            found = road[row[:, None, None], frame[:, None], voxel[..., 0], voxel[..., 1]] & inside
            votes = torch.stack((found.float(), inside.float()))  # (2, b, f, n)
            votes = F.avg_pool1d(votes.flatten(0, 1), 2 * _NEARBY + 1, 1, _NEARBY).view_as(votes)
            inner = inner & (2 * votes[0] >= votes[1])
            if metres <= _INSIDE:
                inner = inner | inside_bend[:, None]
            beside = beside.maximum(mark_columns(voxel, inside & inner, grid))
    return F.max_pool2d(beside, 3, 1, 1) > 0


def _turn(left: Tensor) -> Tensor:
    """By how much routes with normals (b, n, 2) 0.5 m apart turn to the left over 8 m [rad]: (b, n), 0 at the ends."""
    before, after = left[:, : -2 * _AROUND], left[:, 2 * _AROUND :]
    sine = before[..., 0] * after[..., 1] - before[..., 1] * after[..., 0]
    return F.pad(torch.atan2(sine, (before * after).sum(-1)), (_AROUND, _AROUND))
