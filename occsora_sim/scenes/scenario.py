"""Rare things, each by its name and a seed: a town in which one of them happens to one ego."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from occsora_sim.errors import ConfigurationError, SceneError
from occsora_sim.scenes.drafts import AFTER, BEFORE, DRAFTS, Draft, played
from occsora_sim.scenes.dressing import dress
from occsora_sim.scenes.ego_motion import follow, hits
from occsora_sim.scenes.scene import Scene
from occsora_sim.scenes.stage import Film, film
from occsora_sim.scenes.sumo_pool import Worker
from occsora_sim.scenes.town import PLACES, TownConfig
from occsora_sim.scenes.town_folder import town_folder
from occsora_sim.scenes.traffic import lay_out, put_together, tracks_of

HELD_OUT = 800_000
"""Town seeds from here on are for testing alone; a scenario of such a seed uses such towns, the others never do."""

_TRIES, _TOWNS = 8, 6  # drafts for each town, towns for each seed


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """A rare thing: what happens, and in what kind of place."""

    story: str
    place: TownConfig


def _short(place: str) -> TownConfig:
    return replace(PLACES[place], warm_up=20.0, duration=40.0, egos=1)


SCENARIOS: dict[str, Scenario] = {
    "construction_site": Scenario(
        story="works close the right lane of a wide road", place=_short("arterial")
    ),
    "cut_in": Scenario(story="a car from the lane beside moves in close ahead", place=_short("arterial")),
    "hard_braking": Scenario(story="the car ahead brakes hard to a stop", place=_short("grid")),
    "jaywalker": Scenario(story="a pedestrian crosses where there is no crossing", place=_short("organic")),
    "red_light_runner": Scenario(story="a car crosses at a red light", place=_short("arterial")),
}
"""The scenarios by name."""


def make_scenario(name: str, seed: int) -> Scene:
    """The scene of a scenario. Its one ego motion is a recorded driver's, from 8 s before the moment to 8.5 s after.

    The same name, seed and SUMO version give the same scene, bit for bit. In the live world the others act when
    the ego comes near (or at the moment, where it is their own decision).

    Raises:
        ConfigurationError: there is no such scenario.
        MissingDependencyError: SUMO or libsumo is not installed.
        SceneError: it does not come off in any town of the seed.

    """
    if name not in SCENARIOS:
        raise ConfigurationError(f"scenario {name!r} is unknown; choose one of {', '.join(SCENARIOS)}")
    place = SCENARIOS[name].place
    worker = Worker()
    try:
        for town in itertools.islice(_towns(seed), _TOWNS):
            with town_folder() as folder:
                scene = _stage(worker, name, seed, town, place, folder)
            if scene is not None:
                return scene
    finally:
        worker.close()
    raise SceneError(f"scenario {name}: it does not come off with seed {seed}; try another seed")


def _towns(seed: int) -> Iterator[int]:
    """The seed itself, then seeds drawn from it, on the same side of HELD_OUT."""
    yield seed
    rng = np.random.default_rng([seed, 17])
    while True:
        low, high = (HELD_OUT, 2**31) if seed >= HELD_OUT else (0, HELD_OUT // 2)
        yield int(rng.integers(low, high))


def _stage(worker: Worker, name: str, seed: int, town: int, place: TownConfig, folder: Path) -> Scene | None:
    """The scenario in one town, or None if it does not come off there."""
    rng, look = np.random.default_rng([seed, 18]), np.random.default_rng([town, 2])
    streets = lay_out(town, place, folder)
    usual = film(worker, town, place, streets, (), [])
    for draft in itertools.islice(DRAFTS[name](usual, rng), _TRIES):
        made = film(worker, town, place, streets, draft.events, list(draft.standing))
        found = played(name, made, draft)
        when = _span(made, found)
        if found is None or when is None:
            continue
        ego = made.recording.names.index(found[0])
        if hits(made.tracks, ego)[when].any():
            continue  # the recorded driver does not manage it either
        polygons, standing = dress(look, streets.network)
        tracks = tracks_of(made.recording, streets.sizes, [*standing, *draft.standing], place)
        motions = follow(streets.network, made.recording, tracks, ego, when)
        attributes = {
            "scenario": name,
            "scenario_seed": str(seed),
            "moment": f"{found[1]:.1f}",
            "events": json.dumps(draft.events, sort_keys=True),
        }
        return put_together(f"{name}-{seed}", town, place, streets, polygons, tracks, motions, attributes)
    return None


def _span(made: Film, found: tuple[str, float] | None) -> np.ndarray | None:
    """The steps (T,) bool of the ego motion about its moment; None if the vehicle is not there all the time."""
    if found is None:
        return None
    time = np.arange(made.valid.shape[1]) * made.config.dt
    when = (time >= found[1] - BEFORE) & (time <= found[1] + AFTER)
    there = made.valid[made.recording.names.index(found[0])]
    return (
        when if time[0] <= found[1] - BEFORE and time[-1] >= found[1] + AFTER and there[when].all() else None
    )


__all__ = ["HELD_OUT", "SCENARIOS", "Draft", "Scenario", "make_scenario"]
