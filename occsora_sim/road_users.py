"""Road users as instances: the state of whatever moves by itself, in slots; a value, with the batch axis first."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property, partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from occsora_sim.constants import constant, span
from occsora_sim.device import is_host
from occsora_sim.geometry import relative, rotate
from occsora_sim.grid import CAR, FRAME_SECONDS, Grid
from occsora_sim.vehicle import Vehicle

HISTORY = 4
"""Last poses that a road user carries, FRAME_SECONDS apart, the newest included."""

SLOTS = 64
"""Road users that a world holds at most. Within 64 m of an ego of the usual towns stand 25, at most 57."""

MOVES = 0.25
"""Who comes as far as this in a frame moves [m]; less may be an error of measurement."""

NEVER = 1 << 20
"""Frames, or more, since somebody moved who was not seen to move."""

FEATURES = 10
"""Numbers a road user in an observation: see `RoadUsers.observe`."""


@dataclass(frozen=True, kw_only=True)
class RoadUsers:
    """The road users of b worlds, in n slots each.

    Attributes:
        label: (b, n) uint8, a label of `grid.DYNAMIC`, or another for loose objects; 0 in an empty slot.
        size: (b, n, 3) float32: length, width, height [m].
        pose: (b, n, h, 3) float64 world poses of the box's centre, FRAME_SECONDS apart, newest last: x, y [m], yaw
            [rad]. Where `present` is false they repeat the nearest known one.
        present: (b, n, h) bool, whether it was there at each of these instants; the last says whether a slot is in use.
        velocity: (b, n, 2) float32 over the ground, world frame [m/s].
        id: (b, n) int64, for as long as it lives; -1 in an empty slot.
        age: (b, n) int32, frames since it came; those of a start count from their first pose.
        rested: (b, n) int32, frames since it last came as far as MOVES; NEVER or more where that was not seen. It tells
            who waits from who is parked. Left out, it is what the poses say.
        shape: (b, n, l, w) int16, or None: what was seen of it in its own frame (`voxels.shape`): for each cell the
            layers above the ground that it fills, a bit each. A user all of whose cells are 0 is a box.

    """

    label: Tensor
    size: Tensor
    pose: Tensor
    present: Tensor
    velocity: Tensor
    id: Tensor
    age: Tensor
    rested: Tensor = None  # type: ignore[assignment]
    shape: Tensor | None = None

    def __post_init__(self) -> None:
        if self.rested is None:
            object.__setattr__(self, "rested", rested_of(self.pose, self.present))

    @staticmethod
    def empty(
        worlds: int, slots: int = SLOTS, history: int = HISTORY, device: torch.device | str = "cpu"
    ) -> RoadUsers:
        """Nobody, in each of so many worlds."""

        def zeros(*shape: int, dtype: torch.dtype) -> Tensor:
            return torch.zeros(worlds, slots, *shape, dtype=dtype, device=device)

        return RoadUsers(
            label=zeros(dtype=torch.uint8),
            size=zeros(3, dtype=torch.float32),
            pose=zeros(history, 3, dtype=torch.float64),
            present=zeros(history, dtype=torch.bool),
            velocity=zeros(2, dtype=torch.float32),
            id=zeros(dtype=torch.int64) - 1,
            age=zeros(dtype=torch.int32),
            rested=zeros(dtype=torch.int32),
        )

    @property
    def valid(self) -> Tensor:
        """(b, n) bool: the slots in use."""
        return self.present[..., -1]

    @property
    def now(self) -> Tensor:
        """(b, n, 3) float64: the newest poses."""
        return self.pose[..., -1, :]

    @property
    def speed(self) -> Tensor:
        """(b, n) float32 [m/s]."""
        return self.velocity.norm(dim=-1)

    @cached_property
    def travel(self) -> Tensor:
        """(b, n) float32: how far each came in the last frame along its heading [m]; 0 if it backed."""
        before, now = self.pose[:, :, -2], self.now
        step, yaw = (now - before)[..., :2], before[..., 2]
        forward = (step * torch.stack((yaw.cos(), yaw.sin()), dim=-1)).sum(-1) > 0
        known = self.present[:, :, -2]
        return torch.where(known, step.norm(dim=-1) * forward, self.speed * FRAME_SECONDS).float()

    def map(self, change: Callable[[Tensor], Tensor]) -> RoadUsers:
        """Every tensor changed in the same way: to another device, rows picked."""
        values: dict[str, Any] = {entry.name: getattr(self, entry.name) for entry in fields(self)}
        changed: dict[str, Any] = {name: None if v is None else change(v) for name, v in values.items()}
        return RoadUsers(**changed)

    def select(self, rows: Tensor | Sequence[int]) -> RoadUsers:
        """The worlds `rows`, which may repeat."""
        index = torch.as_tensor(rows, dtype=torch.long, device=self.label.device)
        return self.map(lambda value: value[index])

    def gather(self, slots: Tensor) -> RoadUsers:
        """The slots (b, m) int64 of each world, in that order."""

        def pick(value: Tensor) -> Tensor:
            index = slots.view(*slots.shape, *[1] * (value.ndim - 2)).expand(*slots.shape, *value.shape[2:])
            return value.gather(1, index)

        return self.map(pick)

    def where(self, keep: Tensor) -> RoadUsers:
        """Slots that are not `keep` (b, n) bool emptied."""
        return replace(
            self,
            label=self.label * keep,
            size=self.size * keep[..., None],
            pose=self.pose * keep[..., None, None],
            present=self.present & keep[..., None],
            velocity=self.velocity * keep[..., None],
            id=self.id.masked_fill(~keep, -1),
            age=self.age * keep,
            rested=self.rested * keep,
            shape=None if self.shape is None else self.shape * keep[..., None, None],
        )

    def moved(self, pose: Tensor, velocity: Tensor) -> RoadUsers:
        """A frame later, at `pose` (b, n, 3) with `velocity` (b, n, 2)."""
        pose = pose.to(self.pose)
        moves = (pose - self.now)[..., :2].norm(dim=-1) >= MOVES
        return replace(
            self,
            pose=torch.cat((self.pose[:, :, 1:], pose[:, :, None]), dim=2),
            present=torch.cat((self.present[:, :, 1:], self.present[:, :, -1:]), dim=2),
            velocity=velocity.to(self.velocity),
            age=self.age + self.valid,
            rested=(self.rested + self.valid).masked_fill(moves, 0),
        )

    def earlier(self, frames: int) -> RoadUsers:
        """The same road users so many frames ago, with the poses up to then; those that had not come are left out."""
        if not frames:
            return self
        pose, present = self.pose[:, :, :-frames], self.present[:, :, :-frames]
        age = (self.age - frames).clamp(min=0)
        return replace(
            self, pose=pose, present=present, velocity=velocity_of(pose, present), age=age,
            rested=rested_of(pose, present),
        )  # fmt: skip

    def instants(self, count: int) -> RoadUsers:
        """The road users at each of the last `count` instants, (b * count) worlds without a past; shapes go along.

        Who was there earlier and no longer is counts at the instants at which it was `present`.
        """

        def split(value: Tensor) -> Tensor:
            return value[:, :, -count:].transpose(1, 2).flatten(0, 1)[:, :, None]

        repeated = self.map(lambda value: value[:, None].expand(-1, count, *value.shape[1:]).flatten(0, 1))
        return replace(repeated, pose=split(self.pose), present=split(self.present))

    def nearest(self, point: Tensor, count: int, reach: float = math.inf) -> RoadUsers:
        """The `count` road users nearest to `point` (b, 2) [m] of each world and within `reach` [m], nearest first."""
        distance = (self.now[..., :2] - point[:, None]).norm(dim=-1)
        there = self.valid & (distance <= reach)
        distance = distance.masked_fill(~there, math.inf)
        slots = distance.argsort(dim=1, stable=True)[:, :count]
        return self.gather(slots).where(there.gather(1, slots)).padded(count)

    def occupied(self) -> RoadUsers:
        """Without the last slots that are empty in all worlds, as long as the host need not wait to know them."""
        if not is_host(self.label.device):
            return self
        number = span(self.label.shape[1], self.label.device, first=1)
        used = int((self.valid * number).max())
        return self.map(lambda value: value[:, :used])

    def padded(self, slots: int) -> RoadUsers:
        """With empty slots up to so many."""
        lack = slots - self.label.shape[1]
        if lack <= 0:
            return self
        users = self.map(lambda value: F.pad(value, (0, 0) * (value.ndim - 2) + (0, lack)))
        return replace(users, id=F.pad(self.id, (0, lack), value=-1))

    def observe(self, ego: Tensor, count: int, reach: float) -> Tensor:
        """What an agent at the world poses `ego` (b, 3) is told: (b, count, FEATURES) float32, nearest first.

        Features: valid, x, y [m], cos and sin of the yaw in the ego frame, velocity over the ground along the ego's x
        and y [m/s], length, width [m], label. Empty slots are zero.
        """
        seen = self.nearest(ego[:, :2].double(), count, reach)
        local = relative(ego.double()[:, None], seen.now)
        velocity = rotate(seen.velocity.double(), -ego[:, None, 2].double().expand_as(seen.label))
        yaw = local[..., 2:]
        parts = (
            torch.ones_like(yaw), local[..., :2], yaw.cos(), yaw.sin(), velocity, seen.size[..., :2].double(),
            seen.label[..., None].double(),
        )  # fmt: skip
        return (torch.cat(parts, dim=-1) * seen.valid[..., None]).float()


def join(*groups: RoadUsers) -> RoadUsers:
    """The slots of several groups of the same worlds, side by side."""
    return _combine(groups, partial(torch.cat, dim=1))


def stack(worlds: Sequence[RoadUsers]) -> RoadUsers:
    """Batches of worlds behind one another, with the slots of the largest."""
    slots = max(users.label.shape[1] for users in worlds)
    return _combine([users.padded(slots) for users in worlds], partial(torch.cat, dim=0))


def in_frames(frames: Sequence[RoadUsers]) -> RoadUsers:
    """Of f frames of b worlds, of as many slots each, those of b f worlds: the frames of each behind one another."""
    return _combine(frames, lambda parts: torch.stack(parts, dim=1).flatten(0, 1))


def each_frame(users: RoadUsers, frames: int) -> list[RoadUsers]:
    """The road users (b f rows) that `in_frames` put together: those of b worlds in each frame."""
    split = users.map(lambda value: value.unflatten(0, (-1, frames)))
    return [split.map(partial(torch.select, dim=1, index=k)) for k in range(frames)]


def alike(*groups: RoadUsers) -> list[RoadUsers]:
    """Groups that all have shapes if one of them has: those of the others are boxes."""
    cells = next((group.shape.shape[2:] for group in groups if group.shape is not None), None)
    if cells is None:
        return list(groups)
    return [
        group
        if group.shape is not None
        else replace(
            group, shape=torch.zeros(*group.label.shape, *cells, dtype=torch.int16, device=group.label.device)
        )
        for group in groups
    ]


def _combine(groups: Sequence[RoadUsers], how: Callable[[list[Tensor]], Tensor]) -> RoadUsers:
    values: dict[str, Any] = {}
    same = alike(*groups)
    for entry in fields(RoadUsers):
        parts = [getattr(group, entry.name) for group in same]
        values[entry.name] = None if parts[0] is None else how(parts)
    return RoadUsers(**values)


def from_tracks(
    pose: Tensor, present: Tensor, velocity: Tensor, size: Tensor, label: Tensor, identity: Tensor
) -> RoadUsers:
    """One world's road users from tracks: poses (n, h, 3), present (n, h), velocities (n, 2) at the newest instant,
    sizes (n, 3), labels (n,), ids (n,). Those absent at the newest instant are dropped.
    """
    keep = present[:, -1]
    order = torch.arange(present.shape[1])
    # A pose that is not known repeats the nearest later one that is.
    known = torch.where(present, order, present.shape[1]).flip(1).cummin(1).values.flip(1)
    known = known.clamp(max=present.shape[1] - 1)
    filled = pose.gather(1, known[..., None].expand(-1, -1, 3))
    return RoadUsers(
        label=label[None, keep].to(torch.uint8),
        size=size[None, keep].float(),
        pose=filled[None, keep].double(),
        present=present[None, keep],
        velocity=velocity[None, keep].float(),
        id=identity[None, keep].long(),
        age=present[None, keep].sum(-1, dtype=torch.int32),
    )


def rested_of(pose: Tensor, present: Tensor) -> Tensor:
    """Frames (...) int32 since road users last moved in poses (..., h, 3) that are `present` (..., h), else NEVER."""
    moves = (pose[..., 1:, :2] - pose[..., :-1, :2]).norm(dim=-1) >= MOVES
    moves &= present[..., 1:] & present[..., :-1]
    ago = torch.arange(moves.shape[-1] - 1, -1, -1, device=pose.device, dtype=torch.int32)
    never = torch.full_like(present[..., :1], NEVER, dtype=torch.int32)
    return torch.cat((ago.expand(moves.shape).masked_fill(~moves, NEVER), never), dim=-1).amin(-1)


def velocity_of(pose: Tensor, present: Tensor) -> Tensor:
    """Velocities (..., 2) [m/s] from the last two of poses (..., h, 3); zero where fewer are `present` (..., h)."""
    step = (pose[..., -1, :2] - pose[..., -2, :2]) / FRAME_SECONDS
    return (step * (present[..., -1] & present[..., -2])[..., None]).float()


def seen_from(users: RoadUsers, poses: Tensor, grid: Grid) -> Tensor:
    """Whose centre (b, n) bool was in view in one of the last frames, from ego poses (b, h, 3), the newest last."""
    count = min(poses.shape[1], users.pose.shape[2])
    local = relative(poses[:, None, -count:].to(users.pose), users.pose[:, :, -count:])[..., :2]
    low, up = (constant(corner[:2], local.device, local.dtype) for corner in (grid.lower, grid.upper))
    return (((local >= low) & (local < up)).all(-1) & users.present[:, :, -count:]).any(-1)


def of_ego(poses: Tensor, vehicle: Vehicle, history: int) -> RoadUsers:
    """The ego as one road user of each world: its box, from poses (b, h, 3) of its rear axle, the newest last. A
    history that is shorter than asked for repeats its oldest pose, which is then not known.
    """
    b, h = poses.shape[:2]
    size = (vehicle.length, vehicle.width, 1.6)
    poses = poses.double()
    ahead = torch.stack((poses[..., 2].cos(), poses[..., 2].sin()), dim=-1)
    box = poses + F.pad(ahead * (vehicle.length / 2 - vehicle.rear_overhang), (0, 1))
    lacking = max(history - h, 0)
    box = torch.cat((box[:, :1].expand(b, lacking, 3), box), dim=1)[:, -history:]
    present = span(lacking + h, poses.device)[-history:] >= lacking
    return RoadUsers(
        label=torch.full((b, 1), CAR, dtype=torch.uint8, device=poses.device),
        size=constant(size, poses.device).expand(b, 1, 3),
        pose=box[:, None],
        present=present.expand(b, 1, history),
        velocity=velocity_of(box, present.expand(b, history))[:, None],
        id=torch.full((b, 1), -1, dtype=torch.int64, device=poses.device),
        age=torch.full((b, 1), h, dtype=torch.int32, device=poses.device),
    )
