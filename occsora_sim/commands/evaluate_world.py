"""`occsora-sim evaluate world`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from occsora_sim.cluster import check_ray, open_crew
from occsora_sim.commands.output import Outputs, output_file, output_folder, write_json
from occsora_sim.device import check_device
from occsora_sim.errors import ConfigurationError

if TYPE_CHECKING:
    from occsora_sim.worlds.protocol import World

Table = Callable[..., dict[str, Any]]
"""Makes one part of the report."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of `evaluate world`.

    Attributes:
        world: diffusion (generated), or replay (recorded town or street: what the control, drift and traffic tables say
            of a perfect world; it has nothing to forecast).
        weights: weights of the generated world; by default the shipped ones.
        scenes: what was recorded: a file, a folder or `traffic:A-B`.
        ego: in logs any vehicle that drives long enough, or the one that recorded them (recorder) alone.
        forecast: score forecasts; --no-forecast leaves them out.
        windows_per_scene: how many instants of a scene to forecast from.
        control: starts from which to check that the trajectory prompt is obeyed; 0: none.
        drift: chained rollouts to watch for drift; 0: none.
        drift_seconds: length of each of them, and of those of --traffic and --generation (16 or more) [s].
        generation: rollouts whose frames are held against recorded ones in the shipped encoder's space, and whose
            ground a classifier tries to tell from recorded ground (AUC, 0.5: it cannot) in crops of 25.6 m, in cells of
            0.4, 1.6 and 3.2 m, before and after 20 s; with the shapes of roads, pavements and buildings. It learns on
            half of the towns: give eight scenes or more, and a rollout or two for each; 0: none.
        revisit: starts from which to drive round a block, to see whether the street is still there on return; 0: none.
        scene_prompts: starts from nothing to check that place and number of vehicles are obeyed; 0: none.
        traffic: rollouts along recorded egos whose road users are held against the recorded ones; 0: none.
        pictures: folder for forecasts.png (of the windows the two best, the middle one and the two worst), rollouts.png
            (two long drives) and nothing.png (two from nothing); recorded above generated.
        batch: windows, starts or rollouts at once.
        ray: spread scenes, starts and rollouts over a Ray cluster: local or local:N (Ray on this machine, with N
            workers), auto, HOST:PORT or ray://HOST:PORT; the pictures are drawn here.
        steps: calls of the network for a tile of new ground in a drawn future ("draw", what the environment runs;
            "model" is the expectation).
        seed: of the starts and the drawn futures.
        device: cpu, cuda, cuda:1...
        json: also write the figures to this file.

    """

    world: Literal["diffusion", "replay"] = "diffusion"
    weights: Path | None = None
    scenes: str = "traffic:500000-500003"
    ego: Literal["any", "recorder"] = "any"
    forecast: bool = True
    windows_per_scene: int = 16
    control: int = 0
    drift: int = 0
    drift_seconds: float = 60.0
    generation: int = 0
    revisit: int = 0
    scene_prompts: int = 0
    traffic: int = 0
    pictures: Path | None = None
    batch: int = 4
    ray: str | None = None
    steps: int = 4
    seed: int = 0
    device: str = "cpu"
    json: Path | None = None

    def __post_init__(self) -> None:
        if min(self.windows_per_scene, self.batch, self.steps) < 1:
            raise ConfigurationError(
                f"--windows-per-scene {self.windows_per_scene}, --batch {self.batch} and --steps {self.steps} must be "
                "1 or more"
            )
        check_ray(self.ray, self.device)
        parts = (self.control, self.drift, self.generation, self.revisit, self.scene_prompts, self.traffic)
        if min(*parts, self.seed) < 0 or not 2.0 <= self.drift_seconds <= 3600.0:
            raise ConfigurationError(
                f"--control {self.control}, --drift {self.drift}, --generation {self.generation}, --revisit "
                f"{self.revisit}, --scene-prompts {self.scene_prompts}, --traffic {self.traffic} and --seed "
                f"{self.seed} must be 0 or more, --drift-seconds {self.drift_seconds:g} from 2 to 3600"
            )
        if self.traffic and self.drift_seconds < 4.0:
            raise ConfigurationError(
                f"--traffic needs --drift-seconds of 4 or more, not {self.drift_seconds:g}"
            )
        if self.world == "replay" and (self.weights is not None or self.forecast or self.pictures):
            raise ConfigurationError(
                "--world replay has no --weights, no --pictures and nothing to forecast; add --no-forecast"
            )
        if not (self.forecast or any(parts) or self.pictures):
            raise ConfigurationError(
                "--no-forecast leaves nothing to do; add --control N, --drift N, --generation N, --revisit N, "
                "--scene-prompts N, --traffic N or --pictures FOLDER"
            )


def run(options: Options) -> None:
    """Forecast, check the control, watch for drift; print the tables, write --json."""
    from occsora_sim.commands import world_tables
    from occsora_sim.scenes.recorded import with_egos
    from occsora_sim.scenes.source import open_scenes

    check_device(options.device)
    if options.json:
        output_file(options.json)
    if options.pictures:
        output_folder(options.pictures)
    world = open_world(options)
    scenes = [with_egos(scene, options.ego) for scene in open_scenes(options.scenes)]
    tables: dict[str, Table] = {
        "control": world_tables.control,
        "drift": world_tables.drift,
        "generation": world_tables.generation,
        "revisit": world_tables.revisit,
        "scene_prompts": world_tables.scene_prompts,
        "traffic": world_tables.traffic,
    }
    with open_crew(options.ray, world, partial(open_world, options), device=options.device) as crew:
        report: dict[str, Any] = (
            world_tables.forecast(options, world, scenes, crew)
            if options.forecast
            else {"scenes": len(scenes)}
        )
        for name, table in tables.items():
            if getattr(options, name):
                report[name] = table(options, world, scenes, crew)
    with Outputs() as outputs:
        if options.json:
            outputs.write(write_json, options.json, report)
        if options.pictures:
            outputs.write(world_tables.pictures, options, world, scenes)


def open_world(options: Options) -> World:
    """The world that is scored."""
    from occsora_sim.worlds.diffusion import load_world
    from occsora_sim.worlds.replay import ReplayWorld

    if options.world == "replay":
        return ReplayWorld(device=options.device)
    return load_world(options.weights, device=options.device, steps=options.steps)
