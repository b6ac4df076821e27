"""Where episodes begin: the shipped starting scenes, a file or folder, towns, or starts given as they are."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources

import numpy as np

from occsora_sim.envs.config import DriveConfig
from occsora_sim.errors import ConfigurationError
from occsora_sim.scenes.blank import GENERATE, blank_start
from occsora_sim.scenes.recorded import Recorded
from occsora_sim.scenes.start import Start, sample_starts
from occsora_sim.worlds.protocol import World

HISTORY = 4
"""Frames of a start, unless the world asks for more by an attribute `history`."""


def shipped_scenes() -> str:
    """The folder of the starting scenes that come with the package."""
    return str(resources.files("occsora_sim.assets") / "scenes")


def open_starts(config: DriveConfig, world: World) -> list[Start]:
    """The starts that `config.scenes` means, made for the world's grid; "generate" means starts from nothing.

    Raises:
        ConfigurationError: a list that is empty or holds something else than starts or scenes.
        SceneError: a file or folder that cannot be read, or scenes without a usable start.

    """
    given = shipped_scenes() if config.scenes is None else config.scenes
    history = max(HISTORY, getattr(world, "history", HISTORY))
    if given == GENERATE:
        generator = np.random.default_rng(config.seed or 0)
        return [blank_start(generator, world.grid, history) for _ in range(config.starts)]
    if isinstance(given, str):
        from occsora_sim.scenes.source import open_scenes

        given = list(open_scenes(given))
    starts = [item for item in given if isinstance(item, Start)]
    scenes = [item for item in given if isinstance(item, Recorded)]
    if not len(given) or len(starts) + len(scenes) != len(given) or (starts and scenes):
        raise ConfigurationError(
            "scenes: expected None, a path, `traffic:A-B`, `generate`, a list of Start or a list of Scene; "
            f"got {_kinds(given)}"
        )
    if starts:
        return starts
    return sample_starts(scenes, config.starts, config.seed or 0, history, world.grid)


def _kinds(given: Sequence[object]) -> str:
    return ", ".join(sorted({type(item).__name__ for item in given})) or "an empty list"
