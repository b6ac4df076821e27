"""Comfort from ego poses alone, by finite differences, with the thresholds of nuPlan's closed-loop score."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from occsora_sim.constants import constant
from occsora_sim.geometry import wrap_angle
from occsora_sim.grid import FRAME_SECONDS

HISTORY = 3
"""Poses before the first judged one: a jerk needs four."""


@dataclass(frozen=True, kw_only=True)
class ComfortLimits:
    """Largest values that passengers find comfortable (nuPlan, Caesar et al. 2021; also used by NAVSIM).

    Attributes:
        min_longitudinal: [m/s2].
        max_longitudinal: [m/s2].
        max_lateral: [m/s2], either way.
        max_jerk: magnitude of the acceleration vector's change [m/s3].
        max_longitudinal_jerk: [m/s3], either way.
        max_yaw_rate: [rad/s], either way.
        max_yaw_acceleration: [rad/s2], either way.

    """

    min_longitudinal: float = -4.05
    max_longitudinal: float = 2.40
    max_lateral: float = 4.89
    max_jerk: float = 8.37
    max_longitudinal_jerk: float = 4.13
    max_yaw_rate: float = 0.95
    max_yaw_acceleration: float = 1.93


def ego_motion(poses: torch.Tensor, seconds: float = FRAME_SECONDS) -> dict[str, torch.Tensor]:
    """Derivatives of ego motion by backward differences.

    nuPlan smooths 10 Hz states; at 2 Hz plain differences are what the samples carry.

    Args:
        poses: (b, t, 3) world poses at equal spacing, t >= 4.
        seconds: the spacing [s].

    Returns:
        longitudinal, lateral [m/s2], jerk, longitudinal_jerk [m/s3], yaw_rate [rad/s], yaw_acceleration
        [rad/s2], each (b, t - 3): one for each pose but the first three.

    """
    poses = poses.double()  # differences of world coordinates, divided by time cubed
    velocity = poses[..., :2].diff(dim=1) / seconds  # (b, t - 1, 2)
    heading = torch.stack((torch.cos(poses[..., 2]), torch.sin(poses[..., 2])), dim=-1)
    middle = heading[:, 1:] + heading[:, :-1]  # direction of travel between two poses
    speed = (velocity * middle).sum(dim=-1) / middle.norm(dim=-1).clamp(min=1e-6)  # (b, t - 1), signed
    acceleration = velocity.diff(dim=1) / seconds  # (b, t - 2, 2)
    longitudinal = speed.diff(dim=1) / seconds  # (b, t - 2)
    yaw_rate = wrap_angle(poses[..., 2].diff(dim=1)) / seconds  # (b, t - 1)
    return {
        "longitudinal": longitudinal[:, 1:],
        "lateral": (speed * yaw_rate)[:, 2:],
        "jerk": acceleration.diff(dim=1).norm(dim=-1) / seconds,
        "longitudinal_jerk": longitudinal.diff(dim=1) / seconds,
        "yaw_rate": yaw_rate[:, 2:],
        "yaw_acceleration": (yaw_rate.diff(dim=1) / seconds)[:, 1:],
    }


def comfortable(
    poses: torch.Tensor, limits: ComfortLimits | None = None, seconds: float = FRAME_SECONDS
) -> torch.Tensor:
    """Whether all derivatives are within `limits` at each pose after the third: (b, t, 3) -> (b, t - 3)."""
    limits = limits or ComfortLimits()
    motion = ego_motion(poses, seconds)
    most = {
        "longitudinal": limits.max_longitudinal,
        "lateral": limits.max_lateral,
        "jerk": limits.max_jerk,
        "longitudinal_jerk": limits.max_longitudinal_jerk,
        "yaw_rate": limits.max_yaw_rate,
        "yaw_acceleration": limits.max_yaw_acceleration,
    }
    least = {**{name: -value for name, value in most.items()}, "longitudinal": limits.min_longitudinal}
    values = torch.stack([motion[name] for name in most], dim=-1)  # (b, t - 3, 6)
    low, high = (
        constant(tuple(bound[name] for name in most), values.device, values.dtype) for bound in (least, most)
    )
    return ((values >= low) & (values <= high)).all(dim=-1)
