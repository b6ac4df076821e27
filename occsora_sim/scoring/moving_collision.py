"""Time to collision with road users whose velocities are known, as NAVSIM has it; without a loop over any of them."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from occsora_sim.geometry import relative, rotate
from occsora_sim.grid import FRAME_SECONDS, class_mask
from occsora_sim.road_users import RoadUsers
from occsora_sim.scoring.driving import ScoreConfig
from occsora_sim.scoring.footprint import ROAD_USERS
from occsora_sim.scoring.oriented_boxes import ego_box, separation
from occsora_sim.vehicle import Vehicle

_BEHIND = math.cos(math.radians(30.0))
"""Cosine of the angle to the ego's rear within which somebody is behind it (NAVSIM)."""


def moving_time_to_collision(
    users: RoadUsers, back: int, ego_pose: Tensor, speed: Tensor, vehicle: Vehicle, config: ScoreConfig
) -> Tensor:
    """TTC: whether the ego and everybody else, all going straight on at constant velocity, stay clear for the horizon.

    After `_calculate_ttc` of NAVSIM (Dauner et al. 2024, arXiv 2406.15349). Somebody who is behind the ego when the
    boxes first meet does not count. NAVSIM leaves out those from the side, too, unless the ego is between lanes or on
    a junction; no lanes are known here, so they all count. An ego that stands passes.

    Args:
        users: of b worlds, n slots each.
        back: how many frames before the newest poses of `users`.
        ego_pose: (b, 3) world pose of the ego at that instant.
        speed: (b,) of the ego then [m/s].
        vehicle: its size.
        config: options.

    Returns:
        (b,) float in {0, 1}.

    """
    pose, present, velocity = instant(users, back)
    ego = ego_pose.to(pose)[:, None]  # (b, 1, 3)
    pose = relative(ego, pose)
    velocity = rotate(velocity, -ego[..., 2].expand(velocity.shape[:2]))
    times = torch.tensor(config.instants, dtype=pose.dtype, device=pose.device)
    ahead = speed.to(pose)[:, None] * times  # (b, p)
    driven = torch.stack((ahead, torch.zeros_like(ahead), torch.zeros_like(ahead)), dim=-1)
    centre, size = ego_box(driven, vehicle)
    moved = pose[:, None, :, :2] + velocity[:, None] * times[:, None, None]  # (b, p, n, 2)
    boxes = torch.cat((moved, pose[:, None, :, 2:].expand(*moved.shape[:3], 1)), dim=-1)
    meets = separation(centre[:, :, None], size, boxes, users.size[:, None, :, :2].to(pose)) < 0
    meets &= (present & class_mask(ROAD_USERS, pose.device)[users.label.long()])[:, None]
    first = meets & (meets.cumsum(dim=1) == 1)
    offset = moved - driven[:, :, None, :2]
    behind = offset[..., 0] < -_BEHIND * offset.norm(dim=-1)
    hit = (first & ~behind).flatten(1).any(dim=1)
    return torch.where(hit & (speed > config.moving), 0.0, 1.0)


def instant(users: RoadUsers, back: int) -> tuple[Tensor, Tensor, Tensor]:
    """Where the road users were `back` frames before the newest poses, fewer than they remember.

    Returns:
        poses (b, n, 3) float64, presence (b, n) bool and velocities (b, n, 2) float64 [m/s]: the known ones now;
        earlier from the pose before, or from the next one where there is none before.

    """
    at = users.pose.shape[2] - 1 - back
    pose, present = users.pose[:, :, at], users.present[:, :, at] & users.valid
    if not back:
        return pose, present, users.velocity.double()
    velocity = users.pose[:, :, at + 1, :2] - pose[..., :2]
    if at:
        before = users.present[:, :, at - 1, None]
        velocity = torch.where(before, pose[..., :2] - users.pose[:, :, at - 1, :2], velocity)
    return pose, present, velocity / FRAME_SECONDS
