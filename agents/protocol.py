"""What an agent is: batched observations in, batched actions out."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np

from occsora_sim.envs.imagination import Imagine

Observation = dict[str, np.ndarray]
"""By default occupancy (n, f, x, y, z) uint8, ego (n, 4) float32, route (n, 20, 2) float32; see `envs.spaces`."""


class Agent(Protocol):
    """Drives n episodes at once.

    It may say by attributes `action` and `observation` which options of the environment it is made for
    (`DriveConfig`); without them it is made for the defaults.
    """

    def reset(self, n: int) -> None:
        """Forget everything: n new episodes begin."""
        ...

    def act(self, observation: Observation) -> np.ndarray:
        """Actions (n, a) float32 in [-1, 1], or (n,) manoeuvres, for a batch of observations."""
        ...


@runtime_checkable
class ImaginingAgent(Protocol):
    """Drives n episodes at once, and is handed a function that says what its plans would bring."""

    def reset(self, n: int) -> None:
        """Forget everything: n new episodes begin."""
        ...

    def plan(self, observation: Observation, imagine: Imagine) -> np.ndarray:
        """Actions as `Agent.act` gives them; `imagine` scores any number of plans, all in one batch."""
        ...


AnyAgent = Agent | ImaginingAgent


def wanted_options(agent: AnyAgent) -> dict[str, object]:
    """The options of the environment that the agent is made for, as far as it names them."""
    return {name: getattr(agent, name) for name in ("action", "observation") if hasattr(agent, name)}
