"""Candidates for who comes into view: which of them can be, and the road users that they become."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from occsora_sim.constants import constant, span
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
    world: Tensor, size: Tensor, pace: Tensor, users: RoadUsers, then: Tensor, pose: Tensor, speed: Tensor,
    vehicle: Vehicle,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Which candidates of f frames are too near to a road user or to the ego, and which are too near to one another: of
    two frames, if the earlier one drives on to the later. Candidates of later frames come after those of earlier ones.

    Args:
        world: (b, f, k, 3) float64, their poses when they come.
        size: (b, f, k, 3) of them [m].
        pace: (b, f, k) of them [m/s].
        users: b worlds' road users.
        then: (b, f, n, 3) float64, where they are in the frames.
        pose: (b, f, 3) of the ego.
        speed: (b, f) of the ego [m/s].
        vehicle: the ego's size.

    Returns:
        (b, f, k) bool, and (b, f k, f k) bool, of which what is below the diagonal counts.

    """
    f, n = then.shape[1:3]
    # Far from the world's origin float32 is too coarse.
    origin = F.pad(pose[:, :1, None, :2].double(), (0, 1))
    pose, then, world = ((part - origin).float() for part in (pose[:, :, None], then, world))
    axle = Boxes.of(pose, constant((vehicle.length, vehicle.width), pose.device))
    middle = axle.centre + axle.ahead * (vehicle.front - vehicle.length / 2)
    own = Boxes(centre=middle, ahead=axle.ahead, half=axle.half.expand_as(middle))
    own = own.grown(speed[:, :, None], beside=0.5, ahead=1.0, seconds=1.5)
    theirs = _spaces(Boxes.of(then, users.size[:, None].expand(-1, f, -1, -1)), users.speed[:, None])
    candidates = Boxes.of(world, size)
    mine = _spaces(candidates, pace)
    frame = span(f, pose.device)
    later = (frame[:, None] - frame) * FRAME_SECONDS
    step = candidates.ahead * pace[..., None]
    way = (step[:, None] * later[..., None, None]).flatten(2, 3)  # (b, f, f k, 2)
    all_ = []
    for other, candidate in zip(theirs, mine, strict=True):
        _, ahead, half = (part[:, None].expand(-1, f, -1, -1, -1).flatten(2, 3) for part in candidate)
        moved = Boxes(centre=candidate.centre.flatten(1, 2)[:, None] + way, ahead=ahead, half=half)
        all_.append(Boxes(*(torch.cat(parts, dim=2) for parts in zip(other, own, moved, strict=True))))
    known, both = _meet(mine, all_).split((n + 1, way.shape[2]), dim=-1)
    return (known & F.pad(users.valid, (0, 1), value=True)[:, None, None]).any(-1), both.flatten(1, 2)


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
    """What boxes at speeds (..., n) [m/s] take up: with the room they keep, all the way until they could stand, and
    where they would stand.
    """
    way = speed.to(boxes.half).square() / (2 * _BRAKE)
    stands = boxes._replace(centre=boxes.centre + boxes.ahead * way[..., None])
    return [boxes.grown(speed, **_ROOM), boxes.grown(way, beside=0.0, ahead=0.0, seconds=1.0), stands]


def _meet(mine: list[Boxes], theirs: list[Boxes]) -> Tensor:
    """Whether those of `mine` (..., n) come too near to `theirs` (..., m), either way round: (..., n, m) bool."""
    room, way, stands = theirs
    both = (Boxes(*map(torch.stack, zip(*group, strict=True))) for group in (mine, (room, stands, way)))
    return (parted(*both) <= 0).any(0)


def seen_before(local: Tensor, pace: Tensor, new: Tensor, speed: Tensor, grid: Grid) -> Tensor:
    """Whether candidates (b, k) were in view a frame ago, on ground that was: then they are no entries."""
    yaw = local[..., 2].double()
    ahead = torch.stack((yaw.cos(), yaw.sin()), dim=-1).to(local)
    before = local[..., :2] - ahead * (pace * FRAME_SECONDS)[..., None]
    column = torch.floor((before - constant(grid.lower[:2], before.device)) / grid.voxel).clamp(min=0)
    last = constant(tuple(side - 1.0 for side in grid.shape[:2]), column.device)
    i, j = column.minimum(last).long().unbind(-1)
    seen = ~new.flatten(1).gather(1, i * grid.shape[1] + j)
    # What the view has left behind is told from the ego's way, as if it had driven straight.
    behind = before + F.pad((speed.to(before) * FRAME_SECONDS)[:, None, None], (0, 1))
    behind_seen = in_view(behind, grid) & ~new.flatten(1).all(1, keepdim=True)
    return torch.where(in_view(before, grid), seen, behind_seen)


def with_past(
    comes: Tensor, label: Tensor, size: Tensor, world: Tensor, pace: Tensor, number: Tensor, history: int
) -> RoadUsers:
    """Candidates (b, k) that come to the poses `world` (b, k, 3), as road users `number` (b, k) that have driven
    straight on.
    """
    step = pace.double()[..., None] * torch.stack((world[..., 2].cos(), world[..., 2].sin()), dim=-1)
    ago = FRAME_SECONDS * torch.arange(history - 1, -1, -1, device=world.device, dtype=torch.float64)
    past = world[:, :, None] - F.pad(ago[:, None] * step[:, :, None], (0, 1))  # (b, k, h, 3)
    return RoadUsers(
        label=label,
        size=size.float(),
        pose=past,
        present=torch.ones(*past.shape[:3], dtype=torch.bool, device=world.device),
        velocity=step.float(),
        id=number,
        age=torch.zeros_like(number, dtype=torch.int32),
        rested=(pace * FRAME_SECONDS < MOVES).int() * NEVER,
    ).where(comes)
