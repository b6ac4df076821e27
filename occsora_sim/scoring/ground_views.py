"""What rollouts show of the ground, seen from above: both a generated world's and a recorded one's by the same way.

Frames are written to a world-frame record as they come, each column when it is first shown and never again, with road
users taken away; from time to time the record is read from the ego's pose. A recorded world so read is what a
generated one would be that draws each column as it is: what reading from another pose does to edges is the same in
both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from occsora_sim.geometry import to_frame, to_world
from occsora_sim.grid import (
    BARRIER,
    BICYCLE,
    DRIVEABLE,
    DYNAMIC,
    FRAME_SECONDS,
    FREE,
    MANMADE,
    MOTORCYCLE,
    OTHER_FLAT,
    OTHERS,
    PEDESTRIAN,
    SIDEWALK,
    SMALL,
    TERRAIN,
    TRAFFIC_CONE,
    VEGETATION,
    Grid,
)
from occsora_sim.models.columns import UNSEEN, is_dynamic, without_road_users
from occsora_sim.road_users import RoadUsers
from occsora_sim.scenes.start import Start
from occsora_sim.scoring.record import Record
from occsora_sim.scoring.traffic_features import STANDS
from occsora_sim.voxels.paint import paint_road_users
from occsora_sim.worlds.protocol import WorldState

EVERY = 2.0
"""Time between two looks at the ground of a rollout [s]."""

KINDS = (
    "nothing", "road", "other flat", "pavement", "terrain", "low building", "building", "high building",
    "low vegetation", "vegetation", "high vegetation", "barrier", "vehicle", "two-wheeler", "pedestrian",
)  # fmt: skip
"""Kinds of columns, by the uppermost voxel; what stands is low up to 2 m and high from 4 m. A column of which nothing
is known and one that is empty are of kind 0."""

FLOOR, ROAD, PAVEMENT, BUILDINGS = range(1, 5), 1, 3, (5, 6, 7)
"""Kinds of bare ground; kinds that shapes are measured of."""

_VEGETATION, _BARRIER, _VEHICLE, _TWO_WHEELER, _PEDESTRIAN = 8, 11, 12, 13, 14

_LEVELS = (2.0, 4.0)  # [m]


@dataclass(frozen=True, kw_only=True)
class Views:
    """n looks at the ground, each x by y columns in the ego frame of its instant.

    Attributes:
        ground: (n, x, y) uint8 kinds without road users.
        shown: (n, x, y) uint8 kinds with road users.
        new: (n, x, y) bool, whether the column was never in view at the start.
        standing: (n,) int64, vehicles in view that stand; -1 where the world does not tell road users apart.
        seconds: (n,) float64 since the start [s].
        pose: (n, 3) float64 world poses of the ego.
        rollout: (n,) int64, which rollout each is of.
        town: (n,) int64, which scene.

    """

    ground: Tensor
    shown: Tensor
    new: Tensor
    standing: Tensor
    seconds: Tensor
    pose: Tensor
    rollout: Tensor
    town: Tensor

    @staticmethod
    def cat(parts: Sequence[Views]) -> Views:
        """The looks of `parts`, one after another."""
        return Views(**{e.name: torch.cat([getattr(part, e.name) for part in parts]) for e in fields(Views)})

    def select(self, rows: Tensor) -> Views:
        """The looks `rows`: indices, or a bool for each."""
        return Views(**{entry.name: getattr(self, entry.name)[rows] for entry in fields(Views)})


def kinds_of_columns(labels: Tensor, grid: Grid) -> Tensor:
    """Kinds (...) uint8, places in KINDS, of columns of labels (..., z) uint8."""
    device = labels.device
    table = torch.zeros(256, dtype=torch.uint8, device=device)
    table[[DRIVEABLE, OTHER_FLAT, SIDEWALK, TERRAIN]] = torch.tensor(FLOOR, dtype=torch.uint8, device=device)
    table[MANMADE], table[VEGETATION] = BUILDINGS[0], _VEGETATION
    table[[OTHERS, BARRIER, TRAFFIC_CONE]] = _BARRIER
    table[list(DYNAMIC)] = _VEHICLE
    table[[BICYCLE, MOTORCYCLE]], table[PEDESTRIAN] = _TWO_WHEELER, _PEDESTRIAN
    filled = (labels != FREE) & (labels != UNSEEN)
    layer = torch.arange(labels.shape[-1], device=device)
    top = torch.where(filled, layer, -1).amax(dim=-1)
    kind = table[labels.gather(-1, top.clamp(min=0)[..., None])[..., 0].int()]
    height = grid.lower[2] + (top + 1) * grid.voxel
    level = torch.stack([height > bound + 1e-6 for bound in _LEVELS]).sum(dim=0, dtype=torch.uint8)
    tall = (kind == BUILDINGS[0]) | (kind == _VEGETATION)
    kind = torch.where(tall, kind + level, kind)
    return torch.where(top >= 0, kind, torch.zeros_like(kind))


class GroundWatch:
    """Watches a batch of rollouts and looks at their ground every EVERY seconds.

    Args:
        starts: where the rollouts begin.
        towns: the number of each start's scene.
        first: number of the first rollout.
        grid: the voxels around the ego.

    """

    def __init__(self, starts: Sequence[Start], towns: Sequence[int], first: int, grid: Grid) -> None:
        self._grid, self._towns, self._first, self._frames = grid, torch.tensor(towns), first, 0
        need = min(len(start.occupancy) for start in starts)
        seen = torch.stack([start.occupancy[-need:] for start in starts]).cpu()
        self._before = torch.stack([start.ego_pose[-need:] for start in starts]).float().cpu()
        self._record = Record.of(without_road_users(seen), self._before, grid)
        self._views: list[Views] = []

    def see(self, state: WorldState) -> None:
        """Take in the newest chunk of the rollouts; looks fall on its last frame at most once."""
        grid, due = self._grid, round(EVERY / FRAME_SECONDS)
        looks = self._frames // due
        for frame, pose in zip(state.occupancy.unbind(1), state.ego_pose.unbind(1), strict=True):
            self._record = self._record.write(without_road_users(frame.cpu()), pose.cpu().float(), grid)
        self._frames += state.occupancy.shape[1]
        if self._frames // due == looks:
            return
        pose = state.ego_pose[:, -1].cpu().float()
        labels = self._record.read(pose[:, None], grid)[:, 0]
        ground = kinds_of_columns(labels, grid)
        users = None if state.users is None else state.users.map(lambda field: field.cpu())
        shown, standing = ground, torch.full((len(pose),), -1)
        if users is not None:
            users = users.where(users.valid & is_dynamic(users.label))
            shown = kinds_of_columns(paint_road_users(labels, users, pose.double(), grid), grid)
            standing = _standing(users, pose, grid)
        n = len(pose)
        self._views.append(
            Views(
                ground=ground,
                shown=shown,
                new=~_in_view(grid, pose, self._before),
                standing=standing,
                seconds=torch.full((n,), self._frames * FRAME_SECONDS, dtype=torch.float64),
                pose=pose.double(),
                rollout=self._first + torch.arange(n),
                town=self._towns,
            )
        )

    def views(self) -> Views:
        """All looks so far."""
        return Views.cat(self._views)


def _in_view(grid: Grid, pose: Tensor, before: Tensor) -> Tensor:
    """Which columns (b, x, y) around `pose` (b, 3) were in view from one of the poses `before` (b, h, 3)."""
    points = to_world(grid.centres_xy(), pose.double()[:, None, None])
    low, up = (points.new_tensor(corner[:2]) for corner in (grid.lower, grid.upper))
    found = torch.zeros(points.shape[:3], dtype=torch.bool)
    for past in before.double().unbind(1):
        local = to_frame(points, past[:, None, None])
        found |= ((local >= low) & (local < up)).all(dim=-1)
    return found


def _standing(users: RoadUsers, pose: Tensor, grid: Grid) -> Tensor:
    """How many vehicles (b,) int64 in view of `pose` (b, 3) stand."""
    local = to_frame(users.now[..., :2], pose.double()[:, None])
    low, up = (local.new_tensor(corner[:2]) for corner in (grid.lower, grid.upper))
    there = users.valid & ((local >= low) & (local < up)).all(dim=-1)
    small = torch.zeros_like(there)
    for label in SMALL:
        small |= users.label == label
    return (there & ~small & (users.speed < STANDS)).sum(dim=1)
