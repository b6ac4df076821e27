"""Of several motions drawn for a road user, the first that leads neither off its ground nor into another.

Rejection sampling: where the first draw is possible it stands. Why the model does not do it by itself: to a model of an
hour's training a draw that turns three degrees too far is nearly as likely as the right one, and half a minute of such
draws ends beside the road. What it is worth: lab book, 2026-11-29.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from occsora_sim.geometry import compose
from occsora_sim.grid import PEDESTRIAN
from occsora_sim.models.box_overlap import overlap
from occsora_sim.models.ground_crop import OBSTACLE, ROAD, UNSEEN_GROUND, crop_index
from occsora_sim.models.traffic_heads import FlowHead, TokenHead
from occsora_sim.models.traffic_motion import Motion, arc, travel_of
from occsora_sim.road_users import RoadUsers, join

DRAWS = 16
"""Motions drawn of each road user."""

_AHEAD = (1.0, 2.0, 3.0, 4.0)
"""Frames after which the way of a motion is looked at: the arc goes on for as long. Who looks a frame ahead alone sees
the car in front when it is too late to slow down for it."""

_HIT = 32.0
"""What it weighs to run into another a frame later, in points beside the ground; later ones weigh less."""

_BRAKE = 1.5
"""How much less far than in the frame before who cannot but brake comes [m]: 6 m/s2."""


def sample_several(head: FlowHead | TokenHead, seen: Tensor, key: Tensor) -> Motion:
    """DRAWS motions (DRAWS, b, n) of road users by a head, from what they have seen (b, n, hidden); key (b, 2), seed
    and frame.
    """
    seeds = torch.arange(DRAWS, device=key.device) << 40  # beyond all seeds of worlds
    keys = torch.stack((seeds, torch.zeros_like(seeds)), dim=-1)[:, None] + key
    drawn = head.sample(seen.repeat(DRAWS, 1, 1), keys.flatten(0, 1))
    return Motion(**{name: part.unflatten(0, (DRAWS, -1)) for name, part in vars(drawn).items()})


def choose(users: RoadUsers, draws: Motion, crops: Tensor, ego: RoadUsers | None = None) -> Motion:
    """Of `draws` (k, b, n), for each road user the first of the least fault; braking as hard as can be is the last.

    Args:
        users: b worlds' road users as they stand.
        draws: motions of them.
        crops: (b, n, *CROP) uint8, the ground around each.
        ego: the ego, one slot, which nobody runs into either. It and the others are expected to go on as they go.

    """
    travel = travel_of(users)
    brake = Motion(more=-travel.clamp(max=_BRAKE), turn=torch.zeros_like(travel), stand=travel < _BRAKE / 2)
    more, turn, stand = (
        torch.cat((getattr(draws, name), getattr(brake, name)[None])) for name in ("more", "turn", "stand")
    )  # (k + 1, b, n)
    came = (travel + more).clamp(min=0) * ~stand
    others = users if ego is None else join(users, ego)
    touch = _hits(users, others, torch.zeros_like(came[:1]), turn[:1], 0.0)
    faults, stuck = torch.zeros_like(came), torch.ones_like(touch[0])
    for frames in _AHEAD:
        hits = _hits(users, others, came, turn, frames) & ~touch
        if frames == _AHEAD[0]:
            stuck = hits[:-1].all(0)
        faults += _off_ground(users, came, turn, crops, frames) + _HIT / frames * hits
    # Braking is for where all else leads into another at once, whether it helps or not, not for the sake of the ground.
    faults[-1] = torch.where(stuck, 0.0, torch.inf)
    best = faults.argmin(dim=0)[None]  # the first of the least
    return Motion(more=more.gather(0, best)[0], turn=turn.gather(0, best)[0], stand=stand.gather(0, best)[0])


def _off_ground(users: RoadUsers, came: Tensor, turn: Tensor, crops: Tensor, frames: float) -> Tensor:
    """How many points (k, b, n) float32 of each road user, after so many frames of k motions, lie where it does not
    belong: vehicles and two wheels beside the road, who walks in walls and hedges. What was not seen may be anything.
    """
    half = users.size[..., :2] / 2
    corners = torch.stack(
        (torch.zeros_like(half), half, half * half.new_tensor([1.0, -1.0])), dim=-2
    )  # (b, n, 3, 2): middle and the front corners
    pose = arc(came * frames, turn * frames)[..., None, :]  # (k, b, n, 1, 3)
    cos, sin = pose[..., 2].cos(), pose[..., 2].sin()
    x = pose[..., 0] + cos * corners[..., 0] - sin * corners[..., 1]
    y = pose[..., 1] + sin * corners[..., 0] + cos * corners[..., 1]
    kinds = crops.flatten(-2).expand(len(came), -1, -1, -1).gather(-1, crop_index(x, y))
    walks = (users.label == PEDESTRIAN)[..., None]
    off = torch.where(walks, kinds == OBSTACLE, (kinds != ROAD) & (kinds != UNSEEN_GROUND))
    return off.sum(-1) * (came > 0)


def _hits(users: RoadUsers, others: RoadUsers, came: Tensor, turn: Tensor, frames: float) -> Tensor:
    """Whose box (k, b, n) bool, after so many frames of k motions, overlaps one of `others`, whose first slots are the
    same road users, if these go on as they go.
    """
    origin = F.pad(users.now[:, :1, :2], (0, 1))  # far from the world's origin float32 is too coarse
    mine = compose((users.now - origin).float(), arc(came * frames, turn * (came > 0) * frames))
    way = travel_of(others) * frames
    theirs = compose((others.now - origin).float(), arc(way, torch.zeros_like(way)))
    k, n = len(came), came.shape[2]
    flat = mine.transpose(0, 1).flatten(1, 2)  # (b, k n, 3)
    hit = overlap(flat, users.size[..., :2].repeat(1, k, 1), theirs, others.size[..., :2])
    itself = torch.eye(n, others.valid.shape[1], dtype=torch.bool, device=hit.device)
    hit = hit.unflatten(1, (k, n)) & others.valid[:, None, None] & ~itself
    return (hit.any(-1) & users.valid[:, None]).transpose(0, 1)
