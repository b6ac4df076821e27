"""What traffic is judged by: figures of each road user in each frame of a log."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from occsora_sim.geometry import relative, wrap_angle
from occsora_sim.grid import (
    BUS,
    CAR,
    CONSTRUCTION_VEHICLE,
    DRIVEABLE,
    FRAME_SECONDS,
    MOTORCYCLE,
    OCC3D,
    TRAILER,
    TRUCK,
    Grid,
    class_mask,
)
from occsora_sim.models.entry_view import in_view
from occsora_sim.scoring.driving import OFF_ROAD
from occsora_sim.scoring.oriented_boxes import ego_box, signed_distance
from occsora_sim.scoring.traffic_log import TrafficLog
from occsora_sim.vehicle import Vehicle

VEHICLES = (BUS, CAR, CONSTRUCTION_VEHICLE, MOTORCYCLE, TRAILER, TRUCK)
"""Labels of what belongs on the road when it moves."""

STANDS = 0.2
"""Slower than this somebody stands [m/s]."""

LONGEST = 5.0
"""Times to collision are cut here [s]; also what stands for none."""

FARTHEST = 40.0
"""Distances to the nearest other are cut here [m]; also what stands for nobody."""

ALONGSIDE = math.radians(75.0)
"""Who heads further from one's own heading than this is no leader [rad]."""

ALIGNED, SLIGHT = math.radians(10.0), 0.5
"""Nor who heads further off than ALIGNED [rad] where the two overlap sideways by less than SLIGHT [m]."""


@dataclass(frozen=True, kw_only=True)
class Features:
    """Figures of n road users in t frames, each (t, n). The ego counts as another road user, but has no figures.

    Attributes:
        in_view: bool, within the view.
        known: bool, in view, and there in the frame before, so that it has a speed.
        there: bool, there in this frame and the one before, in view or not.
        vehicle: (n,) bool, one of VEHICLES.
        speed: over the ground [m/s], from the last two poses.
        acceleration: change of the speed [m/s2]; NaN unless there for three frames.
        yaw_rate: [rad/s].
        nearest: distance of the boxes to the nearest other road user's, negative where they overlap [m].
        overlap: bool, its box and another's overlap.
        touches: bool, the same of others than the ego, which goes where it was led whoever stands there.
        time_to_collision: with the leader, if both keep their speeds [s]; LONGEST if there is none.
        off_road: bool, the centre is on ground where no vehicle belongs.
        on_known: bool, the ground under the centre is known.
        stood: how long it has stood [s], counted from the log's first frame; 0 if it moves.
        enters, leaves: bool, in view now and not a frame before; the frame before and not now.
        appears, vanishes: bool, of these, those that come or go in the midst of the view: they are in the log there for
            the first or the last time, and at their speed would have been in view a frame before, or would be now.

    """

    in_view: Tensor
    known: Tensor
    there: Tensor
    vehicle: Tensor
    speed: Tensor
    acceleration: Tensor
    yaw_rate: Tensor
    nearest: Tensor
    overlap: Tensor
    touches: Tensor
    time_to_collision: Tensor
    off_road: Tensor
    on_known: Tensor
    stood: Tensor
    enters: Tensor
    leaves: Tensor
    appears: Tensor
    vanishes: Tensor


def traffic_features(log: TrafficLog, grid: Grid = OCC3D, vehicle: Vehicle | None = None) -> Features:
    """The figures of a log; `grid` says how far the view goes, `vehicle` how large the ego is."""
    view, present = log.in_view(grid), log.present
    speed, two = _speed(log.pose, present)
    before = torch.cat((speed[:1], speed[:-1]))
    three = two & torch.cat((torch.zeros_like(two[:1]), two[:-1]))
    turn = wrap_angle(log.pose.diff(dim=0, prepend=log.pose[:1])[..., 2]) / FRAME_SECONDS
    nearest, apart, ttc = _pairs(log, speed, two, vehicle or Vehicle())
    seen_before = torch.cat((view[:1], view[:-1]))  # nobody enters in the first frame
    enters, leaves = view & ~seen_before, seen_before & ~view
    return Features(
        in_view=view,
        known=view & two,
        there=two,
        vehicle=class_mask(VEHICLES)[log.label.long()],
        speed=speed,
        acceleration=torch.where(three, (speed - before) / FRAME_SECONDS, torch.nan),
        yaw_rate=turn * two,
        nearest=nearest,
        overlap=nearest < 0,
        touches=apart < 0,
        time_to_collision=ttc,
        off_road=class_mask(OFF_ROAD)[log.ground.long()],
        on_known=class_mask((*OFF_ROAD, DRIVEABLE))[log.ground.long()],
        stood=_duration(two & (speed < STANDS)) * FRAME_SECONDS,
        enters=enters,
        leaves=leaves,
        appears=enters & _begins_inside(log, grid),
        vanishes=leaves & _ends_inside(log, grid),
    )


def _begins_inside(log: TrafficLog, grid: Grid) -> Tensor:
    """(t, n) bool: it was not there a frame before, where it would have been in view, going as it goes on."""
    before, after = (torch.roll(log.present, way, 0) for way in (1, -1))
    before[0], after[-1] = True, False
    step = log.pose.diff(dim=0, append=log.pose[-1:])[..., :2] * after[..., None]
    place = torch.cat((log.pose[..., :2] - step, log.pose[..., 2:]), dim=-1)
    ego = torch.cat((log.ego_pose[:1], log.ego_pose[:-1]))
    return ~before & in_view(relative(ego[:, None], place), grid)


def _ends_inside(log: TrafficLog, grid: Grid) -> Tensor:
    """(t, n) bool: it was there a frame before, and would be in view now, going as it went."""
    backwards = replace(log, **{name: getattr(log, name).flip(0) for name in ("pose", "present", "ego_pose")})
    last = _begins_inside(backwards, grid).flip(0)  # the frame before it is gone
    return torch.cat((torch.zeros_like(last[:1]), last[:-1]))


def _speed(pose: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
    """Speeds (t, n) [m/s] over the frame before, and where they are known."""
    known = present & torch.cat((torch.zeros_like(present[:1]), present[:-1]))
    moved = pose.diff(dim=0, prepend=pose[:1])[..., :2].norm(dim=-1)
    return moved / FRAME_SECONDS * known, known


def _duration(holds: Tensor) -> Tensor:
    """For how many frames in a row, this one included, something has held: bool (t, n) -> float64 (t, n)."""
    count = holds.double().cumsum(dim=0)
    return count - torch.where(holds, 0.0, count).cummax(dim=0).values


def _pairs(log: TrafficLog, speed: Tensor, known: Tensor, vehicle: Vehicle) -> tuple[Tensor, Tensor, Tensor]:
    """Distance to the nearest other, to the nearest but the ego, and time to collision, each (t, n)."""
    nearest, apart = torch.full_like(speed, FARTHEST), torch.full_like(speed, FARTHEST)
    collision = torch.full_like(speed, LONGEST)
    most = int(log.present.sum(dim=1).max()) if log.present.numel() else 0
    if not most:
        return nearest, apart, collision
    # Of the tracks of a whole log few are there at once: each frame's own side by side, and the ego behind them.
    slots = log.present.int().argsort(dim=1, descending=True, stable=True)[:, :most]  # (t, m)
    there = log.present.gather(1, slots)
    pose = log.pose.gather(1, slots[..., None].expand(-1, -1, 3))
    size = log.size[:, :2].double()[slots]
    centre, extent = ego_box(log.ego_pose, vehicle)
    ego_speed = centre.diff(dim=0, prepend=centre[:1])[:, None, :2].norm(dim=-1) / FRAME_SECONDS
    everyone = torch.cat((pose, centre[:, None]), dim=1)
    sizes = torch.cat((size, extent.expand(len(size), 1, 2)), dim=1)
    speeds = torch.cat((speed.gather(1, slots), ego_speed), dim=1)
    moves = torch.cat((known.gather(1, slots), (torch.arange(len(size)) > 0)[:, None]), dim=1)
    both = there[:, :, None] & torch.cat((there, torch.ones_like(there[:, :1])), dim=1)[:, None]
    both &= ~torch.eye(most, most + 1, dtype=torch.bool)
    gap = _least_gap(everyone, sizes)
    ego = torch.arange(most + 1) == most
    others, led = (_nearest(everyone, sizes, both & who, gap) for who in (~ego, ego))
    apart.scatter_(1, slots, torch.where(there, others, FARTHEST))
    nearest.scatter_(1, slots, torch.where(there, torch.minimum(others, led), FARTHEST))
    # A leader further off than this is not met in time.
    leads = both & moves[:, None] & moves[:, :-1, None] & (gap < LONGEST * speeds[:, :-1, None])
    collision.scatter_(1, slots, torch.where(there, _collision(everyone, sizes, speeds, leads), LONGEST))
    return nearest, apart, collision


def _least_gap(pose: Tensor, size: Tensor) -> Tensor:
    """No more than the distances (t, m, m + 1) of the first m of m + 1 boxes to all: that of the circles around."""
    outer = size.norm(dim=-1) / 2
    return torch.cdist(pose[:, :-1, :2], pose[..., :2]) - outer[:, :-1, None] - outer[:, None]


def _nearest(pose: Tensor, size: Tensor, pairs: Tensor, gap: Tensor) -> Tensor:
    """Distances (t, m) of the first m of m + 1 boxes to the nearest other, for `pairs` (t, m, m + 1)."""
    room = (size.norm(dim=-1) - size.amin(dim=-1)) / 2  # between a box's outer circle and its inner
    most = (gap + room[:, :-1, None] + room[:, None]).masked_fill(~pairs, torch.inf)
    # Only those that may be the nearest, or overlap, are measured: exact, and a twentieth of the pairs.
    close = pairs & (gap <= most.amin(dim=-1, keepdim=True)) & (gap <= FARTHEST)
    t, i, j = close.nonzero(as_tuple=True)
    distance = signed_distance(pose[t, i], size[t, i], pose[t, j], size[t, j])
    found = gap.new_full(pairs.shape[:2], FARTHEST)
    found.view(-1).scatter_reduce_(0, t * pairs.shape[1] + i, distance, "amin")
    return found


def _collision(pose: Tensor, size: Tensor, speed: Tensor, pairs: Tensor) -> Tensor:
    """Times (t, m) [s] until the first m of m + 1 boxes touch their leaders, for `pairs` (t, m, m + 1).

    As `compute_time_to_collision_with_object_in_front` of the Waymo Open Dataset: the leader is the nearest box ahead
    that overlaps one's own sideways and heads within ALONGSIDE of one's own heading (within ALIGNED for a SLIGHT
    overlap); the time is the gap over the closing speed.
    """
    t, i, j = pairs.nonzero(as_tuple=True)
    local = relative(pose[t, i], pose[t, j])
    turn = local[:, 2].abs()
    cos, sin = turn.cos().abs(), turn.sin().abs()
    half, other = size[t, i] / 2, size[t, j] / 2
    gap = local[:, 0] - half[:, 0] - cos * other[:, 0] - sin * other[:, 1]
    beside = local[:, 1].abs() - half[:, 1] - sin * other[:, 0] - cos * other[:, 1]
    leads = (gap > 0) & (beside < 0) & (turn <= ALONGSIDE) & ((beside < -SLIGHT) | (turn <= ALIGNED))
    flat, gap = t * pairs.shape[1] + i, gap.masked_fill(~leads, torch.inf)
    first = gap.new_full((pairs[..., 0].numel(),), torch.inf).scatter_reduce_(0, flat, gap, "amin")
    closing = speed[t, i] - speed[t, j]
    time = torch.where(leads & (gap == first[flat]) & (closing > 0), gap / closing.clamp(min=1e-9), LONGEST)
    found = gap.new_full(pairs.shape[:2], LONGEST)
    found.view(-1).scatter_reduce_(0, flat, time, "amin")
    return found
