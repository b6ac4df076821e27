"""The picture of an episode under way."""

from __future__ import annotations

import numpy as np

from occsora_sim.envs.simulation import DriveSimulation
from occsora_sim.envs.state import DriveState
from occsora_sim.geometry import relative
from occsora_sim.grid import FRAME_SECONDS


def pictures_per_second(simulation: DriveSimulation) -> float:
    """How many pictures, one a step, show the episode at its own speed [1/s]; a whole number as an int."""
    rate = 1.0 / (simulation.frames * FRAME_SECONDS)
    return int(rate) if rate.is_integer() else rate


def render_row(simulation: DriveSimulation, state: DriveState, row: int) -> np.ndarray:
    """Bird's-eye picture (h, w, 3) uint8 of episode `row`, with its route and the way that it came."""
    from occsora_sim.rendering.birdseye import render_birdseye

    poses = state.episodes.poses[row].cpu()
    picture = render_birdseye(
        state.frames[row, -1].cpu().numpy(),
        route=simulation.route(state)[row].cpu().numpy(),
        history=relative(poses[-1:].expand_as(poses), poses).numpy(),
        grid=simulation.world.grid,
    )
    return picture.copy()  # one that may be drawn on
