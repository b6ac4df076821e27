"""Contacts of the ego with what voxels show: overlap now, on the way, and soon; and whose fault they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from occsora_sim.constants import constant, span
from occsora_sim.geometry import relative
from occsora_sim.grid import NUM_CLASSES, Grid
from occsora_sim.scoring.driving import ScoreConfig
from occsora_sim.scoring.footprint import (
    ROAD_USERS,
    STATIC,
    cells_of,
    footprint_lattice,
    footprint_points,
    obstacle_layers,
    read_columns,
)
from occsora_sim.vehicle import Vehicle

_KINDS = tuple(1 if label in ROAD_USERS else 2 if label in STATIC else 0 for label in range(NUM_CLASSES + 1))
"""Of each label whether it is that of a road user (1), of another obstacle (2), or of neither."""


@dataclass(frozen=True, kw_only=True)
class Contact:
    """Overlap of the ego with obstacles, each (...,) bool.

    Attributes:
        road_user: with something that moves by itself.
        static: with something that does not.
        behind: the overlap's mean lies in the rear part of the ego.

    """

    road_user: torch.Tensor
    static: torch.Tensor
    behind: torch.Tensor

    @property
    def any(self) -> torch.Tensor:
        """(...,) bool: with anything."""
        return self.road_user | self.static


def find_contact(
    occupancy: torch.Tensor,
    grid: Grid,
    vehicle: Vehicle,
    config: ScoreConfig,
    poses: torch.Tensor | None = None,
) -> Contact:
    """Overlap of the ego's rectangle with obstacle voxels between 0.2 and 1.8 m height.

    Args:
        occupancy: (..., x, y, z) uint8, one or two leading axes.
        grid: where the voxels are.
        vehicle: its size.
        config: options.
        poses: (..., p, 3) where the ego is, in the occupancy's frame; the overlap at any of them counts.
            Default: at the origin.

    """
    if poses is None:
        poses = torch.zeros(*occupancy.shape[:-3], 1, 3, device=occupancy.device)
    cells = cells_of(grid, footprint_points(vehicle, grid, poses))
    return _contacts(_obstacles(occupancy, grid, cells), (slice(None),), grid, vehicle, config)[0]


def find_swept_contact(
    before: torch.Tensor,
    after: torch.Tensor,
    motion: torch.Tensor,
    grid: Grid,
    vehicle: Vehicle,
    config: ScoreConfig,
    parts: int = 4,
) -> Contact:
    """Overlap after a motion, or at an instant on the way, so that a fast ego cannot jump over a thin obstacle.

    On the way only what is there in both frames counts: a car that follows or leads at speed is elsewhere in one of
    them, so it is not mistaken for an obstacle.

    Args:
        before: (..., x, y, z) uint8, the frame before, in its ego frame; one or two leading axes.
        after: (..., x, y, z) uint8, the next frame, in its ego frame.
        motion: (..., 3) the ego's pose at `after` in the frame of `before`.
        grid: where the voxels are.
        vehicle: its size.
        config: options.
        parts: intervals that the motion is cut into.

    """
    fraction = span(parts - 1, motion.device, first=1) / parts
    poses = motion[..., None, :] * fraction[:, None]  # (..., parts - 1, 3)
    back = relative(motion[..., None, :].expand_as(poses), poses)
    here = torch.zeros_like(motion)[..., None, :]
    cells = cells_of(grid, footprint_points(vehicle, grid, torch.cat((here, back, poses), dim=-2)))
    new = _obstacles(after, grid, cells[..., :parts, :, :])
    old = _obstacles(before, grid, cells[..., parts:, :, :])
    groups = slice(0, 1), slice(1, parts), slice(parts, None)
    end, later, earlier = _contacts(torch.cat((new, old), dim=-3), groups, grid, vehicle, config)
    return Contact(
        road_user=end.road_user | earlier.road_user & later.road_user,
        static=end.static | earlier.static & later.static,
        behind=torch.where(end.road_user, end.behind, earlier.behind & later.behind),
    )


def _obstacles(occupancy: torch.Tensor, grid: Grid, cells: torch.Tensor) -> torch.Tensor:
    """Labels (..., p, n, l) uint8 of the l layers at obstacle height in columns (..., p, n, 2)."""
    labels = read_columns(occupancy[..., obstacle_layers(grid)], cells.flatten(-3, -2))
    return labels.unflatten(-2, cells.shape[-3:-1])


def _contacts(
    labels: torch.Tensor, groups: Sequence[slice], grid: Grid, vehicle: Vehicle, config: ScoreConfig
) -> list[Contact]:
    """What labels (..., p, n, l) in the footprint mean: for each group of the p poses, a contact at any of them."""
    lattice = footprint_lattice(vehicle, grid.voxel, labels.device)[:, 0]
    kind = constant(_KINDS, labels.device, torch.uint8)[labels.long()]  # 1 road user, 2 static
    users, static = (kind == 1).sum(dim=-1), (kind == 2).sum(dim=-1)  # (..., p, n)
    hits = users + static
    lever, count = (hits * lattice).sum(dim=-1), hits.sum(dim=-1)  # (..., p)
    enough = [part.sum(dim=-1) >= config.min_voxels for part in (users, static)]
    rear = vehicle.rear + config.rear_part * vehicle.length
    return [
        Contact(
            road_user=enough[0][..., group].any(dim=-1),
            static=enough[1][..., group].any(dim=-1),
            behind=lever[..., group].sum(dim=-1) < rear * count[..., group].sum(dim=-1).clamp(min=1),
        )
        for group in groups
    ]


def no_collision(
    contact: Contact, speed: torch.Tensor, blameless: torch.Tensor, config: ScoreConfig
) -> tuple[torch.Tensor, torch.Tensor]:
    """No at-fault collision, NC (NAVSIM: 0 for a road user, 0.5 for a static object, else 1), one frame after another.

    At fault: the ego moves, and touches a static object, or a road user with its front or side. Being hit from
    behind is not, and stays so until the contact ends, because a recorded car that does not react drives through
    the ego from behind to the front. Nor is being touched while standing, but only as long as the ego stands: else
    who comes up to somebody slower than `moving` could drive on through him.

    Args:
        contact: what the ego touches, (b, f).
        speed: (b, f) of the ego [m/s].
        blameless: (b,) bool, a contact that began from behind goes on since the instant before.
        config: options.

    Returns:
        nc (b, f) in {0, 0.5, 1} and the `blameless` (b,) after the last frame.

    """
    moving = speed > config.moving
    front, faults = contact.road_user & moving & ~contact.behind, []
    touched, rears = contact.road_user.unbind(1), contact.behind.unbind(1)
    for touches, hits, rear in zip(touched, front.unbind(1), rears, strict=True):
        faults.append(hits & ~blameless)
        blameless = touches & (blameless | rear)
    light = 1.0 - 0.5 * (contact.static & moving).float()
    return light.masked_fill(torch.stack(faults, dim=1), 0.0), blameless


def time_to_collision(
    occupancy: torch.Tensor, speed: torch.Tensor, grid: Grid, vehicle: Vehicle, config: ScoreConfig
) -> torch.Tensor:
    """TTC: whether the ego, going straight on at constant speed, stays clear of road users for the horizon.

    For worlds whose road users are voxels alone. These carry no velocity, so everybody stands here, which also judges
    the headway to a moving leader; where velocities are known, `moving_collision` judges as NAVSIM does. An ego that
    stands passes. `occupancy` (..., x, y, z), one or two leading axes, `speed` (...) [m/s] -> (...) float in {0, 1}.
    """
    times = constant(config.instants[1:], speed.device, speed.dtype)
    ahead = speed[..., None] * times
    poses = torch.stack((ahead, torch.zeros_like(ahead), torch.zeros_like(ahead)), dim=-1).float()
    hit = find_contact(occupancy, grid, vehicle, config, poses).road_user
    return torch.where(hit & (speed > config.moving), 0.0, 1.0)
