"""Of several motions drawn for a road user, the first that leads neither off its ground nor into another.

Rejection sampling: where the first draw is possible it stands. Why the model does not do it by itself: to a model of an
hour's training a draw that turns three degrees too far is nearly as likely as the right one, and half a minute of such
draws ends beside the road. What it is worth: lab book, 2026-11-29.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from occsora_sim.grid import PEDESTRIAN
from occsora_sim.models.box_overlap import overlap
from occsora_sim.models.ground_crop import OBSTACLE, ROAD, UNSEEN_GROUND, crop_index
from occsora_sim.models.traffic_heads import FlowHead, TokenHead
from occsora_sim.models.traffic_motion import Motion, apply, arc, keep_on, travel_of
from occsora_sim.road_users import RoadUsers, join

DRAWS = 16
"""Motions drawn of each road user."""


_AHEAD = (1.0, 2.0, 4.0)
"""Frames after which the way of a motion is looked at: the arc goes on for as long."""

_HIT = 32.0  # what it weighs to run into another, in points beside the ground

_BRAKE = 1.5
"""How much less far than in the frame before who cannot but brake comes [m]: 6 m/s2."""


def sample_several(head: FlowHead | TokenHead, seen: Tensor, key: Tensor) -> list[Motion]:
    """DRAWS motions of road users by a head, from what they have seen (b, n, hidden); key (b, 2), seed and frame."""
    seeds = torch.arange(DRAWS, device=key.device) << 40  # beyond all seeds of worlds
    return [head.sample(seen, key + torch.stack((seed, torch.zeros_like(seed)))) for seed in seeds.unbind()]


def choose(users: RoadUsers, draws: Sequence[Motion], crops: Tensor, ego: RoadUsers | None = None) -> Motion:
    """Of `draws`, each (b, n), for each road user the first of the least fault; braking as hard as can be is the last.

    Args:
        users: b worlds' road users as they stand.
        draws: motions of them.
        crops: (b, n, *CROP) uint8, the ground around each.
        ego: the ego, one slot, which nobody runs into either. It and the others are expected to go on as they go.

    """
    travel = travel_of(users)
    brake = Motion(more=-travel.clamp(max=_BRAKE), turn=torch.zeros_like(travel), stand=travel < _BRAKE / 2)
    options = [*draws, brake]
    others = users if ego is None else join(users, ego)
    touch, there = overlap_any(users, users, others), keep_on(others)
    hits = torch.stack([overlap_any(users, apply(users, motion), there) for motion in options]) & ~touch
    faults = torch.stack([_off_ground(users, motion, crops, travel) for motion in options]) + _HIT * hits
    # Braking is for where all else leads into another, whether it helps or not, not for the sake of the ground.
    faults[-1] = torch.where(hits[:-1].all(0), 0.0, torch.inf)
    best = faults.argmin(dim=0)[None]  # the first of the least

    def pick(name: str) -> Tensor:
        return torch.stack([getattr(motion, name) for motion in options]).gather(0, best)[0]

    return Motion(more=pick("more"), turn=pick("turn"), stand=pick("stand"))


def _off_ground(users: RoadUsers, motion: Motion, crops: Tensor, travel: Tensor) -> Tensor:
    """How many points of a motion's way (b, n) float32 lie where its road user does not belong: vehicles and two wheels
    beside the road, who walks in walls and hedges. What was not seen may be anything.
    """
    came = (travel + motion.more).clamp(min=0) * ~motion.stand
    walks = (users.label == PEDESTRIAN)[..., None]
    half = users.size[..., :2] / 2
    corners = torch.stack(
        (torch.zeros_like(half), half, half * half.new_tensor([1.0, -1.0])), dim=-2
    )  # (b, n, 3, 2): middle and the front corners
    wrong = torch.zeros_like(travel)
    for frames in _AHEAD:
        pose = arc(came * frames, motion.turn * frames)[..., None, :]  # (b, n, 1, 3)
        cos, sin = pose[..., 2].cos(), pose[..., 2].sin()
        x = pose[..., 0] + cos * corners[..., 0] - sin * corners[..., 1]
        y = pose[..., 1] + sin * corners[..., 0] + cos * corners[..., 1]
        kind = crops.flatten(-2).gather(-1, crop_index(x, y))
        off = torch.where(walks, kind == OBSTACLE, (kind != ROAD) & (kind != UNSEEN_GROUND))
        wrong = wrong + off.sum(-1)
    return wrong * (came > 0)


def overlap_any(users: RoadUsers, moved: RoadUsers, others: RoadUsers) -> Tensor:
    """Whose box (b, n) bool as `moved` overlaps a box of `others`, whose first slots are the same road users."""
    origin = torch.nn.functional.pad(
        users.now[:, :1, :2], (0, 1)
    )  # far from the world's origin float32 is too coarse
    mine, theirs = ((who.now - origin).float() for who in (moved, others))
    hit = overlap(mine, moved.size[..., :2], theirs, others.size[..., :2])
    n = users.valid.shape[1]
    self_ = torch.eye(n, others.valid.shape[1], dtype=torch.bool, device=hit.device)
    return (hit & users.valid[:, :, None] & others.valid[:, None] & ~self_).any(-1)
