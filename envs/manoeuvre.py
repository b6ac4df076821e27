"""Discrete manoeuvres: each a speed and a line beside the route, driven by the vehicle model."""

from __future__ import annotations

import math

import torch

from occsora_sim.constants import constant
from occsora_sim.geometry import compose, to_frame
from occsora_sim.grid import FRAME_SECONDS
from occsora_sim.scoring.route import Routes
from occsora_sim.vehicle import Vehicle, hold_controls

SPEEDS = (0.0, 3.0, 6.0, 9.0, 12.0)
"""Speeds that can be asked for [m/s]."""

MANOEUVRES: tuple[str, ...] = (*(f"{speed:g} m/s" for speed in SPEEDS), "left", "right")
"""The discrete actions; the position in the tuple is the action. Each says how fast to go, whatever the speed is now:
of actions that change the speed the one that leaves it alone keeps a car standing that a learner has stopped by chance.
"left" and "right" keep the speed."""

OFFSET: tuple[float, ...] = (*(0.0 for _ in SPEEDS), 3.0, -3.0)
"""How far left of the route the line lies that each manoeuvre steers to [m]."""

PULL, BRAKE = 2.0, -4.0
"""How hard a car accelerates and brakes to reach the speed that is asked for, at most [m/s2]: what passes as
comfortable."""

SOON = 1.0
"""After which the speed that is asked for is reached, where that is not too hard [s]."""

_STEP = 0.25  # between two corrections of the steering [s]
_PREVIEW, _LEAST_PREVIEW = 1.0, 4.0  # distance of the pursued point: seconds of travel [s], and at least [m]


def manoeuvres_to_trajectory(
    actions: torch.Tensor,
    routes: Routes,
    near: torch.Tensor,
    pose: torch.Tensor,
    speed: torch.Tensor,
    frames: int,
    vehicle: Vehicle,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Pursue (Coulter 1992) the line beside the route that each manoeuvre means, accelerating evenly to its speed.

    Speeds steer to the route itself, so a car that has gone left comes back with any of them.

    Args:
        actions: (b,) int64, positions in MANOEUVRES.
        routes: b routes in the world frame.
        near: (b,) arc length of the egos on their routes [m].
        pose: (b, 3) world poses of the egos.
        speed: (b,) [m/s].
        frames: how many.
        vehicle: limits.

    Returns:
        trajectory (b, f, 3) float64 relative to `pose`, speed (b, f) [m/s] and the last steering (b,) [rad].

    """
    routes = Routes(points=routes.points.double(), arc=routes.arc.double())
    near, origin, speed = near.double(), pose.double(), speed.double()
    wanted = constant((*SPEEDS, math.nan, math.nan), speed.device, torch.float64)[actions]
    wanted = torch.where(wanted.isnan(), speed, wanted)
    pull = ((wanted - speed) / SOON).clamp(BRAKE, PULL)
    aside = constant(OFFSET, speed.device, torch.float64)[actions]
    steering = torch.zeros_like(speed)
    here = torch.zeros_like(origin)  # relative to where the manoeuvre began
    poses, speeds = [], []
    per_frame = round(FRAME_SECONDS / _STEP)
    for step in range(frames * per_frame):
        world = compose(origin, here)
        near, _ = routes.project(world[:, :2], near, torch.full_like(near, 5.0))
        reach = (_PREVIEW * speed).clamp(min=_LEAST_PREVIEW)
        target = to_frame(_beside(routes, near + reach, aside)[:, None], world[:, None])[:, 0]
        curvature = 2 * target[:, 1] / (target**2).sum(dim=-1).clamp(min=1.0)
        steering = torch.atan(vehicle.wheelbase * curvature)
        steering = steering.clamp(-vehicle.max_steering, vehicle.max_steering)
        left = (wanted - speed) / _STEP  # nothing more once the speed is reached
        now = torch.where(left.abs() < pull.abs(), left, pull)
        moved, fresh = hold_controls(vehicle, speed, now, steering, 1, _STEP)
        here, speed = compose(here, moved[:, 0]), fresh[:, 0]
        if (step + 1) % per_frame == 0:
            poses.append(here)
            speeds.append(speed)
    return torch.stack(poses, dim=1), torch.stack(speeds, dim=1), steering


def _beside(routes: Routes, arc: torch.Tensor, aside: torch.Tensor) -> torch.Tensor:
    """World points (b, 2) [m] `aside` (b,) [m] left of the routes at `arc` (b,) [m]; straight on past the end."""
    length = routes.length
    points = routes.at(torch.stack((arc - 1.0, arc + 1.0, length - 1.0, length, arc), dim=1))
    edge, last = (points[:, k + 1] - points[:, k] for k in (0, 2))  # held at the route's ends
    edge = torch.where(edge.norm(dim=-1, keepdim=True) > 0.5, edge, last)
    ahead = edge / edge.norm(dim=-1, keepdim=True).clamp(min=1e-6)
    left = torch.stack((-ahead[:, 1], ahead[:, 0]), dim=-1)
    beyond = (arc - length).clamp(min=0.0)[:, None]
    return points[:, 4] + beyond * ahead + aside[:, None] * left
