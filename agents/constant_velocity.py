"""The floor to beat: hold the speed, hold the wheel straight, see nothing."""

from __future__ import annotations

import numpy as np

from occsora_sim.agents.protocol import Observation


class ConstantVelocity:
    """Goes straight on at its present speed."""

    def reset(self, n: int) -> None:
        """Nothing to forget."""

    def act(self, observation: Observation) -> np.ndarray:
        """No acceleration, no steering: (n, 2) zeros."""
        return np.zeros((len(observation["ego"]), 2), dtype=np.float32)
