"""Which starts episodes begin at, and with what seeds and scene prompts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from occsora_sim.envs.config import DriveConfig
from occsora_sim.envs.road_user_edit import RoadUserEdit
from occsora_sim.envs.scene_edit import edit_start
from occsora_sim.envs.starts import prompted
from occsora_sim.errors import ConfigurationError
from occsora_sim.scenes.blank import GENERATE, blank_start
from occsora_sim.scenes.start import Start, draw_new
from occsora_sim.worlds.protocol import World

SEEN = 4
"""Frames that a state remembers at least: what a generated world needs to begin from what was seen."""

Cast = tuple[list[Start], list[int], list[int]]
"""Starts that know their scene prompts, seeds of their worlds, and the starts' numbers."""


class Casting:
    """Draws beginnings.

    Args:
        config: the options.
        world: that is driven.
        starts: where episodes may begin.

    """

    def __init__(self, config: DriveConfig, world: World, starts: Sequence[Start]) -> None:
        self.config, self.world, self.starts = config, world, tuple(starts)
        prompted(self.starts[:1], config, world)  # says now whether the world takes the scene prompt
        self._numbers = {id(start): number for number, start in reversed(list(enumerate(self.starts)))}

    def draw(
        self,
        generators: Sequence[np.random.Generator],
        chosen: Sequence[int | str] | None = None,
        prompts: Sequence[Mapping[str, Any]] | None = None,
        drawn: Sequence[set[int]] | None = None,
        edits: Sequence[RoadUserEdit] = (),
    ) -> Cast:
        """A start and a seed from each generator.

        Args:
            generators: one for each episode.
            chosen: overrides the starts: indices, or "generate" for a start from nothing (`scenes.blank`).
            prompts: for each episode "place" and "vehicles" that it is given instead of the configuration's.
            drawn: of each generator the starts that it has drawn and shall not draw again before all were drawn;
                what is drawn now is added. Those that are chosen do not count.
            edits: what shall become of road users at each of the starts.

        Raises:
            ConfigurationError: `chosen` names no start, or is not one for each, or a scene prompt or an edit cannot be.

        """
        before = [set() for _ in generators] if drawn is None or chosen is not None else drawn
        picks: list[int | str] = [
            draw_new(generator, len(self.starts), done)
            for generator, done in zip(generators, before, strict=True)
        ]
        seeds = [int(generator.integers(1 << 31)) for generator in generators]
        if chosen is not None:
            picks = list(chosen)
            if len(picks) != len(generators) or not all(self._is_start(pick) for pick in picks):
                raise ConfigurationError(
                    f"start={picks}: give an index from 0 to {len(self.starts) - 1} or {GENERATE!r} for each of "
                    f"{len(generators)} episodes"
                )
        starts = [
            blank_start(generator, self.world.grid, SEEN) if pick == GENERATE else self.starts[int(pick)]
            for generator, pick in zip(generators, picks, strict=True)
        ]
        numbers = [self._numbers.get(id(start), -1) for start in starts]
        if edits:
            vehicle = self.config.vehicle
            edited = {id(one): edit_start(one, edits, self.world.grid, vehicle) for one in starts}
            starts = [edited[id(one)] for one in starts]
        said = [{}] * len(starts) if prompts is None else prompts
        told = [
            prompted([start], self.config, self.world, prompt)[0]
            for start, prompt in zip(starts, said, strict=True)
        ]
        return told, seeds, numbers

    def _is_start(self, pick: object) -> bool:
        if isinstance(pick, str):
            return pick == GENERATE
        return isinstance(pick, int | np.integer) and 0 <= int(pick) < len(self.starts)
