"""The spaces of the driving environment."""

from __future__ import annotations

import numpy as np
from gymnasium import spaces

from occsora_sim.envs import road_users
from occsora_sim.envs.birdseye import aligned_size, birdseye_channels
from occsora_sim.envs.manoeuvre import MANOEUVRES
from occsora_sim.envs.motion import EGO_BOUNDS
from occsora_sim.envs.observation import ROUTE_BOUND, ROUTE_POINTS
from occsora_sim.envs.road_users import road_users_space
from occsora_sim.envs.simulation import DriveSimulation
from occsora_sim.grid import FREE

BOUNDS = {"ego": EGO_BOUNDS, "route": np.float32(ROUTE_BOUND), "road_users": road_users.BOUNDS}
"""The largest values of what is observed in numbers, [m], [s], [rad]."""


def action_space(simulation: DriveSimulation) -> spaces.Box | spaces.Discrete:
    """Normalised actions: (2,) controls, or (f * 3,) offsets; or a manoeuvre by its number."""
    if simulation.config.action == "manoeuvre":
        return spaces.Discrete(len(MANOEUVRES))
    return spaces.Box(-1.0, 1.0, (simulation.action_size,), np.float32)


def observation_space(simulation: DriveSimulation) -> spaces.Dict:
    """What an agent sees: those of these that `observation` names.

    occupancy (f, x, y, z) uint8 labels; birdseye (4 f + 1, x, y) uint8, 0 or 255, see `envs.birdseye`, with
    birdseye="aligned" (4 f + 1, 100, 100) on the grid of 200 x 200 voxels of 0.4 m; ego (4,):
    speed [m/s], acceleration [m/s2], yaw rate [rad/s], steering [rad]; route (20, 2) [m]: points ahead every 2 m,
    in the ego frame, held at the goal; road_users (n, 10), nearest first, in the ego frame: valid, x, y [m], cos and
    sin of the yaw, velocity over the ground along x and y [m/s], length, width [m], class label.
    """
    frames, grid = simulation.frames, simulation.world.grid
    shape = grid.shape
    pixels = aligned_size(grid) if simulation.config.birdseye == "aligned" else shape[:2]
    parts: dict[str, spaces.Space] = {
        "occupancy": spaces.Box(0, FREE, (frames, *shape), np.uint8),
        "birdseye": spaces.Box(0, 255, (birdseye_channels(frames), *pixels), np.uint8),
        "ego": spaces.Box(-EGO_BOUNDS, EGO_BOUNDS, dtype=np.float32),
        "route": spaces.Box(-ROUTE_BOUND, ROUTE_BOUND, (ROUTE_POINTS, 2), np.float32),
        "road_users": road_users_space(simulation.config.road_users),
    }
    return spaces.Dict({name: parts[name] for name in simulation.config.observation})
