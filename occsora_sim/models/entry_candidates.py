"""Candidates for who comes into view: which of them can be, and the road users that they become."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from occsora_sim.constants import constant
from occsora_sim.geometry import compose
from occsora_sim.grid import FRAME_SECONDS, Grid
from occsora_sim.models.box_overlap import Boxes, parted
from occsora_sim.models.entry_view import in_view
from occsora_sim.road_users import MOVES, NEVER, RoadUsers
from occsora_sim.vehicle import Vehicle

_ROOM = {"beside": 0.1, "ahead": 0.2, "seconds": 0.4}
"""What entries keep from others, and what these keep from them [m, m, s]: 5 % of recorded ones are nearer."""

_BRAKE = 4.0
"""How hard all of them can brake [m/s2]: nobody comes who could then not stop behind another, nor where another could
not stop behind it. 1 % of recorded ones come so."""

_ROUNDS = 3
"""Rounds in which candidates give way; an odd number, after which no two that overlap are left."""


def in_the_way(
    local: Tensor, size: Tensor, pace: Tensor, users: RoadUsers, there: Tensor, speed: Tensor, vehicle: Vehicle
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Which candidates (b, k) are too near to the road users at `there` (b, n, 3) or to the ego, and which pairs of
    candidates are too near to each other: (b, k) and (b, k, k) bool.
    """
    b, n = there.shape[:2]
    ego = constant(((vehicle.front - vehicle.length / 2, 0.0, 0.0),), local.device)
    own = Boxes.of(ego, constant(((vehicle.length, vehicle.width),), local.device))
    own = own.grown(speed[:, None], beside=0.5, ahead=1.0, seconds=1.5)
    own = Boxes(*(part.expand(b, 1, 2) for part in own))
    mine = _spaces(Boxes.of(local, size), pace)
    theirs = _spaces(Boxes.of(there, users.size), users.speed)
    all_ = [
        Boxes(*(torch.cat(parts, dim=1) for parts in zip(other, own, candidate, strict=True)))
        for other, candidate in zip(theirs, mine, strict=True)
    ]
    known, both = _meet(mine, all_).split((n + 1, local.shape[1]), dim=-1)
    return (known & F.pad(users.valid, (0, 1), value=True)[:, None]).any(-1), both


def give_way(comes: Tensor, both: Tensor) -> Tensor:
    """Which of the candidates (b, k) that come, the first ones first, keep clear of one another; `both` (b, k, k) says
    which do not.
    """
    before = both.tril(-1)
    stays = comes
    for _ in range(_ROUNDS):
        stays = comes & ~(before & stays[:, None]).any(-1)
    return stays


def _spaces(boxes: Boxes, speed: Tensor) -> list[Boxes]:
    """What boxes at speeds (b, n) [m/s] take up: with the room they keep, all the way until they could stand, and where
    they would stand.
    """
    way = speed.to(boxes.half).square() / (2 * _BRAKE)
    stands = boxes._replace(centre=boxes.centre + boxes.ahead * way[..., None])
    return [boxes.grown(speed, **_ROOM), boxes.grown(way, beside=0.0, ahead=0.0, seconds=1.0), stands]


def _meet(mine: list[Boxes], theirs: list[Boxes]) -> Tensor:
    """Whether those of `mine` (b, n) come too near to `theirs` (b, m), either way round: (b, n, m) bool."""
    room, way, stands = theirs
    both = (Boxes(*map(torch.stack, zip(*group, strict=True))) for group in (mine, (room, stands, way)))
    return (parted(*both) <= 0).any(0)


def seen_before(local: Tensor, pace: Tensor, new: Tensor, speed: Tensor, grid: Grid) -> Tensor:
    """Whether candidates (b, k) were in view a frame ago, on ground that was: then they are no entries."""
    yaw = local[..., 2].double()
    ahead = torch.stack((yaw.cos(), yaw.sin()), dim=-1).to(local)
    before = local[..., :2] - ahead * (pace * FRAME_SECONDS)[..., None]
    column = torch.floor((before - constant(grid.lower[:2], before.device)) / grid.voxel).long()
    i, j = (column[..., axis].clamp(0, grid.shape[axis] - 1) for axis in (0, 1))
    seen = ~new.flatten(1).gather(1, i * grid.shape[1] + j)
    # What the view has left behind is told from the ego's way, as if it had driven straight.
    behind = before + F.pad((speed.to(before) * FRAME_SECONDS)[:, None, None], (0, 1))
    behind_seen = in_view(behind, grid) & ~new.flatten(1).all(1, keepdim=True)
    return torch.where(in_view(before, grid), seen, behind_seen)


def with_past(
    comes: Tensor, label: Tensor, size: Tensor, local: Tensor, pace: Tensor, pose: Tensor, key: Tensor,
    history: int,
) -> RoadUsers:  # fmt: skip
    """Candidates (b, k) that come, as road users that have driven straight on."""
    world = compose(pose.double()[:, None], local.double())
    step = pace.double()[..., None] * torch.stack((world[..., 2].cos(), world[..., 2].sin()), dim=-1)
    ago = FRAME_SECONDS * torch.arange(history - 1, -1, -1, device=pose.device, dtype=torch.float64)
    past = world[:, :, None] - F.pad(ago[:, None] * step[:, :, None], (0, 1))  # (b, k, h, 3)
    slots = label.shape[1]
    number = ((key[:, 1:] + 1) << 16) + slots + torch.arange(slots, device=pose.device)
    return RoadUsers(
        label=label,
        size=size.float(),
        pose=past,
        present=torch.ones(*past.shape[:3], dtype=torch.bool, device=pose.device),
        velocity=step.float(),
        id=number,
        age=torch.zeros_like(number, dtype=torch.int32),
        rested=(pace * FRAME_SECONDS < MOVES).int() * NEVER,
    ).where(comes)
