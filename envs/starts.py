"""Where episodes begin: the shipped starting scenes, a file or folder, towns, or starts given as they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib import resources
from typing import Any

import numpy as np
import torch

from occsora_sim.envs.config import DriveConfig
from occsora_sim.errors import ConfigurationError
from occsora_sim.scene_prompt import ScenePrompt
from occsora_sim.scenes.blank import GENERATE, blank_start
from occsora_sim.scenes.offers import LEAST_FUTURE, WANTED_FUTURE
from occsora_sim.scenes.recorded import Recorded, with_egos
from occsora_sim.scenes.start import Start, sample_starts
from occsora_sim.worlds.protocol import World

HISTORY = 4
"""Frames of a start, unless the world asks for more by an attribute `history`."""


def shipped_scenes() -> str:
    """The folder of the starting scenes that come with the package."""
    return str(resources.files("occsora_sim.assets") / "scenes")


def open_starts(
    config: DriveConfig, world: World, *, replayed: bool | None = None, only: int | None = None
) -> list[Start]:
    """The starts that `config.scenes` means, made for the world's grid; "generate" means starts from nothing.

    Args:
        config: the options.
        world: that is driven.
        replayed: whether episodes end with their recording, so that starts shall have their length before them; None:
            as the world says.
        only: of scenes, make the start of this number alone.

    Raises:
        ConfigurationError: a list that is empty or holds something else than starts or scenes, or options that choose
            among recorded motions where none is recorded.
        SceneError: a file or folder that cannot be read, or scenes without a usable start.

    """
    given = shipped_scenes() if config.scenes is None else config.scenes
    history = max(HISTORY, getattr(world, "history", HISTORY))
    chooses = config.ego != "any" or config.least_future is not None
    if given == GENERATE:
        if chooses:
            raise ConfigurationError(
                f"ego and least_future: {GENERATE!r} begins from nothing, not in a recording"
            )
        generator = np.random.default_rng(config.seed or 0)
        return [blank_start(generator, world.grid, history) for _ in range(config.starts)]
    paths = (given,) if isinstance(given, str) else given
    if len(paths) and all(isinstance(path, str) for path in paths):
        from occsora_sim.scenes.source import open_scenes

        given = [scene for path in paths for scene in open_scenes(path)]
    starts = [item for item in given if isinstance(item, Start)]
    scenes = [item for item in given if isinstance(item, Recorded)]
    if not len(given) or len(starts) + len(scenes) != len(given) or (starts and scenes):
        raise ConfigurationError(
            "scenes: expected None, a path, `traffic:A-B`, `generate`, or a list of paths, of Start or of Scene; "
            f"got {_kinds(given)}"
        )
    if starts:  # the user's own arrays, which may be filled anew while episodes begin here
        if chooses:
            raise ConfigurationError(
                "ego and least_future: the starts were given as they are; give scenes instead"
            )
        return [_owned(start) for start in starts]
    if config.least_future is not None:
        future = least = config.least_future
    else:  # a world that goes on by itself needs no more than a route
        ends = hasattr(world, "seconds_left") if replayed is None else replayed
        future, least = config.seconds if ends else min(config.seconds, WANTED_FUTURE), LEAST_FUTURE
    return sample_starts(
        [with_egos(scene, config.ego) for scene in scenes],
        config.starts,
        config.seed or 0,
        history,
        world.grid,
        future=future,
        least_future=least,
        only=only,
    )


def prompted(
    starts: Sequence[Start], config: DriveConfig, world: World, options: Mapping[str, Any] | None = None
) -> list[Start]:
    """The starts with the scene prompt of an episode: "place" and "vehicles" of `reset`'s options, where these say
    nothing the environment's, and where it is open each start's own.

    Raises:
        ConfigurationError: no such place or an impossible number, or a world that takes no scene prompt.

    """
    said = {name: (options or {}).get(name, getattr(config, name)) for name in ("place", "vehicles")}
    asked = ScenePrompt(**said)
    if asked == ScenePrompt():
        return list(starts)
    if not getattr(world, "takes_scene_prompts", False):
        raise ConfigurationError(
            "place and vehicles: this world takes no scene prompt; give the generated one, or leave both open"
        )
    return [
        replace(
            start,
            prompt=ScenePrompt(
                place=start.prompt.place if asked.place is None else asked.place,
                vehicles=start.prompt.vehicles if asked.vehicles is None else asked.vehicles,
            ),
        )
        for start in starts
    ]


def _owned(start: Start) -> Start:
    """The start with arrays that nobody else writes into."""
    occupancy, pose, route = (
        torch.as_tensor(array).clone() for array in (start.occupancy, start.ego_pose, start.route)
    )
    return replace(start, occupancy=occupancy, ego_pose=pose, route=route)


def _kinds(given: Sequence[object]) -> str:
    return ", ".join(sorted({type(item).__name__ for item in given})) or "an empty list"
