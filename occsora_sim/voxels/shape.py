"""Shapes of road users as they were seen, to be carried along with them."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from occsora_sim.geometry import compose, relative
from occsora_sim.grid import Grid
from occsora_sim.road_users import RoadUsers
from occsora_sim.voxels.cover import column_owners
from occsora_sim.voxels.shape_cells import BITS, CELLS, GROWN


def observe_shape(labels: Tensor, users: RoadUsers, pose: Tensor, grid: Grid) -> Tensor:
    """What is seen of each road user, in its own frame.

    Voxels of its label inside its slightly grown box count, unless they lie in the box of another. Nothing waits for
    the device.

    Args:
        labels: (b, x, y, z) uint8 in the ego frames.
        users: of b worlds, as they are now.
        pose: (b, 3) world poses of the egos.
        grid: the voxels.

    Returns:
        (b, n, *CELLS) int16 for `RoadUsers.shape`: all 0 where nothing was seen, or of a road user too large.

    """
    b, n = users.label.shape
    x, y, z = grid.shape
    device = labels.device
    owner = column_owners(replace(users, shape=None), pose, grid)
    owner = torch.where(owner >= 0, owner, column_owners(_grown(users, GROWN * grid.voxel), pose, grid))
    axes = [(torch.arange(k, device=device) + 0.5 - k / 2) * (grid.voxel / 2) for k in CELLS]
    local = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).flatten(0, 1).double()
    local = torch.cat((local, torch.zeros_like(local[:, :1])), dim=-1)
    at = relative(pose.to(users.now)[:, None], users.now)  # (b, n, 3)
    points = compose(at[:, :, None].expand(-1, -1, len(local), -1), local.to(at))[..., :2]
    i, j = (torch.floor((points[..., k] - grid.lower[k]) / grid.voxel).long() for k in (0, 1))
    inside = (i >= 0) & (i < x) & (j >= 0) & (j < y)
    world = torch.arange(b, device=device)[:, None, None] * x
    cells = (world + i.clamp(0, x - 1)) * y + j.clamp(0, y - 1)  # (b, n, l * w)
    mine = inside & (owner.flatten()[cells] == torch.arange(n, device=device)[:, None])
    layers = min(z - grid.ground - 1, BITS)
    weight = 1 << torch.arange(layers, device=device)
    seen = labels.flatten(0, 2)[:, grid.ground + 1 : grid.ground + 1 + layers]
    label = users.label.flatten()[
        torch.where(owner >= 0, owner, 0) + torch.arange(b, device=device)[:, None, None] * n
    ]
    bits = ((seen == label.flatten()[:, None]) * weight).sum(-1)[cells] * mine
    room = [cells * grid.voxel / 2 - 2 * GROWN * grid.voxel for cells in CELLS]
    fits = users.valid & (users.size[..., 0] <= room[0]) & (users.size[..., 1] <= room[1])
    return (bits * fits[..., None]).to(torch.int16).view(b, n, *CELLS)


def _grown(users: RoadUsers, by: float) -> RoadUsers:
    """Boxes longer and wider by `by` [m] at each face, without shapes."""
    size = torch.cat((users.size[..., :2] + 2 * by, users.size[..., 2:]), dim=-1)
    return replace(users, size=size, shape=None)
