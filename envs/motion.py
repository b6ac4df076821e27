"""The ego's motion in the environment: from actions to trajectories, and the ego part of the observation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from occsora_sim.envs.manoeuvre import MANOEUVRES
from occsora_sim.errors import ActionError
from occsora_sim.geometry import compose, relative
from occsora_sim.grid import FRAME_SECONDS
from occsora_sim.scenes.start import Start
from occsora_sim.vehicle import Vehicle, hold_controls

MAX_LEFT = 2.0
"""Largest sideways offset of a frame in a trajectory action [m]."""

MAX_TURN = 1.0
"""Largest turn of a frame in a trajectory action [rad]."""

EGO_BOUNDS = np.array([30.0, 25.0, 10.0, 1.5], dtype=np.float32)
"""Bounds of the observed speed [m/s], acceleration [m/s2], yaw rate [rad/s] and steering [rad]."""


def check_actions(actions: object, rows: int, size: int, ignore: Sequence[int] = ()) -> np.ndarray:
    """Actions as float64 (rows, size) in [-1, 1]; the rows `ignore` may hold anything and become 0.

    Raises:
        ActionError: wrong shape, not finite, or outside the space by more than 1e-6.

    """
    values = _numbers(actions)
    if values.shape != (rows, size):
        raise ActionError(f"action: shape {values.shape}, expected {(rows, size)}; see action_space")
    values[list(ignore)] = 0.0
    bad = ~(np.isfinite(values) & (np.abs(values) <= 1 + 1e-6))
    if bad.any():
        row, column = np.argwhere(bad)[0]
        raise ActionError(
            f"action of environment {row}: value {values[row, column]} at index {column} must be a number in "
            "[-1, 1]; see action_space"
        )
    return np.clip(values, -1.0, 1.0)


def check_manoeuvres(actions: object, rows: int, ignore: Sequence[int] = ()) -> np.ndarray:
    """Manoeuvres as int64 (rows,); the rows `ignore` may hold anything and become 0, which stops.

    Raises:
        ActionError: wrong shape, or no manoeuvre has such a number.

    """
    values = _numbers(actions)
    if values.shape != (rows,):
        raise ActionError(f"action: shape {values.shape}, expected {(rows,)}; see action_space")
    values[list(ignore)] = 0.0
    bad = ~np.isin(values, np.arange(len(MANOEUVRES)))
    if bad.any():
        row = int(np.argmax(bad))
        names = ", ".join(f"{number}: {name}" for number, name in enumerate(MANOEUVRES))
        raise ActionError(
            f"action of environment {row}: {values[row]} is no manoeuvre; choose one of {names}"
        )
    return values.astype(np.int64)


def clamp_actions(actions: object, rows: int, size: int, device: torch.device) -> torch.Tensor:
    """Actions as (rows, size) float64 on the device, clamped to [-1, 1]; what is no number becomes 0.

    Raises:
        ActionError: wrong shape.

    """
    values = _tensor(actions, (rows, size), device).double()
    return values.nan_to_num(nan=0.0).clamp(-1.0, 1.0)


def clamp_manoeuvres(actions: object, rows: int, device: torch.device) -> torch.Tensor:
    """Manoeuvres as (rows,) int64 on the device, clamped to those that exist.

    Raises:
        ActionError: wrong shape.

    """
    values = _tensor(actions, (rows,), device)
    if values.is_floating_point():
        values = values.nan_to_num(nan=0.0)
    return values.clamp(0, len(MANOEUVRES) - 1).long()


def _tensor(actions: object, shape: tuple[int, ...], device: torch.device) -> torch.Tensor:
    values = actions if isinstance(actions, torch.Tensor) else torch.from_numpy(_numbers(actions))
    if values.shape != shape:
        raise ActionError(f"action: shape {tuple(values.shape)}, expected {shape}; see action_space")
    return values.detach().to(device)


def _numbers(actions: object) -> np.ndarray:
    try:
        return np.array(actions, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ActionError(f"action: {type(actions).__name__} is not an array of numbers") from error


def controls_to_trajectory(
    actions: torch.Tensor, speed: torch.Tensor, frames: int, vehicle: Vehicle
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Drive with constant controls.

    Args:
        actions: (b, 2) in [-1, 1]: acceleration (positive: of the largest; negative: of the hardest
            braking) and steering (positive: left).
        speed: (b,) [m/s].
        frames: how many.
        vehicle: limits.

    Returns:
        trajectory (b, f, 3), speed (b, f) [m/s] and steering (b,) [rad].

    """
    pull = actions[:, 0]
    acceleration = torch.where(pull >= 0, pull * vehicle.max_acceleration, -pull * vehicle.min_acceleration)
    steering = actions[:, 1] * vehicle.max_steering
    trajectory, speeds = hold_controls(vehicle, speed, acceleration, steering, frames)
    return trajectory, speeds, steering


def offsets_to_trajectory(
    actions: torch.Tensor, frames: int, vehicle: Vehicle
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A trajectory from normalised offsets.

    Args:
        actions: (b, f * 3) in [-1, 1]; per frame: forward (-1: stand; 1: top speed), left (of MAX_LEFT),
            turn (of MAX_TURN), each relative to the frame before.
        frames: how many.
        vehicle: limits.

    Returns:
        trajectory (b, f, 3), speed (b, f) [m/s] and the steering (b,) [rad] that the last turn amounts to.

    """
    offset = actions.unflatten(1, (frames, 3))
    forward = (offset[..., 0] + 1) / 2 * vehicle.max_speed * FRAME_SECONDS
    offset = torch.stack((forward, offset[..., 1] * MAX_LEFT, offset[..., 2] * MAX_TURN), dim=-1)
    pose, poses = torch.zeros_like(offset[:, 0]), []
    for frame in range(frames):
        pose = compose(pose, offset[:, frame])
        poses.append(pose)
    speed = offset[..., :2].norm(dim=-1) / FRAME_SECONDS
    return (
        torch.stack(poses, dim=1),
        speed,
        steering_of(offset[:, -1, 2], speed[:, -1] * FRAME_SECONDS, vehicle),
    )


def steering_of(turn: torch.Tensor, distance: torch.Tensor, vehicle: Vehicle) -> torch.Tensor:
    """The bicycle's steering (b,) [rad] that turns by `turn` (b,) [rad] in `distance` (b,) [m]; 0 at rest."""
    angle = torch.atan(vehicle.wheelbase * turn / distance.clamp(min=0.25))
    return torch.where(distance < 0.25, 0.0, angle.clamp(-vehicle.max_steering, vehicle.max_steering))


def starting_motion(starts: Sequence[Start], vehicle: Vehicle) -> torch.Tensor:
    """Speed, acceleration, yaw rate and steering (b, 4) at the start, from the poses of the history."""
    rows = []
    for start in starts:
        pose = start.ego_pose.double().cpu()
        if len(pose) < 2:
            rows.append(torch.zeros(4, dtype=torch.float64))
            continue
        offset = relative(pose[:-1], pose[1:])  # (t - 1, 3)
        mean = offset[:, 0].clamp(min=0.0) / FRAME_SECONDS  # mean speed of each frame
        acceleration = (mean[-1] - mean[-2]) / FRAME_SECONDS if len(mean) > 1 else torch.zeros_like(mean[-1])
        speed = (mean[-1] + 0.5 * acceleration * FRAME_SECONDS).clamp(0.0, vehicle.max_speed)
        turn = offset[-1, 2]
        steering = steering_of(turn[None], offset[-1:, 0].clamp(min=0.0), vehicle)[0]
        rows.append(torch.stack((speed, acceleration, turn / FRAME_SECONDS, steering)))
    return torch.stack(rows)
