"""What lies in the ego's rectangle: labels of the voxels in its footprint, at any pose in the ego frame."""

from __future__ import annotations

from functools import lru_cache

import torch

from occsora_sim.constants import constant
from occsora_sim.grid import (
    BARRIER,
    DYNAMIC,
    FREE,
    MANMADE,
    OTHERS,
    TRAFFIC_CONE,
    VEGETATION,
    Grid,
)
from occsora_sim.vehicle import Vehicle, footprint_corners

STATIC: tuple[int, ...] = (OTHERS, BARRIER, TRAFFIC_CONE, MANMADE, VEGETATION)
"""Labels of obstacles that do not move by themselves; with `grid.DYNAMIC` they are all that one can hit."""

ROAD_USERS = DYNAMIC

LOWEST, HIGHEST = 0.2, 1.8
"""Heights between which a voxel's centre makes it an obstacle for a car [m]: above kerbs, below branches."""


@lru_cache(maxsize=32)
def obstacle_layers(grid: Grid) -> slice:
    """The z layers of `grid` whose centres lie between LOWEST and HIGHEST."""
    inside = ((grid.centres_z() > LOWEST) & (grid.centres_z() < HIGHEST)).nonzero().flatten()
    return slice(int(inside[0]), int(inside[-1]) + 1) if len(inside) else slice(0, 0)


def columns_at(occupancy: torch.Tensor, grid: Grid, points: torch.Tensor) -> torch.Tensor:
    """Labels of the columns that hold `points`.

    Args:
        occupancy: (..., x, y, z) uint8 labels, one or two leading axes.
        grid: where the voxels are.
        points: (..., n, 2) [m] in the ego frame.

    Returns:
        (..., n, z) uint8; FREE outside the grid.

    """
    lower = constant(grid.lower[:2], points.device, points.dtype)
    size = constant(grid.shape[:2], points.device, torch.int64)
    index = torch.floor((points - lower) / grid.voxel).long()
    held = torch.minimum(index.clamp(min=0), size - 1)
    inside = (index == held).all(dim=-1)  # (..., n)
    leading = [
        torch.arange(length, device=points.device).view(-1, *[1] * (points.ndim - 2 - axis))
        for axis, length in enumerate(occupancy.shape[:-3])
    ]
    labels = occupancy[(*leading, *held.unbind(-1))]
    return labels.masked_fill(~inside[..., None], FREE)


@lru_cache(maxsize=32)
def footprint_lattice(vehicle: Vehicle, pitch: float, device: torch.device | str = "cpu") -> torch.Tensor:
    """Points (n, 2) [m] that fill the vehicle's rectangle, at most `pitch` apart, cell centres, ego frame. They are
    shared: nobody may write into them.
    """
    counts = max(1, round(vehicle.length / pitch)), max(1, round(vehicle.width / pitch))
    x = (torch.arange(counts[0], device=device) + 0.5) * (vehicle.length / counts[0]) + vehicle.rear
    y = (torch.arange(counts[1], device=device) + 0.5) * (vehicle.width / counts[1]) - vehicle.width / 2
    return torch.stack(torch.meshgrid(x, y, indexing="ij"), dim=-1).reshape(-1, 2)


def footprint_labels(
    occupancy: torch.Tensor, grid: Grid, vehicle: Vehicle, poses: torch.Tensor
) -> torch.Tensor:
    """Labels at obstacle height inside the ego's rectangle at each of `poses`.

    Args:
        occupancy: (..., x, y, z) uint8 labels, one or two leading axes.
        grid: where the voxels are.
        vehicle: its size.
        poses: (..., p, 3) in the ego frame of the occupancy.

    Returns:
        (..., p, n, l) uint8 over the n points of `footprint_lattice`, one for about each voxel, and l layers.

    """
    lattice = footprint_lattice(vehicle, grid.voxel, poses.device).to(poses.dtype)
    cos, sin = torch.cos(poses[..., 2:]), torch.sin(poses[..., 2:])  # (..., p, 1)
    x = poses[..., :1] + cos * lattice[:, 0] - sin * lattice[:, 1]
    y = poses[..., 1:2] + sin * lattice[:, 0] + cos * lattice[:, 1]
    points = torch.stack((x, y), dim=-1).flatten(-3, -2)  # (..., p n, 2)
    labels = columns_at(occupancy[..., obstacle_layers(grid)], grid, points)
    return labels.unflatten(-2, x.shape[-2:])


def ground_points(vehicle: Vehicle, device: torch.device | str = "cpu") -> torch.Tensor:
    """The four corners and the centre of the footprint, shape (5, 2) [m], ego frame."""
    corners = footprint_corners(vehicle, torch.zeros(3, device=device))
    return torch.cat((corners, corners.mean(dim=0, keepdim=True)))
