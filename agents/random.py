"""The other floor: an agent that acts at random."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np

from occsora_sim.agents.protocol import Observation


@dataclass(kw_only=True)
class RandomAgent:
    """Draws every action evenly from the action space.

    What it draws depends on the seed, on the number of the step and on what the row observes, never on its
    neighbours: an episode is the same alone and in a batch.

    Attributes:
        seed: of all that it draws.
        size: numbers in an action.

    """

    seed: int = 0
    size: int = 2
    _step: int = 0

    def reset(self, n: int) -> None:
        """Count the steps anew."""
        self._step = 0

    def act(self, observation: Observation) -> np.ndarray:
        """Actions (n, size) float32, even in [-1, 1]."""
        self._step += 1
        drawn = [
            np.random.default_rng((self.seed, self._step, zlib.crc32(np.ascontiguousarray(ego).tobytes())))
            for ego in observation["ego"]
        ]
        return np.stack([generator.uniform(-1.0, 1.0, self.size) for generator in drawn]).astype(np.float32)
