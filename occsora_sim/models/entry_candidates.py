"""Candidates for who comes into view: which of them can be, and the road users that they become."""

from __future__ import annotations

import torch
from torch import Tensor

from occsora_sim.geometry import compose, relative, rotate
from occsora_sim.grid import FRAME_SECONDS, Grid
from occsora_sim.models.box_overlap import grown, overlap
from occsora_sim.models.entry_view import in_view
from occsora_sim.road_users import RoadUsers
from occsora_sim.vehicle import Vehicle

_ROOM = {"beside": 0.1, "ahead": 0.2, "seconds": 0.4}
"""What entries keep from others, and what these keep from them [m, m, s]: 5 % of recorded ones are nearer."""

_ROUNDS = 3
"""Rounds in which candidates give way; an odd number, after which no two that overlap are left."""


def stay_clear(
    comes: Tensor, local: Tensor, size: Tensor, pace: Tensor, users: RoadUsers, pose: Tensor, speed: Tensor,
    vehicle: Vehicle,
) -> Tensor:  # fmt: skip
    """Which of the candidates (b, k), the first ones first, keep clear of who is there, the ego and one another."""
    mine = grown(local, size, pace, **_ROOM)
    there = relative(pose.double()[:, None], users.now).float()
    theirs = grown(there, users.size, users.speed, **_ROOM)
    ego = local.new_tensor((vehicle.front - vehicle.length / 2, 0.0, 0.0)).expand(len(pose), 1, 3)
    sides = local.new_tensor((vehicle.length, vehicle.width)).expand(len(pose), 1, 2)
    own = grown(ego, sides, speed[:, None], beside=0.5, ahead=1.0, seconds=1.5)
    ok = comes & ~(overlap(*mine, *theirs) & users.valid[:, None]).any(-1) & ~overlap(*mine, *own).any(-1)
    both = overlap(*mine, *mine).tril(-1)  # (b, k, those before it)
    stays = ok
    for _ in range(_ROUNDS):
        stays = ok & ~(both & stays[:, None]).any(-1)
    return stays


def seen_before(local: Tensor, pace: Tensor, new: Tensor, speed: Tensor, grid: Grid) -> Tensor:
    """Whether candidates (b, k) were in view a frame ago, on ground that was: then they are no entries."""
    back = torch.stack((-pace * FRAME_SECONDS, torch.zeros_like(pace)), dim=-1)
    before = local[..., :2] + rotate(back, local[..., 2])
    column = torch.floor((before - before.new_tensor(grid.lower[:2])) / grid.voxel).long()
    i, j = (column[..., axis].clamp(0, grid.shape[axis] - 1) for axis in (0, 1))
    seen = ~new.flatten(1).gather(1, i * grid.shape[1] + j)
    # What the view has left behind is told from the ego's way, as if it had driven straight.
    way = (speed.to(before) * FRAME_SECONDS)[:, None]
    behind = torch.stack((before[..., 0] + way, before[..., 1]), dim=-1)
    behind_seen = in_view(behind, grid) & ~new.flatten(1).all(1, keepdim=True)
    return torch.where(in_view(before, grid), seen, behind_seen)


def with_past(
    comes: Tensor, label: Tensor, size: Tensor, local: Tensor, pace: Tensor, pose: Tensor, key: Tensor,
    history: int,
) -> RoadUsers:  # fmt: skip
    """Candidates (b, k) that come, as road users that have driven straight on."""
    world = compose(pose.double()[:, None].expand(*local.shape), local.double())
    ahead = torch.stack((world[..., 2].cos(), world[..., 2].sin()), dim=-1)
    ago = FRAME_SECONDS * torch.arange(history - 1, -1, -1, device=pose.device, dtype=torch.float64)
    way = ago[:, None] * (pace.double()[..., None] * ahead)[:, :, None]  # (b, k, h, 2)
    past = torch.cat((world[:, :, None, :2] - way, world[:, :, None, 2:].expand(*way.shape[:3], 1)), dim=-1)
    slots = label.shape[1]
    number = ((key[:, 1:] + 1) << 16) + slots + torch.arange(slots, device=pose.device)
    return RoadUsers(
        label=label,
        size=size.float(),
        pose=past,
        present=torch.ones(*past.shape[:3], dtype=torch.bool, device=pose.device),
        velocity=(pace.double()[..., None] * ahead).float(),
        id=number,
        age=torch.zeros_like(number, dtype=torch.int32),
    ).where(comes)
