"""A plain function as an agent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from occsora_sim.agents.protocol import Observation
from occsora_sim.errors import ActionError


class FunctionAgent:
    """Drives with a function of one observation.

    Args:
        function: takes the observation of one episode (no batch axis) and returns its action: (a,) numbers, or
            the number of a manoeuvre. Numbers beyond [-1, 1] are clipped by the runner.
        action: the action space that it is made for.
        observation: what it wants to see.

    """

    def __init__(
        self,
        function: Callable[[dict[str, np.ndarray]], Any],
        *,
        action: str = "controls",
        observation: tuple[str, ...] = ("occupancy", "ego", "route"),
    ) -> None:
        self.function, self.action, self.observation = function, action, observation

    def reset(self, n: int) -> None:
        """Nothing to forget: a function of the observation has no memory."""

    def act(self, observation: Observation) -> np.ndarray:
        """The function's answers, row by row.

        Raises:
            ActionError: the rows' answers are not numbers of one shape.

        """
        count = len(next(iter(observation.values())))
        answers = [
            self.function({name: value[row] for name, value in observation.items()}) for row in range(count)
        ]
        name = getattr(self.function, "__name__", "the function")
        try:
            actions = np.array(answers, dtype=np.int64 if self.action == "manoeuvre" else np.float32)
        except (TypeError, ValueError) as error:
            raise ActionError(f"{name}: returned {answers[0]!r}; return the numbers of one action") from error
        if not np.isfinite(actions).all():
            raise ActionError(f"{name}: returned NaN or infinity; return finite numbers")
        return actions
