"""Rectangles on the ground, turned any way: do they overlap, how deep, and how far apart are they?"""

from __future__ import annotations

import torch
from torch import Tensor

from occsora_sim.constants import constant
from occsora_sim.geometry import relative, rotate
from occsora_sim.vehicle import Vehicle

_SIGNS = ((1.0, 1.0), (-1.0, 1.0), (-1.0, -1.0), (1.0, -1.0))


def separation(pose: Tensor, size: Tensor, other_pose: Tensor, other_size: Tensor) -> Tensor:
    """The widest gap between two rectangles over the axes of both; negative where they overlap, by the depth.

    Separating axis theorem (Gottschalk et al. 1996): two convex shapes are apart exactly if they are along the normal
    of some side. A lower bound of the distance where they are apart.

    Args:
        pose: (..., 3) centres x, y [m] and yaws [rad].
        size: (..., 2) lengths and widths [m].
        other_pose: (..., 3), broadcast against the first.
        other_size: (..., 2).

    Returns:
        (...) [m].

    """
    offset = other_pose[..., :2] - pose[..., :2]
    yaw, other_yaw = pose[..., 2].expand_as(offset[..., 0]), other_pose[..., 2].expand_as(offset[..., 0])
    turn = other_yaw - yaw
    cos, sin = turn.cos().abs()[..., None], turn.sin().abs()[..., None]
    half, other = size / 2, other_size / 2
    mine = rotate(offset, -yaw).abs() - half - cos * other - sin * other.flip(-1)
    theirs = rotate(offset, -other_yaw).abs() - other - cos * half - sin * half.flip(-1)
    return torch.maximum(mine, theirs).amax(dim=-1)


def signed_distance(pose: Tensor, size: Tensor, other_pose: Tensor, other_size: Tensor) -> Tensor:
    """How far apart two rectangles are [m]; negative where they overlap. Arguments as of `separation`."""
    # Two convex polygons that are apart are nearest at a corner of one of them.
    apart = torch.minimum(
        _corner_distance(pose, size, other_pose, other_size),
        _corner_distance(other_pose, other_size, pose, size),
    )
    gap = separation(pose, size, other_pose, other_size)
    return torch.where(gap < 0, gap, apart)


def _corner_distance(pose: Tensor, size: Tensor, other_pose: Tensor, other_size: Tensor) -> Tensor:
    """From the first rectangle to the nearest corner of the other [m]."""
    local = relative(pose, other_pose)
    corner = constant(_SIGNS, size.device, size.dtype) / 2 * other_size[..., None, :]  # (..., 4, 2)
    corner = local[..., None, :2] + rotate(corner, local[..., 2:].expand(corner.shape[:-1]))
    return (corner.abs() - size[..., None, :] / 2).clamp(min=0).norm(dim=-1).amin(dim=-1)


def ego_box(pose: Tensor, vehicle: Vehicle) -> tuple[Tensor, Tensor]:
    """The box of an ego at rear-axle poses (..., 3): its centre's pose (..., 3), and length and width (2,) [m]."""
    ahead = constant(((vehicle.front + vehicle.rear) / 2, 0.0), pose.device, pose.dtype)
    centre = pose[..., :2] + rotate(ahead.expand(*pose.shape[:-1], 2), pose[..., 2])
    size = constant((vehicle.length, vehicle.width), pose.device, pose.dtype)
    return torch.cat((centre, pose[..., 2:]), dim=-1), size
