"""A ladder of skill: drivers with one thing wrong each, to see whether a world tells good from bad.

Beside the agents that mean to drive well they span the scores from 0 to the rules' own.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from occsora_sim.agents.protocol import Agent, Observation
from occsora_sim.agents.route_follower import RouteFollower, RouteFollowerConfig


@dataclass(kw_only=True)
class FixedControls:
    """The same controls at every step, whatever is seen.

    Attributes:
        acceleration: of the largest (or, negative, of the hardest braking), in [-1, 1].
        steering: of the largest, in [-1, 1].

    """

    acceleration: float
    steering: float = 0.0

    def reset(self, n: int) -> None:
        """Nothing to forget."""

    def act(self, observation: Observation) -> np.ndarray:
        """Controls (n, 2) float32."""
        return np.tile(np.array((self.acceleration, self.steering), np.float32), (len(observation["ego"]), 1))


class BlindFollower(RouteFollower):
    """The route follower with its eyes on the route alone: it slows for curves and brakes for nobody."""

    def _leader(
        self, occupancy: np.ndarray, path: np.ndarray, arc: np.ndarray, speed: float
    ) -> tuple[float, float]:
        """Nothing is ever in the way."""
        return np.inf, 0.0


@dataclass(kw_only=True)
class Late:
    """Another agent's actions one decision late; the first decision is to coast."""

    agent: Agent = field(default_factory=RouteFollower)
    _last: np.ndarray | None = None

    def reset(self, n: int) -> None:
        """Begin with coasting."""
        self.agent.reset(n)
        self._last = np.zeros((n, 2), dtype=np.float32)

    def act(self, observation: Observation) -> np.ndarray:
        """What the agent wanted a decision ago, (n, 2)."""
        wanted = self.agent.act(observation)
        late = np.zeros_like(wanted) if self._last is None else self._last
        self._last = wanted
        return late


@dataclass(kw_only=True)
class Shaky:
    """Another agent's actions with a trembling hand: even noise on the steering.

    What is drawn depends on the seed, the number of the step and what the row observes, as for `RandomAgent`.

    Attributes:
        agent: whose actions.
        amplitude: largest error of the steering, of the largest steering.
        seed: of the noise.

    """

    agent: Agent = field(default_factory=RouteFollower)
    amplitude: float = 0.25
    seed: int = 0
    _step: int = 0

    def reset(self, n: int) -> None:
        """Count the steps anew."""
        self.agent.reset(n)
        self._step = 0

    def act(self, observation: Observation) -> np.ndarray:
        """Controls (n, 2) in [-1, 1]."""
        self._step += 1
        actions = self.agent.act(observation).copy()
        for row, ego in enumerate(observation["ego"]):
            key = (self.seed, self._step, zlib.crc32(np.ascontiguousarray(ego).tobytes()))
            actions[row, 1] += np.random.default_rng(key).uniform(-self.amplitude, self.amplitude)
        return np.clip(actions, -1.0, 1.0)


def _follower(**options: float) -> Callable[[], Agent]:
    return lambda: RouteFollower(config=RouteFollowerConfig(**options))


CRIPPLED: dict[str, Callable[[], Agent]] = {
    "full-throttle": lambda: FixedControls(acceleration=1.0),
    "standstill": lambda: FixedControls(acceleration=-0.4),
    "crawling-follower": _follower(speed=1.5),
    "slow-follower": _follower(speed=4.5),
    "fast-follower": _follower(speed=15.0, lateral=5.0, headway=0.7),
    "blind-follower": BlindFollower,
    "late-follower": Late,
    "shaky-follower": Shaky,
}
"""Drivers with one thing wrong each, by name."""

LADDER: tuple[str, ...] = (
    "random", "constant-velocity", "full-throttle", "standstill", "crawling-follower", "slow-follower",
    "fast-follower", "blind-follower", "late-follower", "shaky-follower", "idm", "route-follower",
)  # fmt: skip
"""The policies that `evaluate transfer` compares unless told otherwise."""
