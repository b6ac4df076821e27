"""Another mix of motor vehicles than the usual one: who drives is drawn anew, their ways stay."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from occsora_sim.scenes.amounts import MOTOR
from occsora_sim.scenes.demand import KINDS, run_traffic
from occsora_sim.scenes.dressing import dress
from occsora_sim.scenes.ego_motion import draw_egos
from occsora_sim.scenes.scene import Scene
from occsora_sim.scenes.town import TownConfig, sumo_version
from occsora_sim.scenes.town_folder import town_folder
from occsora_sim.scenes.traffic import Streets, lay_out, put_together, tracks_of

ATTRIBUTE = "mix"
"""Where a scene keeps the mix that it was made with: JSON, the shares by kind."""


def whole_mix(shares: Mapping[str, float]) -> dict[str, float]:
    """Shares of all kinds of motor vehicles, adding up to 1: the kinds that `shares` does not name divide what is left
    in their usual proportions.
    """
    usual = {kind: KINDS[kind].share for kind in MOTOR if kind not in shares}
    left = 1.0 - sum(shares.values())
    rest = {kind: left * share / sum(usual.values()) for kind, share in usual.items()}
    made = {kind: max(0.0, {**rest, **shares}[kind]) for kind in MOTOR}
    return {kind: share / sum(made.values()) for kind, share in made.items()}


def remix(streets: Streets, shares: Mapping[str, float], seed: int) -> Streets:
    """Draw the kind of each motor vehicle anew, in the route file too; the same seed draws the same.

    Args:
        streets: a town that `lay_out` wrote.
        shares: of motor vehicles by kind; see `whole_mix`.
        seed: of the town.

    """
    rng = np.random.default_rng([seed, 19])
    mix = whole_mix(shares)
    tree = ElementTree.parse(streets.demand)
    routes = {}
    for vehicle in tree.getroot().iter("vehicle"):
        name, (kind, variant) = vehicle.attrib["id"], vehicle.attrib["type"].split(".")
        route = streets.routes[name]
        if kind in MOTOR:
            drawn = MOTOR[rng.choice(len(MOTOR), p=list(mix.values()))]
            name = drawn + name.removeprefix(kind)
            vehicle.attrib |= {"id": name, "type": f"{drawn}.{variant}"}
        routes[name] = route
    tree.write(streets.demand)
    return replace(streets, routes=routes)


def make_mixed_town(seed: int, config: TownConfig, shares: Mapping[str, float]) -> Scene:
    """`traffic.make_town` with another mix of motor vehicles. Arguments and errors as there and of `remix`."""
    sumo_version()
    look, egos = (np.random.default_rng([seed, stream]) for stream in (2, 3))
    with town_folder() as folder:
        streets = remix(lay_out(seed, config, folder), shares, seed)
        recording = run_traffic(config, streets.net, streets.demand, streets.routes, seed)
    polygons, standing = dress(look, streets.network)
    tracks = tracks_of(recording, streets.sizes, standing, config)
    motions = draw_egos(egos, config, streets.network, recording, tracks, polygons)
    name = f"{'traffic' if config.plan == 'any' else config.plan}-{seed}"
    attributes = {ATTRIBUTE: json.dumps(dict(shares), sort_keys=True)}
    return put_together(name, seed, config, streets, polygons, tracks, motions, attributes)
