"""The driving metrics of NAVSIM, computed from occupancy and ego motion alone.

NAVSIM (Dauner et al. 2024, arXiv 2406.15349): PDMS = NC x DAC x (5 TTC + 5 EP + 2 C) / 12. There the boxes
and the map are known; here a contact is an overlap of the ego's rectangle with obstacle voxels, and the
drivable area is the voxels labelled so. All functions are batched over b instants, with one frame each.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import torch

from occsora_sim.errors import ConfigurationError
from occsora_sim.grid import (
    BARRIER,
    MANMADE,
    OTHER_FLAT,
    SIDEWALK,
    TERRAIN,
    VEGETATION,
    Grid,
    class_mask,
)
from occsora_sim.quantities import settle, written
from occsora_sim.scoring.footprint import (
    ground_points,
)
from occsora_sim.vehicle import Vehicle

OFF_ROAD: tuple[int, ...] = (OTHER_FLAT, SIDEWALK, TERRAIN, MANMADE, VEGETATION, BARRIER)
"""Ground labels on which a car does not belong. Road users' and unknown ground voxels are no violation."""


@dataclass(frozen=True, kw_only=True)
class ScoreConfig:
    """Options of the driving metrics.

    Attributes:
        kind: "pdms", or "epdms", the score of NAVSIM v2 (`scoring.extended`).
        min_voxels: an overlap of fewer obstacle voxels is noise, not a contact.
        moving: up to this speed the ego stands and is not at fault [m/s].
        rear_part: contacts whose mean lies in this rearmost part of the length are hits from behind.
        tolerance: a footprint point is off the road if nothing within this distance is drivable [m].
        ttc_horizon: time to collision that passes [s] (NAVSIM: 0.95).
        ttc_step: spacing of the projected instants [s].
        reference_speed: speed of the reference for progress [m/s].
        reference_acceleration: how the reference gets there from the ego's starting speed [m/s2].
        route_width: progress counts within this distance of the route [m].
        goal_distance: the goal counts as reached at this distance of the route's end [m].
        oncoming: for EPDMS: farther left of the route than this are those who come towards the ego [m]; negative
            where they drive on the left, and the others come on the right.

    """

    kind: Literal["pdms", "epdms"] = "pdms"
    min_voxels: int = 3
    moving: float = 0.05
    rear_part: float = 0.25
    tolerance: float = 0.4
    ttc_horizon: float = 0.95
    ttc_step: float = 0.25
    reference_speed: float = 10.0
    reference_acceleration: float = 2.0
    route_width: float = 8.0
    goal_distance: float = 5.0
    oncoming: float = 2.0

    def __post_init__(self) -> None:
        settle(self, "score ")
        if self.kind not in ("pdms", "epdms") or self.oncoming == 0:
            raise ConfigurationError(
                f"score: kind {written(self.kind)} must be 'pdms' or 'epdms', and oncoming {self.oncoming} not 0"
            )
        if min(self.min_voxels, self.ttc_horizon, self.ttc_step, self.reference_speed) <= 0:
            raise ConfigurationError(
                "score: min_voxels, ttc_horizon, ttc_step and reference_speed must be positive"
            )

    @property
    def instants(self) -> tuple[float, ...]:
        """The projected instants of the time to collision [s], from now to the horizon."""
        count = int(self.ttc_horizon / self.ttc_step + 1e-6)
        return (*(self.ttc_step * k for k in range(count + 1)), self.ttc_horizon)


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
