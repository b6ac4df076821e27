"""The semantic occupancy grid: its classes, extent and resolution (Occ3D-nuScenes by default)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F

from occsora_sim.constants import constant
from occsora_sim.errors import ConfigurationError
from occsora_sim.geometry import rotate, to_world

CLASSES: tuple[str, ...] = (
    "others", "barrier", "bicycle", "bus", "car", "construction_vehicle", "motorcycle", "pedestrian",
    "traffic_cone", "trailer", "truck", "driveable_surface", "other_flat", "sidewalk", "terrain", "manmade",
    "vegetation", "free",
)  # fmt: skip
"""Occ3D-nuScenes labels; the position in the tuple is the label."""

NUM_CLASSES = len(CLASSES)
OTHERS, BARRIER, BICYCLE, BUS, CAR, CONSTRUCTION_VEHICLE, MOTORCYCLE, PEDESTRIAN = range(8)
TRAFFIC_CONE, TRAILER, TRUCK, DRIVEABLE, OTHER_FLAT, SIDEWALK, TERRAIN, MANMADE, VEGETATION, FREE = range(
    8, 18
)

DYNAMIC: tuple[int, ...] = (BICYCLE, BUS, CAR, CONSTRUCTION_VEHICLE, MOTORCYCLE, PEDESTRIAN, TRAILER, TRUCK)
"""Labels of road users: what can move by itself."""

SMALL: tuple[int, ...] = (PEDESTRIAN, BICYCLE, MOTORCYCLE)
"""Labels of road users of a few columns each."""

FLAT: tuple[int, ...] = (DRIVEABLE, OTHER_FLAT, SIDEWALK, TERRAIN)
"""Labels of the ground."""

FRAME_SECONDS = 0.5
"""Time between two occupancy frames [s]; Occ3D's key frames come at 2 Hz."""


MAX_SIDE, MAX_VOXELS = 4096, 1 << 26
"""Most voxels of a grid along an axis and together: a file may say of which grid it is."""


def class_mask(labels: tuple[int, ...], device: torch.device | str = "cpu") -> torch.Tensor:
    """Bool look-up table of shape (NUM_CLASSES + 1,): True at `labels`. Index it with an occupancy tensor as long.

    It is shared: nobody may write into it.
    """
    return constant(tuple(label in labels for label in range(NUM_CLASSES + 1)), device, torch.bool)


@dataclass(frozen=True, kw_only=True)
class Grid:
    """A box of voxels around the ego, in the ego frame (x forward, y left, z up; origin on the ground).

    Attributes:
        shape: voxels along x, y, z.
        voxel: edge of a voxel [m].
        lower: the corner with the smallest x, y, z [m].

    """

    shape: tuple[int, int, int] = (200, 200, 16)
    voxel: float = 0.4
    lower: tuple[float, float, float] = (-40.0, -40.0, -1.0)

    def __post_init__(self) -> None:
        if len(self.shape) != 3 or min(self.shape) < 1 or not self.voxel > 0:
            raise ConfigurationError(
                f"grid: shape {self.shape} and voxel {self.voxel} must be positive; see Grid"
            )
        if max(self.shape) > MAX_SIDE or math.prod(self.shape) > MAX_VOXELS:
            raise ConfigurationError(
                f"grid: shape {self.shape} is too large; at most {MAX_SIDE} along an axis and {MAX_VOXELS} together"
            )
        if len(self.lower) != 3 or not all(abs(part) < 1e6 for part in (self.voxel, *self.lower)):
            raise ConfigurationError(
                f"grid: voxel {self.voxel} and lower {self.lower} must be metres; see Grid"
            )

    @property
    def upper(self) -> tuple[float, float, float]:
        """The corner with the largest x, y, z [m]."""
        return tuple(low + n * self.voxel for low, n in zip(self.lower, self.shape, strict=True))  # type: ignore[return-value]

    @property
    def ground(self) -> int:
        """The z index of the voxel layer that holds z = 0."""
        return math.floor(-self.lower[2] / self.voxel + 1e-6)

    def centres_xy(self, device: torch.device | str = "cpu") -> torch.Tensor:
        """Voxel centres of the ground plane, shape (x, y, 2) [m], float32."""
        return torch.stack(torch.meshgrid(*_centres(self, str(device))[:2], indexing="ij"), dim=-1)

    def centres_from(self, pose: torch.Tensor) -> torch.Tensor:
        """The same, of the ground plane of ego frames at `pose` (..., 3), in the frame that it is given in: (..., x, y,
        2) [m]. In memory x and y lie apart.
        """
        x, y, _ = (axis.to(pose)[:, None] for axis in _centres(self, str(pose.device)))
        # A row and a column make all of them.
        along = to_world(F.pad(x, (0, 1)), pose[..., None, :])
        across = rotate(F.pad(y, (1, 0)), pose[..., None, 2])
        return (along.movedim(-1, 0)[..., None] + across.movedim(-1, 0)[..., None, :]).movedim(0, -1)

    def centres_z(self, device: torch.device | str = "cpu") -> torch.Tensor:
        """Heights of the voxel centres, shape (z,) [m], float32. It is shared: nobody may write into it."""
        return _centres(self, str(device))[2]


@lru_cache(maxsize=32)
def _centres(grid: Grid, device: str) -> list[torch.Tensor]:
    """Voxel centres along x, y and z [m]."""
    return [
        (torch.arange(n, dtype=torch.float32, device=device) + 0.5) * grid.voxel + low
        for n, low in zip(grid.shape, grid.lower, strict=True)
    ]


OCC3D = Grid()
"""The Occ3D-nuScenes grid: 200 x 200 x 16 voxels of 0.4 m."""

TINY = Grid(shape=(48, 48, 16), voxel=0.8, lower=(-19.2, -19.2, -1.0 - 0.4 * 0))
"""A small grid for tests: 48 x 48 x 16 voxels of 0.8 m."""
