"""A town brought back to life: the files that SUMO needs, rebuilt from the seed and the configuration of its scene."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from occsora_sim.errors import ConfigurationError, SceneError
from occsora_sim.scenes.demand import STEP, draw_sizes, write_demand
from occsora_sim.scenes.scene import Scene
from occsora_sim.scenes.street_plan import write_network
from occsora_sim.scenes.town import TownConfig, read_network

SUMO_OPTIONS = (
    f"--step-length {STEP} --lanechange.duration 2.5 --time-to-teleport -1 --collision.action none "
    "--ignore-route-errors --no-step-log --no-warnings --xml-validation never --extrapolate-departpos"
)
"""What a recorded and a live simulation have in common."""


@dataclass(frozen=True, kw_only=True)
class LiveTown:
    """A town that SUMO can run.

    Attributes:
        folder: holds its files.
        options: of SUMO's command line.
        warm_up: simulated time at which the scene begins [s].
        sizes: length, width, height [m] of each vType.

    """

    folder: Path
    options: tuple[str, ...]
    warm_up: float
    sizes: dict[str, tuple[float, float, float]]

    def remove(self) -> None:
        """Remove the files."""
        shutil.rmtree(self.folder, ignore_errors=True)


def town_of(scene: Scene) -> tuple[int, TownConfig]:
    """The seed and the configuration that a scene was made from.

    Raises:
        ConfigurationError: the scene was not made from traffic, or does not say from which.

    """
    if scene.attributes.get("source") != "traffic":
        raise ConfigurationError(
            f"scene {scene.name}: no live traffic belongs to it, it is a recording; begin in a town "
            '(traffic:A-B), or use world="replay"'
        )
    try:
        return int(scene.attributes["seed"]), TownConfig(**json.loads(scene.attributes["config"]))
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigurationError(
            f"scene {scene.name}: its attributes do not say which town it shows; make the town again"
        ) from error


def write_town(seed: int, config: TownConfig, folder: Path) -> LiveTown:
    """Write the network and the demand of a town into `folder`, the same as when its scene was made.

    Raises:
        MissingDependencyError: SUMO is not installed.
        SceneError: SUMO refused the town, or the folder cannot be written.

    """
    plan, demand = (np.random.default_rng([seed, stream]) for stream in range(2))  # as in `make_town`
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _, net = write_network(plan, config, folder, seed)
        network = read_network(net)
        sizes = draw_sizes(demand)
        write_demand(demand, config, network, sizes, folder / "town.rou.xml")
    except OSError as error:
        raise SceneError(
            f"{folder}: {error.strerror}; the system's temporary folder must be writable"
        ) from error
    files = ("-n", str(net), "-r", str(folder / "town.rou.xml"), "--seed", str(seed % 2**31))
    return LiveTown(
        folder=folder, options=(*files, *SUMO_OPTIONS.split()), warm_up=config.warm_up, sizes=sizes
    )
