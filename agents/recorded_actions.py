"""Repeats the actions of a recorded drive, whatever it meets."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from occsora_sim.agents.protocol import Observation
from occsora_sim.errors import ConfigurationError
from occsora_sim.rendering.rollout import load_rollout


class RecordedActions:
    """The actions of a rollout, one after another, and then none: it keeps its speed and goes straight on.

    Args:
        path: of a rollout.npz of an agent that acts by acceleration and steering.

    Raises:
        ConfigurationError: its actions are others, or there are none.
        SceneError: no rollout.

    """

    def __init__(self, path: Path) -> None:
        self._actions = load_rollout(path).actions
        if self._actions.ndim != 2 or self._actions.shape[1] != 2 or not len(self._actions):
            raise ConfigurationError(
                f"agent {path}: its actions have the shape {self._actions.shape}, not (steps, 2); give the rollout of "
                "an agent that acts by acceleration and steering"
            )

    def reset(self, n: int) -> None:
        """Begin from the first one."""
        self._next = 0

    def act(self, observation: Observation) -> np.ndarray:
        """The next action, (n, 2) float32, the same for all episodes."""
        found = self._actions[self._next] if self._next < len(self._actions) else np.zeros(2, np.float32)
        self._next += 1
        return np.tile(found, (len(observation["ego"]), 1))
