"""A start from nothing: no frame was seen; a motion and a way to go, drawn from a seed, are all there is."""

from __future__ import annotations

import math

import numpy as np
import torch

from occsora_sim.grid import FRAME_SECONDS, OCC3D, Grid
from occsora_sim.scenes.start import Start

GENERATE = "generate"
"""Names such starts where scenes are asked for."""

_SPEED = (4.0, 10.0)  # [m/s]
_STRAIGHT = (25.0, 110.0)  # between two bends [m]
_RADIUS = (14.0, 60.0)  # of a bend [m]
_TURN = (0.2, 1.6)  # of a bend [rad]


def blank_start(
    generator: np.random.Generator, grid: Grid = OCC3D, history: int = 4, length: float = 700.0
) -> Start:
    """A car under way at 4 to 10 m/s on a route of straights and bends; its `occupancy` holds no frame.

    A generated world draws the first frames from the trajectory prompt alone, as OccSora does (Wang et al. 2024).

    Args:
        generator: of the speed and the route.
        grid: the voxels around the ego.
        history: known poses, FRAME_SECONDS apart, that end at the origin of the world.
        length: of the way to go, at least [m].

    """
    speed = generator.uniform(*_SPEED)
    pose = torch.zeros(history, 3)
    pose[:, 0] = speed * FRAME_SECONDS * torch.arange(1 - history, 1)
    return Start(
        occupancy=torch.zeros((0, *grid.shape), dtype=torch.uint8),
        ego_pose=pose,
        route=torch.from_numpy(_route(generator, length)),
        name=f"nothing at {speed:.1f} m/s",
    )


def _route(generator: np.random.Generator, length: float) -> np.ndarray:
    """A polyline (r, 2) float32 [m], a point a metre, from 40 m behind the origin, straight until 40 m ahead of it."""
    curvature = [np.zeros(80)]
    while sum(map(len, curvature)) < length:
        radius, turn = generator.uniform(*_RADIUS), generator.uniform(*_TURN)
        side = generator.choice((-1.0, 1.0))
        curvature.append(np.full(max(1, math.ceil(radius * turn)), side / radius))
        curvature.append(np.zeros(int(generator.uniform(*_STRAIGHT))))
    yaw = np.cumsum(np.concatenate(curvature))
    steps = np.stack((np.cos(yaw), np.sin(yaw)), axis=-1)
    points = np.concatenate((np.zeros((1, 2)), np.cumsum(steps, axis=0))) - (40.0, 0.0)
    return points.astype(np.float32)
