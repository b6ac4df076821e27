"""Of several motions drawn for a road user, the first that leads neither off its ground nor into another.

Rejection sampling: where the first draw is possible it stands. Why the model does not do it by itself: to a model of an
hour's training a draw that turns three degrees too far is nearly as likely as the right one, and half a minute of such
draws ends beside the road. What it is worth: lab book, 2026-11-29.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from occsora_sim.constants import constant
from occsora_sim.geometry import turned
from occsora_sim.grid import PEDESTRIAN
from occsora_sim.models.box_overlap import Boxes, parted
from occsora_sim.models.ground_crop import OBSTACLE, ROAD, UNSEEN_GROUND, crop_index
from occsora_sim.models.traffic_head import NUMBERS, TOKENS
from occsora_sim.models.traffic_motion import Motion, arc
from occsora_sim.road_users import RoadUsers

DRAWS = 16
"""Motions drawn of each road user."""

_AHEAD = (1.0, 2.0, 3.0, 4.0)
"""Frames after which the way of a motion is looked at: the arc goes on for as long. Who looks a frame ahead alone sees
the car in front when it is too late to slow down for it."""

_HIT = (32.0, 16.0, 11.0, 8.0)
"""What it weighs to run into another after so many frames, in points beside the ground. Whole numbers, so that a sum of
them is the same in any order.
"""

_NOWHERE = 1e6
"""Where nobody is, empty slots are [m]."""

_BRAKE = 1.5
"""How much less far than in the frame before who cannot but brake comes [m]: 6 m/s2."""


def uses(n: int) -> dict[int, tuple[int, ...]]:
    """What uniform numbers DRAWS motions of n road users take, by use: `counter_random.uniforms` gives (..., n, DRAWS,
    *) of them. Those of a slot are the same however many there are.
    """
    return {TOKENS: (n, DRAWS, NUMBERS)}


def luck_of(drawn: Tensor) -> Tensor:
    """The `luck` of a head for DRAWS motions, (..., DRAWS, b, n, *), from numbers of `uses` (..., b, n, DRAWS, *)."""
    return drawn.movedim(-2, -4)


def choose(everyone: RoadUsers, draws: Motion, crops: Tensor) -> Motion:
    """Of `draws` (k, b, n), for each road user the first of the least fault; braking as hard as can be is the last.

    Args:
        everyone: b worlds' road users as they stand, and the ego behind them, which nobody runs into either. All are
            expected to go on as they go.
        draws: motions of the first n of them.
        crops: (b, n, *CROP) uint8, the ground around each of these.

    """
    travel = everyone.travel[:, : crops.shape[1]]
    brake = -travel.clamp(max=_BRAKE), travel < _BRAKE / 2
    more, stand = (
        torch.cat((drawn, last[None])).transpose(0, 1)
        for drawn, last in zip((draws.more, draws.stand), brake, strict=True)
    )  # (b, k + 1, n)
    turn = F.pad(draws.turn, (0, 0, 0, 0, 0, 1)).transpose(0, 1)
    came = (travel[:, None] + more).clamp(min=0).masked_fill(stand, 0.0)
    goes = came > 0
    frames = constant(_AHEAD, came.device)[:, None, None]
    ways = arc(came[:, None] * frames, (turn * goes)[:, None] * frames)  # (b, h, k + 1, n, 3)
    heading = torch.stack((ways[..., 2].cos(), ways[..., 2].sin()), dim=-1)
    hits = _hits(everyone, ways, heading)
    fault = (constant(_HIT, came.device)[:, None, None] * hits).sum(1)
    fault += _off_ground(everyone, ways, heading, crops) * goes
    # Braking is for where all else leads into another at once, whether it helps or not, not for the sake of the ground.
    stuck = hits[:, 0, :-1].all(1, keepdim=True)
    first = fault[:, :-1].argmin(1, keepdim=True)  # of the least
    best = first.masked_fill(stuck, fault.shape[1] - 1)
    more, turn, stand = (part.gather(1, best)[:, 0] for part in (more, turn, stand))
    return Motion(more=more, turn=turn, stand=stand)


def _off_ground(users: RoadUsers, ways: Tensor, heading: Tensor, crops: Tensor) -> Tensor:
    """How many points (b, k, n) int64 of the first n lie where these do not belong, after ways (b, h, k, n, 3) to
    where they have a `heading` (b, h, k, n, 2), all in all: vehicles and two wheels beside the road, who walks in walls
    and hedges. What was not seen may be anything.
    """
    n = ways.shape[3]
    # The middle and the front corners, (b, 1, 1, n, 3, 2).
    places = (
        constant(((0.0, 0.0), (0.5, 0.5), (0.5, -0.5)), ways.device) * users.size[:, None, None, :n, None, :2]
    )
    points = ways[..., None, :2] + turned(places, heading[..., None, :])
    index = crop_index(points[..., 0], points[..., 1])
    kinds = crops.flatten(-2)[:, None, None].expand(*ways.shape[:-1], -1).gather(-1, index)
    walks = (users.label[:, :n] == PEDESTRIAN)[:, None, None, :, None]
    off = torch.where(walks, kinds == OBSTACLE, (kinds != ROAD) & (kinds != UNSEEN_GROUND))
    return off.sum((1, -1))


def _hits(everyone: RoadUsers, ways: Tensor, heading: Tensor) -> Tensor:
    """Whose box, after ways (b, h, k, n, 3) to where it has a `heading` (b, h, k, n, 2) in its own frame, overlaps that
    of another, if these go on as they go: (b, h, k, n) bool. The n are the first of `everyone`. Who overlaps another as
    they stand hits nobody: it has to be able to leave.
    """
    k, n = ways.shape[2:4]
    valid = everyone.valid
    origin = F.pad(everyone.now[:, :1, :2], (0, 1))  # far from the world's origin float32 is too coarse
    now = Boxes.of((everyone.now - origin).float(), everyone.size)
    now = Boxes(centre=now.centre.masked_fill(~valid[..., None], _NOWHERE), ahead=now.ahead, half=now.half)
    own = Boxes(centre=now.centre[:, :n], ahead=now.ahead[:, :n], half=now.half[:, :n])
    # Both the way and the heading, in the frame of all: (b, h, k, n, 2, 2).
    turn = turned(torch.stack((ways[..., :2], heading), dim=-2), own.ahead[:, None, None, :, None])
    then = Boxes(
        centre=(own.centre[:, None, None] + turn[..., 0, :]).flatten(2, 3),
        ahead=turn[..., 1, :].flatten(2, 3),
        half=own.half[:, None, None].expand(-1, 1, k, n, 2).flatten(2, 3),
    )  # (b, h, k n)
    frames = constant(_AHEAD, valid.device)[:, None, None]
    there = now.centre[:, None] + (now.ahead * everyone.travel[..., None])[:, None] * frames  # (b, h, m, 2)
    theirs = Boxes(centre=there, ahead=now.ahead[:, None].expand_as(there), half=now.half[:, None])

    def met(apart: Tensor) -> Tensor:
        """Who is in touch with another than itself, of (b, ..., n, m)."""
        apart.diagonal(dim1=-2, dim2=-1).fill_(torch.inf)
        return apart.amin(-1) <= 0

    free = valid[:, :n] & ~met(parted(own, now))
    return met(parted(then, theirs).unflatten(-2, (k, n))) & free[:, None, None]
