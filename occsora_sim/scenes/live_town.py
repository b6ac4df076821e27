"""A town brought back to life: the files that SUMO needs, rebuilt from the seed and the configuration of its scene."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from occsora_sim.errors import ConfigurationError
from occsora_sim.scenes.amounts import Amounts
from occsora_sim.scenes.demand import SUMO_OPTIONS
from occsora_sim.scenes.mix import ATTRIBUTE, remix
from occsora_sim.scenes.scene import Scene
from occsora_sim.scenes.town import TownConfig
from occsora_sim.scenes.town_folder import temporary_files
from occsora_sim.scenes.traffic import Streets, lay_out


@dataclass(frozen=True, kw_only=True)
class LiveTown:
    """A town that SUMO can run.

    Attributes:
        folder: holds its files.
        options: of SUMO's command line; files are named relative to the folder.
        events: JSON, what happens besides the traffic; see `sumo_events`.
        warm_up: simulated time at which the scene begins [s].
        sizes: length, width, height [m] of each vType.

    """

    folder: Path
    options: tuple[str, ...]
    events: str
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


def write_town(scene: Scene, folder: Path) -> LiveTown:
    """Write the network and the demand of a scene's town into `folder`, the same as when the scene was made.

    Raises:
        ConfigurationError: as `town_of`.
        MissingDependencyError: SUMO is not installed.
        SceneError: SUMO refused the town, or the folder cannot be written.

    """
    seed, config = town_of(scene)
    mix = _mix_of(scene)
    with temporary_files():
        folder.mkdir(parents=True, exist_ok=True)
        streets = lay_out(seed, config, folder)
        if mix:
            streets = remix(streets, mix, seed)
    return LiveTown(
        folder=folder,
        options=sumo_options(streets, seed),
        events=scene.attributes.get("events", "[]"),
        warm_up=config.warm_up,
        sizes=streets.sizes,
    )


def _mix_of(scene: Scene) -> dict[str, float]:
    """Shares of motor vehicles by kind that the scene was made with; empty for the usual ones."""
    try:
        shares = json.loads(scene.attributes.get(ATTRIBUTE, "{}"))
        return dict(Amounts(mix=tuple((kind, float(share)) for kind, share in shares.items())).mix)
    except (ConfigurationError, AttributeError, TypeError, ValueError) as error:
        raise ConfigurationError(
            f"scene {scene.name}: its attributes do not say which mix of vehicles it shows; make the town again"
        ) from error


def sumo_options(streets: Streets, seed: int) -> tuple[str, ...]:
    """The command line of SUMO for a town of a seed, in the folder of its files."""
    files = ("-n", streets.net.name, "-r", streets.demand.name, "--seed", str(seed % 2**31))
    return (*files, *SUMO_OPTIONS.split())
