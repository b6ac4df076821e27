"""How the rows of a vector environment draw their beginnings: each from a generator of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from gymnasium.utils import seeding

from occsora_sim.envs.casting import Cast
from occsora_sim.envs.road_user_edit import RoadUserEdit
from occsora_sim.envs.simulation import DriveSimulation


class Beginnings:
    """The generators of `count` rows. None draws a start twice before it has drawn all.

    Args:
        simulation: that is begun.
        count: of rows.

    """

    def __init__(self, simulation: DriveSimulation, count: int) -> None:
        self.simulation, self.count = simulation, count
        self.generators: list[np.random.Generator] | None = None
        self._drawn: list[set[int]] = [set() for _ in range(count)]  # starts of each row's present pass
        self._prompts: list[Mapping[str, Any]] = [{}] * count  # as `reset` was given them

    def seed(self, rows: Sequence[int], seeds: Sequence[int | None], fresh: np.random.Generator) -> None:
        """Seed the generators of `rows` that `seeds` (of all rows) has a seed for; where there are none yet, all are
        made from `fresh` first.
        """
        if self.generators is None:
            drawn = fresh.integers(1 << 31, size=self.count)
            self.generators = [seeding.np_random(int(value))[0] for value in drawn]
        for row in rows:
            if seeds[row] is not None:
                self.generators[row] = seeding.np_random(seeds[row])[0]
                self._drawn[row].clear()

    def prompt(self, rows: Sequence[int], prompt: Mapping[str, Any]) -> None:
        """Let the next and all later episodes of `rows` be told this scene prompt."""
        for row in rows:
            self._prompts[row] = prompt

    def draw(
        self,
        rows: Sequence[int],
        chosen: Sequence[int | str] | None = None,
        edits: Sequence[RoadUserEdit] = (),
    ) -> Cast:
        """Beginnings for `rows`, at the starts `chosen` if they are given, with the road users edited."""
        generators = self.generators or []
        return self.simulation.casting.draw(
            [generators[row] for row in rows],
            chosen,
            [self._prompts[row] for row in rows],
            [self._drawn[row] for row in rows],
            edits,
        )

    def draw_pool(self, size: int) -> Cast:
        """`size` beginnings for whichever row comes first, told the first row's prompt; no start twice before all."""
        assert self.generators is not None
        generator = np.random.default_rng(int(self.generators[0].integers(1 << 62)))
        drawn: set[int] = set()
        return self.simulation.casting.draw(
            [generator] * size, None, [self._prompts[0]] * size, [drawn] * size
        )
