"""What an agent sees, as tensors on the world's device."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from occsora_sim.constants import constant
from occsora_sim.envs.birdseye import aligned_image, birdseye_image
from occsora_sim.envs.config import DriveConfig
from occsora_sim.envs.motion import EGO_BOUNDS
from occsora_sim.envs.road_users import observe_road_users
from occsora_sim.envs.state import DriveState
from occsora_sim.grid import Grid

ROUTE_POINTS, ROUTE_SPACING, ROUTE_BOUND = 20, 2.0, 200.0
"""The observed route: points, distance between them [m], largest coordinate [m]."""


def look(state: DriveState, config: DriveConfig, grid: Grid) -> tuple[dict[str, Tensor], Tensor | None]:
    """The observation, each part with the batch axis first, and the ids (b, n) of the road users that are observed, if
    they are. The occupancy is the state's own memory.
    """
    parts: dict[str, Tensor] = {}
    ids = None
    route = route_ahead(state)
    for name in config.observation:
        if name == "occupancy":
            parts[name] = state.frames
        elif name == "birdseye" and config.birdseye == "aligned":
            parts[name] = aligned_image(state.frames, state.poses, route, grid)
        elif name == "birdseye":
            parts[name] = birdseye_image(state.frames, route, grid)
        elif name == "ego":
            bounds = constant(tuple(EGO_BOUNDS.tolist()), route.device)
            parts[name] = state.motion.float().clamp(-bounds, bounds)
        elif name == "road_users":
            parts[name], ids = observe_road_users(state.world.users, state.poses[:, -1], config.road_users)
        else:
            parts[name] = route.float().clamp(-ROUTE_BOUND, ROUTE_BOUND)
    return parts, ids


def route_ahead(state: DriveState) -> Tensor:
    """The route ahead (b, 20, 2) [m], in the ego frame."""
    episodes = state.episodes
    return episodes.routes.ahead(episodes.poses[:, -1], episodes.near, ROUTE_POINTS, ROUTE_SPACING)


def own_copy(tensor: torch.Tensor) -> np.ndarray:
    """A NumPy copy that shares no memory with the state."""
    return tensor.cpu().numpy().copy()
