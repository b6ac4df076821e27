"""Time to collision with road users whose velocities are known, as NAVSIM has it; without a loop over any of them."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from occsora_sim.constants import constant
from occsora_sim.geometry import rotate
from occsora_sim.grid import FRAME_SECONDS, class_mask
from occsora_sim.road_users import RoadUsers
from occsora_sim.scoring.driving import ScoreConfig
from occsora_sim.scoring.footprint import ROAD_USERS
from occsora_sim.scoring.oriented_boxes import separation
from occsora_sim.vehicle import Vehicle

_BEHIND = math.cos(math.radians(30.0))
"""Cosine of the angle to the ego's rear within which somebody is behind it (NAVSIM)."""


def moving_time_to_collision(
    users: RoadUsers, ego_pose: Tensor, speed: Tensor, vehicle: Vehicle, config: ScoreConfig
) -> Tensor:
    """TTC: whether the ego and everybody else, all going straight on at constant velocity, stay clear for the horizon.

    After `_calculate_ttc` of NAVSIM (Dauner et al. 2024, arXiv 2406.15349). Somebody who is behind the ego when the
    boxes first meet does not count. NAVSIM leaves out those from the side, too, unless the ego is between lanes or on
    a junction; no lanes are known here, so they all count. An ego that stands passes.

    Args:
        users: of b worlds, n slots each, with f poses at least.
        ego_pose: (b, f, 3) world poses of the ego at the last f instants that `users` remembers.
        speed: (b, f) of the ego then [m/s].
        vehicle: its size.
        config: options.

    Returns:
        (b, f) float in {0, 1}.

    """
    pose, present, velocity = instants(users, ego_pose.shape[1])
    ego = ego_pose.to(pose)[:, :, None]  # (b, f, 1, 3)
    seen = rotate(
        torch.stack((pose[..., :2] - ego[..., :2], velocity)), -ego[..., 2]
    )  # both in the ego frame
    (place, velocity), turn = seen, pose[..., 2:] - ego[..., 2:]  # (b, f, n, 2), (b, f, n, 1)
    times = constant(config.instants, pose.device, pose.dtype)
    ahead = speed.to(pose)[..., None] * times  # (b, f, p)
    centre = F.pad((ahead + (vehicle.front + vehicle.rear) / 2)[..., None], (0, 2))  # (b, f, p, 3)
    size = constant((vehicle.length, vehicle.width), pose.device, pose.dtype)
    moved = place[:, :, None] + velocity[:, :, None] * times[:, None, None]  # (b, f, p, n, 2)
    boxes = torch.cat((moved, turn[:, :, None].expand(*moved.shape[:-1], 1)), dim=-1)
    sizes = users.size[:, None, None, :, :2].to(pose)
    moves = class_mask(ROAD_USERS, pose.device)[users.label.long()]  # (b, n)
    meets = (separation(centre[..., None, :], size, boxes, sizes) < 0) & (present & moves[:, None])[
        :, :, None
    ]
    first = meets & (meets.cumsum(dim=2) == 1)
    back, side = moved[..., 0] - ahead[..., None], moved[..., 1]
    behind = back < -_BEHIND * torch.hypot(back, side)
    hit = (first & ~behind).flatten(2).any(dim=2)
    return torch.where(hit & (speed > config.moving), 0.0, 1.0)


def instants(users: RoadUsers, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Where the road users were at each of the last `count` instants, no more than they remember.

    Returns:
        poses (b, count, n, 3) float64, presence (b, count, n) bool and velocities (b, count, n, 2) float64 [m/s]: the
        known ones now; earlier from the pose before, or from the next one where there is none before.

    """
    pose, present = (value[:, :, -count:].transpose(1, 2) for value in (users.pose, users.present))
    present = present & users.valid[:, None]
    velocity = users.velocity.double()[:, None]
    if count > 1:
        kept = users.pose.shape[2]
        step = (
            users.pose[:, :, -min(count + 1, kept) :, :2].diff(dim=2).transpose(1, 2)
        )  # (b, up to count, n, 2)
        if kept == count:  # nothing is known before the first
            step = torch.cat((step[:, :1], step), dim=1)
        known = users.present[:, :, -min(count + 1, kept) : -2].transpose(1, 2)  # before each but the newest
        if kept == count:
            known = torch.cat((torch.zeros_like(known[:, :1]), known), dim=1)
        earlier = torch.where(known[..., None], step[:, :-1], step[:, 1:]) / FRAME_SECONDS
        velocity = torch.cat((earlier, velocity), dim=1)
    return pose, present, velocity
