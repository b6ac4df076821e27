"""The ego vehicle: its size, its limits, and the kinematic bicycle that turns controls into a trajectory.

The ego frame's origin is the rear axle's centre on the ground (nuScenes), so the box is not centred on it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from occsora_sim.constants import constant, span
from occsora_sim.errors import ActionError, ConfigurationError
from occsora_sim.grid import FRAME_SECONDS
from occsora_sim.quantities import settle


@dataclass(frozen=True, kw_only=True)
class Vehicle:
    """Size and limits of a car; the defaults are the nuScenes recording car (Renault Zoe).

    Attributes:
        length: bumper to bumper [m].
        width: without mirrors [m].
        wheelbase: distance of the axles [m].
        rear_overhang: rear bumper to rear axle [m].
        min_acceleration: hardest braking [m/s2], negative.
        max_acceleration: hardest acceleration [m/s2].
        max_steering: largest angle of the front wheels [rad], either way.
        max_speed: [m/s]; the least speed is 0 (no reverse).

    """

    length: float = 4.084
    width: float = 1.73
    wheelbase: float = 2.588
    rear_overhang: float = 1.0
    min_acceleration: float = -8.0
    max_acceleration: float = 4.0
    max_steering: float = 0.6
    max_speed: float = 25.0

    def __post_init__(self) -> None:
        settle(self, "vehicle ")
        sizes = (
            self.length,
            self.width,
            self.wheelbase,
            self.max_acceleration,
            self.max_steering,
            self.max_speed,
        )
        if min(sizes) <= 0 or self.min_acceleration >= 0 or not 0 <= self.rear_overhang < self.length:
            raise ConfigurationError(f"{self}: sizes and limits must be positive, min_acceleration negative")
        if self.max_steering >= 1.5:
            raise ConfigurationError(f"vehicle: max_steering {self.max_steering} rad must be below 1.5")

    @property
    def rear(self) -> float:
        """X of the rear bumper in the ego frame [m]."""
        return -self.rear_overhang

    @property
    def front(self) -> float:
        """X of the front bumper in the ego frame [m]."""
        return self.length - self.rear_overhang


def footprint_corners(vehicle: Vehicle, pose: torch.Tensor) -> torch.Tensor:
    """Corners (..., 4, 2) [m] at `pose` (..., 3): front left, front right, rear right, rear left."""
    half = vehicle.width / 2
    box = constant(
        ((vehicle.front, half), (vehicle.front, -half), (vehicle.rear, -half), (vehicle.rear, half)),
        pose.device,
        pose.dtype,
    )
    cos, sin = torch.cos(pose[..., 2:]), torch.sin(pose[..., 2:])  # (..., 1)
    x = pose[..., :1] + cos * box[:, 0] - sin * box[:, 1]
    y = pose[..., 1:2] + sin * box[:, 0] + cos * box[:, 1]
    return torch.stack((x, y), dim=-1)


def _travel(
    speed: torch.Tensor, acceleration: torch.Tensor, time: torch.Tensor, limit: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Distance [m] and final speed [m/s] (b, t) after `time` (t,) [s] at constant acceleration (b, 1), held at 0 or
    `limit` once reached.
    """
    bound = (acceleration >= 0).to(speed.dtype) * limit
    steady = acceleration == 0
    until = (bound - speed) / acceleration.masked_fill(steady, 1.0)  # time until the bound is reached [s]
    until = torch.minimum(torch.where(steady, torch.inf, until).clamp(min=0.0), time)
    reached = (speed + acceleration * until).clamp(0.0, limit)
    return 0.5 * (speed + reached) * until + reached * (time - until), reached


def hold_controls(
    vehicle: Vehicle,
    speed: torch.Tensor,
    acceleration: torch.Tensor,
    steering: torch.Tensor,
    frames: int,
    seconds: float = FRAME_SECONDS,
) -> tuple[torch.Tensor, torch.Tensor]:
    """`bicycle_rollout` of controls (b,) that are held over `frames`: one arc. Nothing is checked, so nothing waits."""
    acceleration = acceleration.clamp(vehicle.min_acceleration, vehicle.max_acceleration)[:, None]
    curvature = torch.tan(steering.clamp(-vehicle.max_steering, vehicle.max_steering)) / vehicle.wheelbase
    time = span(frames, speed.device, speed.dtype, first=1) * seconds
    distance, speeds = _travel(
        speed.clamp(0.0, vehicle.max_speed)[:, None], acceleration, time, vehicle.max_speed
    )
    half = 0.5 * distance * curvature[:, None]
    chord = distance * torch.sinc(half / torch.pi)  # the arc's chord, exact down to curvature 0
    return torch.stack((chord * torch.cos(half), chord * torch.sin(half), 2 * half), dim=-1), speeds


def bicycle_rollout(
    vehicle: Vehicle,
    speed: torch.Tensor,
    acceleration: torch.Tensor,
    steering: torch.Tensor,
    seconds: float = FRAME_SECONDS,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Drive the kinematic bicycle about its rear axle (Rajamani, Vehicle Dynamics and Control, section 2.2).

    Curvature is tan(steering) / wheelbase; every frame is an exact arc with exact uniformly accelerated travel. The
    vehicle stops at speed 0: it never reverses.

    Args:
        vehicle: sizes and limits; controls are clamped to the limits.
        speed: (b,) [m/s] at the start.
        acceleration: (b, f) [m/s2], held over each frame.
        steering: (b, f) front wheel angle [rad], positive to the left, held over each frame.
        seconds: duration of a frame [s].

    Returns:
        trajectory (b, f, 3): poses (x [m], y [m], yaw [rad]) at the end of each frame, in the starting frame;
        and speed (b, f) [m/s] there.

    Raises:
        ActionError: shapes disagree, or a value is not finite.

    """
    if (
        acceleration.ndim != 2
        or steering.shape != acceleration.shape
        or speed.shape != acceleration.shape[:1]
    ):
        raise ActionError(
            f"bicycle: speed {tuple(speed.shape)}, acceleration {tuple(acceleration.shape)} and steering "
            f"{tuple(steering.shape)} must be (b,), (b, f) and (b, f)"
        )
    if not all(bool(torch.isfinite(value).all()) for value in (speed, acceleration, steering)):
        raise ActionError("bicycle: speed, acceleration and steering must be finite numbers")
    pose, poses, speeds = speed.new_zeros(len(speed), 3), [], []
    for pull, angle in zip(acceleration.unbind(1), steering.unbind(1), strict=True):
        arc, reached = hold_controls(vehicle, speed, pull, angle, 1, seconds)
        x, y, turn = arc[:, 0].unbind(-1)
        cos, sin = torch.cos(pose[:, 2]), torch.sin(pose[:, 2])
        pose = torch.stack(
            (pose[:, 0] + cos * x - sin * y, pose[:, 1] + sin * x + cos * y, pose[:, 2] + turn), dim=-1
        )
        speed = reached[:, 0]
        poses.append(pose)
        speeds.append(speed)
    return torch.stack(poses, dim=1), torch.stack(speeds, dim=1)
