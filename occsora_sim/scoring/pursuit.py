"""A driver without eyes: follows a route at a speed that suits its curves and lasts for a given time.

It keeps the ego on new ground for as long as a rollout goes on. It sees no road users, so nothing that a world draws
changes where it drives: two worlds are shown the same motion.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from occsora_sim.errors import ConfigurationError
from occsora_sim.geometry import compose, to_frame
from occsora_sim.grid import FRAME_SECONDS
from occsora_sim.scoring.route import Routes
from occsora_sim.vehicle import Vehicle, hold_controls

CRUISE = 8.0
"""Largest speed [m/s]."""

LATERAL = 2.0
"""Lateral acceleration in curves [m/s2]."""

PULL, BRAKE = 1.5, 2.0
"""Acceleration and braking [m/s2]."""

LEAST = 1.0
"""Speed that it never falls below while there is route left [m/s]."""

_STEP = 0.1  # between two decisions [s]
_SPACING = 1.0  # of the points that the curvature is read from [m]


def drive_route(
    routes: Routes, pose: Tensor, speed: Tensor, frames: int, vehicle: Vehicle | None = None
) -> Tensor:
    """Poses of a pure pursuit (Coulter 1992) along routes, driven by the kinematic bicycle.

    The speed is what is left of the route over what is left of the time, so that the ego keeps moving until the end; at
    most CRUISE, and in a curve of curvature k sqrt(LATERAL / k), reached in time by braking before it.

    Args:
        routes: b routes in the world frame.
        pose: (b, 3) where the egos are: world x, y [m], yaw [rad].
        speed: (b,) [m/s] that they have.
        frames: how many poses, FRAME_SECONDS apart.
        vehicle: the car and its limits.

    Returns:
        (b, frames, 3) float64 world poses.

    Raises:
        ConfigurationError: `frames` is below 1.

    """
    if frames < 1:
        raise ConfigurationError(f"route driver: frames {frames} must be 1 or more")
    vehicle = vehicle or Vehicle()
    routes = Routes(points=routes.points.double(), arc=routes.arc.double())
    pose, speed = pose.double(), speed.double().clamp(min=0.0)
    slow, per_frame = _curve_speed(routes), round(FRAME_SECONDS / _STEP)
    near, anywhere = torch.zeros_like(speed), routes.length
    poses = []
    for step in range(frames * per_frame):
        near, _ = routes.project(pose[:, :2], near, anywhere)
        anywhere = torch.full_like(near, 5.0)  # once on the route, the projection only creeps on
        left = (routes.length - near).clamp(min=0.0)
        wanted = (left / (FRAME_SECONDS * frames - _STEP * step)).clamp(LEAST, CRUISE)
        ahead = ((near + 0.3 * speed) / _SPACING).long().clamp(max=slow.shape[1] - 1)
        wanted = torch.minimum(wanted, slow.gather(1, ahead[:, None])[:, 0])
        wanted = torch.minimum(wanted, (2 * BRAKE * left).sqrt())  # stands at the route's end
        pull = ((wanted - speed) / _STEP).clamp(-2 * BRAKE, PULL)
        reach = (0.9 * speed).clamp(3.0, 9.0)
        target = to_frame(routes.at((near + reach)[:, None])[:, 0], pose)
        curvature = 2 * target[:, 1] / (target**2).sum(dim=-1).clamp(min=1.0)
        steering = torch.atan(vehicle.wheelbase * curvature)
        moved, speeds = hold_controls(vehicle, speed, pull, steering, 1, _STEP)
        pose, speed = compose(pose, moved[:, 0]), speeds[:, 0]
        if (step + 1) % per_frame == 0:
            poses.append(pose)
    return torch.stack(poses, dim=1)


def _curve_speed(routes: Routes) -> Tensor:
    """Speed (b, n) [m/s] at which each point of the route, _SPACING apart, may be passed so that the curves after it
    can be taken with BRAKE.
    """
    count = max(2, math.ceil(float(routes.length.max()) / _SPACING) + 1)
    arc = torch.arange(count, dtype=routes.arc.dtype, device=routes.arc.device).mul(_SPACING)
    arc = arc.expand(len(routes.arc), count)
    half = 2.0  # corners of a polyline are rounded over this length either way [m]
    back, here, fore = (routes.at(arc + shift) for shift in (-half, 0.0, half))
    a, b = here - back, fore - here
    turn = torch.atan2(a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0], (a * b).sum(dim=-1))
    inside = (arc >= half) & (arc <= routes.length[:, None] - half)
    curvature = (turn.abs() / half).masked_fill(~inside, 0.0)
    speed = (LATERAL / curvature.clamp(min=1e-3)).sqrt().clamp(LEAST, CRUISE)
    # Backwards: v(s)^2 <= v(s')^2 + 2 BRAKE (s' - s) for every s' behind s.
    potential = speed**2 + 2 * BRAKE * arc
    return (potential.flip(1).cummin(dim=1).values.flip(1) - 2 * BRAKE * arc).clamp(min=0.0).sqrt()
