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
    """Labels (..., n, z) uint8 of the columns that hold `points` (..., n, 2) [m] in the ego frame, of an `occupancy`
    (..., x, y, z) uint8 with one or two leading axes; FREE outside the grid.
    """
    return read_columns(occupancy, cells_of(grid, points))


def cells_of(grid: Grid, points: torch.Tensor) -> torch.Tensor:
    """The columns (..., 2) int64 that hold `points` (..., 2) [m] in the ego frame, along x and y; some may lie outside
    the grid.
    """
    lower = constant(grid.lower[:2], points.device, points.dtype)
    return torch.floor((points - lower) / grid.voxel).long()


def read_columns(occupancy: torch.Tensor, cells: torch.Tensor) -> torch.Tensor:
    """Labels (..., n, z) uint8 of the columns `cells` (..., n, 2) int64 of an `occupancy` (..., x, y, z) uint8 with one
    or two leading axes; FREE outside.
    """
    last = constant(tuple(edge - 1 for edge in occupancy.shape[-3:-1]), cells.device, torch.int64)
    held = torch.minimum(cells.clamp(min=0), last)
    leading = [
        constant(tuple(range(length)), cells.device, torch.int64).view(-1, *[1] * (cells.ndim - 2 - axis))
        for axis, length in enumerate(occupancy.shape[:-3])
    ]
    labels = occupancy[(*leading, *held.unbind(-1))]
    return labels.masked_fill((cells != held).any(dim=-1, keepdim=True), FREE)


@lru_cache(maxsize=32)
def footprint_lattice(vehicle: Vehicle, pitch: float, device: torch.device | str = "cpu") -> torch.Tensor:
    """Points (n, 2) [m] that fill the vehicle's rectangle, at most `pitch` apart, cell centres, ego frame. They are
    shared: nobody may write into them.
    """
    counts = max(1, round(vehicle.length / pitch)), max(1, round(vehicle.width / pitch))
    x = (torch.arange(counts[0], device=device) + 0.5) * (vehicle.length / counts[0]) + vehicle.rear
    y = (torch.arange(counts[1], device=device) + 0.5) * (vehicle.width / counts[1]) - vehicle.width / 2
    return torch.stack(torch.meshgrid(x, y, indexing="ij"), dim=-1).reshape(-1, 2)


def footprint_points(vehicle: Vehicle, grid: Grid, poses: torch.Tensor) -> torch.Tensor:
    """Points (..., p, n, 2) [m] of the vehicle's rectangle (`footprint_lattice`, one for about each voxel) at each of
    `poses` (..., p, 3).
    """
    lattice = footprint_lattice(vehicle, grid.voxel, poses.device).to(poses.dtype)
    cos, sin = torch.cos(poses[..., 2:]), torch.sin(poses[..., 2:])  # (..., p, 1)
    x = poses[..., :1] + cos * lattice[:, 0] - sin * lattice[:, 1]
    y = poses[..., 1:2] + sin * lattice[:, 0] + cos * lattice[:, 1]
    return torch.stack((x, y), dim=-1)


def ground_points(vehicle: Vehicle, device: torch.device | str = "cpu") -> torch.Tensor:
    """The four corners and the centre of the footprint, shape (5, 2) [m], ego frame."""
    corners = footprint_corners(vehicle, torch.zeros(3, device=device))
    return torch.cat((corners, corners.mean(dim=0, keepdim=True)))
