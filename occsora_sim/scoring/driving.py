"""The driving metrics of NAVSIM, computed from occupancy and ego motion alone.

NAVSIM (Dauner et al. 2024, arXiv 2406.15349): PDMS = NC x DAC x (5 TTC + 5 EP + 2 C) / 12. There the boxes
and the map are known; here a contact is an overlap of the ego's rectangle with obstacle voxels, and the
drivable area is the voxels labelled so. All functions are batched over b instants, with one frame each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch

from occsora_sim.constants import constant
from occsora_sim.errors import ConfigurationError
from occsora_sim.geometry import relative
from occsora_sim.grid import (
    BARRIER,
    MANMADE,
    NUM_CLASSES,
    OTHER_FLAT,
    SIDEWALK,
    TERRAIN,
    VEGETATION,
    Grid,
    class_mask,
)
from occsora_sim.quantities import settle
from occsora_sim.scoring.footprint import (
    ROAD_USERS,
    STATIC,
    cells_of,
    footprint_lattice,
    footprint_points,
    ground_points,
    obstacle_layers,
    read_columns,
)
from occsora_sim.vehicle import Vehicle

OFF_ROAD: tuple[int, ...] = (OTHER_FLAT, SIDEWALK, TERRAIN, MANMADE, VEGETATION, BARRIER)
"""Ground labels on which a car does not belong. Road users' and unknown ground voxels are no violation."""

_KINDS = tuple(1 if label in ROAD_USERS else 2 if label in STATIC else 0 for label in range(NUM_CLASSES + 1))
"""Of each label whether it is that of a road user (1), of another obstacle (2), or of neither."""


@dataclass(frozen=True, kw_only=True)
class ScoreConfig:
    """Options of the driving metrics.

    Attributes:
        min_voxels: an overlap of fewer obstacle voxels is noise, not a contact.
        moving: slower than this the ego stands and is not at fault [m/s].
        rear_part: contacts whose mean lies in this rearmost part of the length are hits from behind.
        tolerance: a footprint point is off the road if nothing within this distance is drivable [m].
        ttc_horizon: time to collision that passes [s] (NAVSIM: 0.95).
        ttc_step: spacing of the projected instants [s].
        reference_speed: speed of the reference for progress [m/s].
        reference_acceleration: how the reference gets there from the ego's starting speed [m/s2].
        route_width: progress counts within this distance of the route [m].
        goal_distance: the goal counts as reached at this distance of the route's end [m].

    """

    min_voxels: int = 3
    moving: float = 0.2
    rear_part: float = 0.25
    tolerance: float = 0.4
    ttc_horizon: float = 0.95
    ttc_step: float = 0.25
    reference_speed: float = 10.0
    reference_acceleration: float = 2.0
    route_width: float = 8.0
    goal_distance: float = 5.0

    def __post_init__(self) -> None:
        settle(self, "score ")
        if min(self.min_voxels, self.ttc_horizon, self.ttc_step, self.reference_speed) <= 0:
            raise ConfigurationError(
                "score: min_voxels, ttc_horizon, ttc_step and reference_speed must be positive"
            )

    @property
    def instants(self) -> tuple[float, ...]:
        """The projected instants of the time to collision [s], from now to the horizon."""
        count = int(self.ttc_horizon / self.ttc_step + 1e-6)
        return (*(self.ttc_step * k for k in range(count + 1)), self.ttc_horizon)


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
    fraction = torch.arange(1, parts, device=motion.device) / parts
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

    At fault: the ego moves, and touches a static object, or a road user with its front or side. Being hit
    from behind or while standing is not; a contact that began so stays so until it ends, because a recorded
    car that does not react drives through the ego from behind to the front.

    Args:
        contact: what the ego touches, (b, f).
        speed: (b, f) of the ego [m/s].
        blameless: (b,) bool, a contact without fault goes on since the instant before.
        config: options.

    Returns:
        nc (b, f) in {0, 0.5, 1} and the `blameless` (b,) after the last frame.

    """
    moving = speed > config.moving
    front, faults = contact.road_user & moving & ~contact.behind, []
    for touches, hits in zip(contact.road_user.unbind(1), front.unbind(1), strict=True):
        faults.append(hits & ~blameless)
        blameless = touches & (blameless | ~faults[-1])
    light = 1.0 - 0.5 * (contact.static & moving).float()
    return light.masked_fill(torch.stack(faults, dim=1), 0.0), blameless


def off_road_points(
    occupancy: torch.Tensor, grid: Grid, vehicle: Vehicle, config: ScoreConfig
) -> torch.Tensor:
    """Which of the footprint's corners and centre stand on ground where a car does not belong.

    DAC is 1 where none does, else 0 (NAVSIM). `occupancy` (..., x, y, z) uint8 -> (..., 5) bool.
    """
    cells, inside = _ground_cells(grid, vehicle, config.tolerance, occupancy.device)
    labels = occupancy[..., grid.ground].flatten(-2)[..., cells].long()  # (..., 5, n)
    return (class_mask(OFF_ROAD, labels.device)[labels] & inside).all(dim=-1)


@lru_cache(maxsize=32)
def _ground_cells(
    grid: Grid, vehicle: Vehicle, tolerance: float, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """The columns within `tolerance` [m] of each ground point of the footprint (`footprint.ground_points`): positions
    (5, n) int64 in the flattened ground plane, and whether they are in it.
    """
    reach = int(tolerance / grid.voxel + 1e-6)
    shift = torch.arange(-reach, reach + 1) * grid.voxel
    around = torch.stack(torch.meshgrid(shift, shift, indexing="ij"), dim=-1).reshape(1, -1, 2)
    window = ground_points(vehicle)[:, None] + around
    index = torch.floor((window - torch.tensor(grid.lower[:2])) / grid.voxel).long()
    size = torch.tensor(grid.shape[:2])
    inside = ((index >= 0) & (index < size)).all(dim=-1)
    index = torch.minimum(index.clamp(min=0), size - 1)
    return (index[..., 0] * grid.shape[1] + index[..., 1]).to(device), inside.to(device)


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


def ego_progress(
    progress: torch.Tensor,
    available: torch.Tensor,
    start_speed: torch.Tensor,
    seconds: torch.Tensor,
    config: ScoreConfig,
) -> torch.Tensor:
    """EP: progress along the route over that of a reference, clipped to [0, 1].

    The reference (NAVSIM takes a privileged planner) accelerates from the ego's starting speed at
    `reference_acceleration` to `reference_speed` and keeps it, to the route's end at most. Where it covers
    less than a metre the progress is 1.

    Args:
        progress: (b,) monotone arc length gained on the route [m].
        available: (b,) arc length from the start to the goal [m].
        start_speed: (b,) [m/s].
        seconds: (b,) elapsed [s].
        config: options.

    """
    start = start_speed.clamp(max=config.reference_speed)
    ramp = torch.minimum((config.reference_speed - start) / config.reference_acceleration, seconds)
    reference = start * ramp + 0.5 * config.reference_acceleration * ramp**2
    reference = torch.minimum(reference + config.reference_speed * (seconds - ramp), available)
    ratio = (progress / reference.clamp(min=1.0)).clamp(0.0, 1.0)
    return torch.where(reference < 1.0, torch.ones_like(ratio), ratio)


def pdms(
    nc: torch.Tensor, dac: torch.Tensor, ttc: torch.Tensor, ep: torch.Tensor, comfort: torch.Tensor
) -> torch.Tensor:
    """The score of NAVSIM from its terms, each (b,) in [0, 1]: NC x DAC x (5 TTC + 5 EP + 2 C) / 12."""
    return nc * dac * (5 * ttc + 5 * ep + 2 * comfort) / 12
