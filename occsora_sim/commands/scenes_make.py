"""`occsora-sim scenes make`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from occsora_sim.cluster import Told, check_ray, open_crew
from occsora_sim.commands.output import output_folder
from occsora_sim.errors import ConfigurationError

if TYPE_CHECKING:
    from occsora_sim.scenes.recorded import Recorded
    from occsora_sim.scenes.scene import Scene


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of `scenes make`.

    Attributes:
        scenes: what to make: `traffic:A-B`, the towns of the seeds A to B; a kind of place: `grid:A-B`, `organic:A-B`,
            `arterial:A-B`, `roundabout:A-B`, `motorway:A-B`; `scenario:NAME:A-B`, where something rare happens; or a
            log or a folder of logs, to be written as scene files.
        out: folder for the scene files, one a scene.
        shards: write so many tar files of WebDataset instead, with the scenes in their order, for data sets that no
            folder of files would bear; give a multiple of the processes that are to train on them.
        density: how many times as much traffic as usual (for towns and places, as all that follows).
        vehicles: motor vehicles on each km of street.
        bicycles: bicycles on each km of street.
        pedestrians: pedestrians on each km of street.
        inflow: how many times as many vehicles enter as usual.
        mix: shares of motor vehicles, as truck=0.3 bus=0.1; of car, van, truck, bus, motorcycle. Those not named
            divide what is left as usual.
        ray: make the scenes on a Ray cluster: local or local:N (Ray on this machine, with N workers), auto, HOST:PORT
            or ray://HOST:PORT; the files are written here.

    """

    scenes: str = "traffic:0-7"
    out: Path = Path("scenes")
    shards: int | None = None
    density: float | None = None
    vehicles: float | None = None
    bicycles: float | None = None
    pedestrians: float | None = None
    inflow: float | None = None
    mix: tuple[str, ...] = ()
    ray: str | None = None

    def __post_init__(self) -> None:
        check_ray(self.ray)
        if self.shards is not None and self.shards < 1:
            raise ConfigurationError(f"--shards {self.shards}: must be 1 or more")

    def spec(self) -> str:
        """The scenes with the amounts of traffic behind them, as `open_scenes` takes them.

        Raises:
            ConfigurationError: there are amounts, but the scenes are not made.
            SceneError: what is to be made cannot be read.

        """
        from occsora_sim.scenes import made

        names = ("density", "vehicles", "bicycles", "pedestrians", "inflow")
        given = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        parts = [*(f"{name}={value:.12g}" for name, value in given.items()), *self.mix]
        if parts and not made.is_made(self.scenes):
            raise ConfigurationError(
                f"--scenes {self.scenes}: {' '.join(parts)} can be chosen for what is made, as traffic:0-7"
            )
        spec = ",".join([self.scenes, *parts])
        if made.is_made(spec):
            made.parse(spec)  # what cannot be read is said before anything is written
        return spec


def run(options: Options) -> None:
    """Make the scenes and write each to its file as soon as it is made; or shards, one after another."""
    from occsora_sim.scenes.file import SUFFIX, save_scene

    spec = options.spec()
    folder = output_folder(options.out)
    if options.shards is not None:
        _write_shards(spec, folder, options.shards, options.ray)
        return
    for scene in map(_vector, scenes_of(spec, options.ray)):
        path = folder / f"{scene.name}{SUFFIX}"
        save_scene(scene, path)
        print(f"{path}  {path.stat().st_size / 1e6:.2f} MB", flush=True)


def _write_shards(spec: str, folder: Path, count: int, ray: str | None) -> None:
    """Write the scenes of `spec` to so many shards; no more than those of one are in memory."""
    from occsora_sim.scenes import made
    from occsora_sim.scenes.shards import SUFFIX, write_shard
    from occsora_sim.scenes.source import each_scene, parts_of, single_specs

    singles = single_specs(spec)
    if count > len(singles):
        raise ConfigurationError(f"--shards {count}: there are {len(singles)} scenes; give no more than that")
    for part in parts_of(spec):
        if ray is None and made.is_made(part):
            for _ in each_scene(part):  # makes them in parallel, for the cache
                pass
    with open_crew(ray, None, _nothing) as crew:
        made_ones = crew.map(_read, singles)
        for number in range(count):
            size = (number + 1) * len(singles) // count - number * len(singles) // count
            path = folder / f"scenes-{number:05d}-of-{count:05d}{SUFFIX}"
            scenes = (_vector(scene) for each in islice(made_ones, size) for scene in each)
            held = write_shard(scenes, path)
            print(f"{path}  {held} scenes  {path.stat().st_size / 1e6:.2f} MB", flush=True)


def _vector(scene: Recorded) -> Scene:
    """A scene that has a scene file.

    Raises:
        SceneError: it has none.

    """
    from occsora_sim.errors import SceneError
    from occsora_sim.scenes.scene import Scene

    if not isinstance(scene, Scene):
        raise SceneError(f"{scene.name} is a voxel sequence, which has no scene file; use it as it is")
    return scene


def scenes_of(spec: str, ray: str | None) -> Iterator[Recorded]:
    """The scenes of a spec as they are ready: made by processes of this machine, or by the workers of a cluster."""
    from occsora_sim.scenes.source import each_scene, single_specs

    if ray is None:
        yield from each_scene(spec)
        return
    with open_crew(ray, None, _nothing) as crew:
        for scenes in crew.map(_read, single_specs(spec)):
            yield from scenes


def _nothing() -> None:
    """All that a worker needs to make scenes."""


def _read(held: None, spec: str, told: Told) -> list[Recorded]:
    from occsora_sim.scenes.source import open_scenes

    return open_scenes(spec)
