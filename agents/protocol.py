"""What an agent is: batched observations in, batched actions out."""

from __future__ import annotations

from typing import Protocol

import numpy as np

Observation = dict[str, np.ndarray]
"""occupancy (n, f, x, y, z) uint8, ego (n, 4) float32, route (n, 20, 2) float32; see `envs.spaces`."""


class Agent(Protocol):
    """Drives n episodes at once."""

    def reset(self, n: int) -> None:
        """Forget everything: n new episodes begin."""
        ...

    def act(self, observation: Observation) -> np.ndarray:
        """Actions (n, a) float32 in [-1, 1] for a batch of observations."""
        ...
