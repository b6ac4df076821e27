"""What actions ask for: the way to go, whatever kind of action the environment takes."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from occsora_sim.envs.config import DriveConfig
from occsora_sim.envs.manoeuvre import manoeuvres_to_trajectory
from occsora_sim.envs.motion import controls_to_trajectory, offsets_to_trajectory
from occsora_sim.envs.state import DriveState


def plan(
    state: DriveState, actions: np.ndarray | Tensor, frames: int, config: DriveConfig
) -> tuple[Tensor, Tensor, Tensor]:
    """The trajectory prompt (b, f, 3), speed (b, f) [m/s] and the last steering (b,) [rad] that `actions` ask for."""
    speed, episodes = state.motion[:, 0], state.episodes
    action = torch.as_tensor(actions, device=state.frames.device)
    if config.action == "manoeuvre":
        here = episodes.poses[:, -1]
        return manoeuvres_to_trajectory(
            action.long(), episodes.routes, episodes.near, here, speed, frames, config.vehicle
        )
    if config.action == "controls":
        return controls_to_trajectory(action.double(), speed, frames, config.vehicle)
    return offsets_to_trajectory(action.double(), frames, config.vehicle)
