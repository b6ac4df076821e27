"""Planar rigid motion. A pose is (x [m], y [m], yaw [rad]); all functions broadcast over leading axes.

The world is flat for the ego: a pose has no height, roll or pitch. `compose(a, b)` is "b, seen from a, in a's
parent frame"; `relative(a, b)` is its inverse: `compose(a, relative(a, b)) == b`.
"""

from __future__ import annotations

import math

import torch

from occsora_sim.constants import constant


def wrap_angle(angle: torch.Tensor) -> torch.Tensor:
    """Wrap an angle [rad] of any shape into [-pi, pi)."""
    return torch.remainder(angle + math.pi, 2 * math.pi) - math.pi


def rotate(points: torch.Tensor, yaw: torch.Tensor) -> torch.Tensor:
    """Rotate points (..., 2) [m] by yaw (...) [rad] counter-clockwise about the origin."""
    # In float64: the float32 routines differ in the last bit with an element's place in its array, and a world must
    # not depend on its neighbours in a batch.
    turn = yaw.double()[..., None]
    return _turned(points, turn.cos().to(yaw.dtype), turn.sin().to(yaw.dtype))


def turned(points: torch.Tensor, ahead: torch.Tensor) -> torch.Tensor:
    """Points (..., 2) of a frame whose first axis lies along the unit vectors `ahead` (..., 2)."""
    return _turned(points, ahead[..., :1], ahead[..., 1:])


def _turned(points: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    return points * cos + points.flip(-1) * (sin * constant((-1, 1), sin.device, sin.dtype))


def compose(pose: torch.Tensor, offset: torch.Tensor) -> torch.Tensor:
    """The pose (..., 3) reached by `offset` (..., 3), which is given in the frame of `pose` (..., 3)."""
    xy = pose[..., :2] + rotate(offset[..., :2], pose[..., 2])
    return torch.cat((xy, wrap_angle(pose[..., 2:] + offset[..., 2:])), dim=-1)


def relative(origin: torch.Tensor, pose: torch.Tensor) -> torch.Tensor:
    """`pose` (..., 3) expressed in the frame of `origin` (..., 3)."""
    xy = rotate(pose[..., :2] - origin[..., :2], -origin[..., 2])
    return torch.cat((xy, wrap_angle(pose[..., 2:] - origin[..., 2:])), dim=-1)


def to_frame(points: torch.Tensor, pose: torch.Tensor) -> torch.Tensor:
    """World points (..., 2) [m] in the frame of `pose` (..., 3)."""
    return rotate(points - pose[..., :2], -pose[..., 2])


def to_world(points: torch.Tensor, pose: torch.Tensor) -> torch.Tensor:
    """Points (..., 2) [m] of the frame of `pose` (..., 3) in the world."""
    return pose[..., :2] + rotate(points, pose[..., 2])
