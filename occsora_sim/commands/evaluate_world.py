"""`occsora-sim evaluate world`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from occsora_sim.commands.device import check_device
from occsora_sim.commands.output import output_file, write_json
from occsora_sim.errors import ConfigurationError

if TYPE_CHECKING:
    from occsora_sim.scenes.recorded import Recorded
    from occsora_sim.worlds.protocol import World


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of `evaluate world`.

    Attributes:
        world: diffusion (generated), or replay (recorded scenes: what the control and drift tables say of a perfect
            world; it has nothing to forecast).
        weights: weights of the generated world; by default the shipped ones.
        scenes: what really happened: a file, a folder or `traffic:A-B`.
        forecast: score forecasts; --no-forecast leaves them out.
        windows_per_scene: how many instants of a scene to forecast from.
        control: starts from which to check that the trajectory prompt is obeyed; 0: none.
        drift: chained rollouts to watch for drift; 0: none.
        drift_seconds: length of each of them [s].
        generation: rollouts whose frames are held against real ones in the shipped encoder's space; 0: none.
        revisit: starts from which to drive round a block, to see whether the street is still there on return; 0: none.
        scene_prompts: starts from nothing to check that place and number of vehicles are obeyed; 0: none.
        batch: windows, starts or rollouts at once.
        steps: denoising steps of a drawn future ("sample"; "model" is the expectation).
        seed: of the starts and the drawn futures.
        device: cpu, cuda, cuda:1...
        json: also write the figures to this file.

    """

    world: Literal["diffusion", "replay"] = "diffusion"
    weights: Path | None = None
    scenes: str = "traffic:500000-500003"
    forecast: bool = True
    windows_per_scene: int = 16
    control: int = 0
    drift: int = 0
    drift_seconds: float = 60.0
    generation: int = 0
    revisit: int = 0
    scene_prompts: int = 0
    batch: int = 4
    steps: int = 8
    seed: int = 0
    device: str = "cpu"
    json: Path | None = None

    def __post_init__(self) -> None:
        if min(self.windows_per_scene, self.batch, self.steps) < 1:
            raise ConfigurationError(
                f"--windows-per-scene {self.windows_per_scene}, --batch {self.batch} and --steps {self.steps} must be "
                "1 or more"
            )
        parts = (self.control, self.drift, self.generation, self.revisit, self.scene_prompts)
        if min(*parts, self.seed) < 0 or not 2.0 <= self.drift_seconds <= 3600.0:
            raise ConfigurationError(
                f"--control {self.control}, --drift {self.drift}, --generation {self.generation}, --revisit "
                f"{self.revisit}, --scene-prompts {self.scene_prompts} and --seed {self.seed} must be 0 or more, "
                f"--drift-seconds {self.drift_seconds:g} from 2 to 3600"
            )
        if self.world == "replay" and (self.weights is not None or self.forecast):
            raise ConfigurationError(
                "--world replay has no --weights and nothing to forecast; add --no-forecast"
            )
        if not (self.forecast or any(parts)):
            raise ConfigurationError(
                "--no-forecast leaves nothing to do; add --control N, --drift N, --generation N, --revisit N or "
                "--scene-prompts N"
            )


def run(options: Options) -> None:
    """Forecast, check the control, watch for drift; print the tables, write --json."""
    from occsora_sim.scenes.source import open_scenes
    from occsora_sim.worlds.diffusion import load_world
    from occsora_sim.worlds.replay import ReplayWorld

    check_device(options.device)
    if options.json:
        output_file(options.json)
    world: World
    if options.world == "replay":
        world = ReplayWorld(device=options.device)
    else:
        world = load_world(options.weights, device=options.device, steps=options.steps)
    scenes = open_scenes(options.scenes)
    report: dict[str, Any] = (
        _forecast(options, world, scenes) if options.forecast else {"scenes": len(scenes)}
    )
    if options.control:
        report["control"] = _control(options, world, scenes)
    if options.drift:
        report["drift"] = _drift(options, world, scenes)
    if options.generation:
        report["generation"] = _generation(options, world, scenes)
    if options.revisit:
        report["revisit"] = _revisit(options, world, scenes)
    if options.scene_prompts:
        report["scene_prompts"] = _scene_prompts(options, world, scenes)
    if options.json:
        write_json(options.json, report)


def _forecast(options: Options, world: Any, scenes: list[Recorded]) -> dict[str, Any]:
    """Forecasts of the generated world against recorded scenes."""
    from occsora_sim.scoring.world_report import evaluate_world, print_world_report

    with _Bar("windows", len(scenes) * options.windows_per_scene) as told:
        report = evaluate_world(
            world,
            scenes,
            windows_per_scene=options.windows_per_scene,
            batch=options.batch,
            seed=options.seed,
            on_window=told,
        )
    print_world_report(report)
    return report


def _control(options: Options, world: World, scenes: list[Recorded]) -> dict[str, Any]:
    """Manoeuvres from the same starts, and the motion that the frames show."""
    from occsora_sim.scenes.start import sample_starts
    from occsora_sim.scoring.control import control_report, print_control_report

    starts = sample_starts(
        scenes,
        options.control,
        options.seed,
        grid=world.grid,
        minimum_future_seconds=5.0,
        minimum_speed=2.0,
    )
    with _Bar("starts", len(starts)) as told:
        report = control_report(world, starts, seed=options.seed, batch=options.batch, on_start=told)
    print_control_report(report)
    return report


def _drift(options: Options, world: World, scenes: list[Recorded]) -> dict[str, Any]:
    """Long rollouts against recorded clips."""
    from occsora_sim.grid import OCC3D
    from occsora_sim.scoring.drift import drift_report, print_drift_report
    from occsora_sim.scoring.generation import open_encoder
    from occsora_sim.scoring.long_rollout import drift_starts

    starts = drift_starts(scenes, options.drift, world.grid)
    encoder = open_encoder()[0] if world.grid == OCC3D else None
    with _Bar("chunks", None) as told:
        report = drift_report(
            world,
            starts,
            scenes,
            seconds=options.drift_seconds,
            seed=options.seed,
            batch=options.batch,
            encoder=encoder,
            on_chunk=told,
        )
    print_drift_report(report)
    return report


def _generation(options: Options, world: World, scenes: list[Recorded]) -> dict[str, Any]:
    """Frames of rollouts against real ones, in the shipped encoder's space."""
    from occsora_sim.scoring.generation import generation_report, open_encoder, print_generation_report
    from occsora_sim.scoring.long_rollout import drift_starts

    encoder, name = open_encoder()
    starts = drift_starts(scenes, options.generation, world.grid)
    with _Bar("chunks", None) as told:
        report = generation_report(
            world, starts, scenes, encoder, name, seed=options.seed, batch=options.batch, on_chunk=told
        )
    print_generation_report(report)
    return report


def _revisit(options: Options, world: World, scenes: list[Recorded]) -> dict[str, Any]:
    """Round a block, and what stands there on return."""
    from occsora_sim.scenes.start import sample_starts
    from occsora_sim.scoring.revisit import print_revisit_report, revisit_report

    starts = sample_starts(scenes, options.revisit, options.seed, grid=world.grid, minimum_future_seconds=0.0)
    with _Bar("chunks", None) as told:
        report = revisit_report(world, starts, seed=options.seed, batch=options.batch, on_chunk=told)
    print_revisit_report(report)
    return report


def _scene_prompts(options: Options, world: World, scenes: list[Recorded]) -> dict[str, Any]:
    """Starts from nothing under different scene prompts."""
    from occsora_sim.scoring.scene_control import print_scene_control_report, scene_control_report

    with _Bar("prompts", None) as told:
        report = scene_control_report(
            world, options.scene_prompts, scenes, seed=options.seed, batch=options.batch, on_chunk=told
        )
    print_scene_control_report(report)
    return report


class _Bar:
    """A progress bar on standard error, gone when its work is done; enters as the function that moves it on."""

    def __init__(self, name: str, total: int | None) -> None:
        from rich.console import Console
        from rich.progress import Progress

        console = Console(stderr=True)
        self._progress = Progress(console=console, transient=True, disable=not console.is_terminal)
        self._task = self._progress.add_task(name, total=total)

    def __enter__(self) -> Callable[..., None]:
        self._progress.start()
        return self._tell

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def _tell(self, done: int, total: int | None = None) -> None:
        self._progress.update(self._task, completed=done, total=total)
