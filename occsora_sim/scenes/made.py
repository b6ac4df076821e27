"""Scenes that are made from a seed: the usual towns, other kinds of place, and scenarios."""

from __future__ import annotations

import re
from dataclasses import replace

from occsora_sim.errors import ConfigurationError, SceneError
from occsora_sim.scenes.amounts import read_amounts
from occsora_sim.scenes.scenario import SCENARIOS
from occsora_sim.scenes.scene import Scene
from occsora_sim.scenes.town import PLACES, TownConfig

USUAL = "traffic"
"""The kind that training and evaluation mean: towns of the default configuration."""

KINDS: tuple[str, ...] = (USUAL, *PLACES, *(f"scenario:{name}" for name in SCENARIOS))
"""What a spec can begin with."""

FORMS: tuple[str, ...] = (
    f"{USUAL}:A-B or {USUAL}:A (towns of seeds A to B)",
    f"{' or '.join(PLACES)}:A-B (places of one kind)",
    f"scenario:NAME:A-B (NAME: {', '.join(SCENARIOS)})",
    "towns and places with ,density=2,truck=0.3... behind (see docs/scenes.md)",
)
"""How specs look, for messages."""

_SPEC = re.compile(r"([a-z]+(?::[a-z_]+)?):(\d+)(?:-(\d+))?")


def is_made(spec: str) -> bool:
    """Whether `spec` asks for scenes that are made, rightly or not."""
    return spec.partition(":")[0] in (USUAL, *PLACES, "scenario") and ":" in spec


def parse(spec: str) -> tuple[str, range]:
    """The kind and the seeds of a spec: "traffic:0-7", "motorway:3", "scenario:jaywalker:0-3".

    Amounts of traffic become part of the kind: of "arterial:0-7,truck=0.3,density=2" it is
    "arterial,density=2,truck=0.3".

    Raises:
        SceneError: it cannot be read.

    """
    head, *parts = spec.split(",")
    match = _SPEC.fullmatch(head)
    if match is None or match[1] not in KINDS or int(match[3] or match[2]) < int(match[2]):
        kind = next((kind for kind in KINDS if spec.startswith(f"{kind}:")), None)
        what = f"{kind}:A-B with seeds A <= B, or {kind}:A" if kind else FORMS[2]
        raise SceneError(f"scenes {spec!r}: give {what}")
    kind, seeds = match[1], range(int(match[2]), int(match[3] or match[2]) + 1)
    if parts and kind.startswith("scenario:"):
        raise SceneError(f"scenes {spec!r}: a scenario brings its own traffic; leave out {','.join(parts)!r}")
    try:
        amounts = str(read_amounts(parts))
    except ConfigurationError as error:
        raise SceneError(f"scenes {spec!r}: {error}") from error
    return f"{kind},{amounts}" if amounts else kind, seeds


def make(kind: str, seed: int) -> Scene:
    """The scene of a kind (as `parse` gives it) and a seed.

    Raises:
        MissingDependencyError: SUMO is not installed.
        SceneError: SUMO refused it, or the scenario does not come off.

    """
    if kind.startswith("scenario:"):
        from occsora_sim.scenes.scenario import make_scenario

        return make_scenario(kind.partition(":")[2], seed)
    from occsora_sim.scenes.traffic import make_town

    place, _, text = kind.partition(",")
    if not text:
        return make_town(seed) if kind == USUAL else make_town(seed, PLACES[kind])
    amounts = read_amounts(text.split(","))
    config = amounts.applied_to(PLACES.get(place, TownConfig()))
    if amounts.mix:
        from occsora_sim.scenes.mix import make_mixed_town

        town = make_mixed_town(seed, config, dict(amounts.mix))
    else:
        town = make_town(seed, config)
    return replace(town, name=f"{town.name}-{text.replace('=', '').replace(',', '-')}")
