"""The tables of `evaluate world`, one function each, which takes the command's options."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from occsora_sim.cluster import Crew
    from occsora_sim.commands.evaluate_world import Options
    from occsora_sim.scenes.recorded import Recorded
    from occsora_sim.worlds.protocol import World


def forecast(options: Options, world: Any, scenes: list[Recorded], crew: Crew) -> dict[str, Any]:
    """Forecasts of the generated world against recorded scenes."""
    from occsora_sim.scoring.world_report import evaluate_world, print_world_report

    with Bar("windows", len(scenes) * options.windows_per_scene) as told:
        report = evaluate_world(
            world,
            scenes,
            windows_per_scene=options.windows_per_scene,
            batch=options.batch,
            seed=options.seed,
            on_window=told,
            crew=crew,
        )
    print_world_report(report)
    return report


def control(options: Options, world: World, scenes: list[Recorded], crew: Crew) -> dict[str, Any]:
    """Manoeuvres from the same starts, and the motion that the frames show."""
    from occsora_sim.scenes.start import sample_starts
    from occsora_sim.scoring.control import CONTROL_SECONDS, control_report, print_control_report

    starts = sample_starts(
        scenes,
        options.control,
        options.seed,
        grid=world.grid,
        future=5.0,
        least_future=CONTROL_SECONDS,
        minimum_speed=2.0,
    )
    with Bar("starts", len(starts)) as told:
        report = control_report(
            world, starts, seed=options.seed, batch=options.batch, on_start=told, crew=crew
        )
    print_control_report(report)
    return report


def drift(options: Options, world: World, scenes: list[Recorded], crew: Crew) -> dict[str, Any]:
    """Long rollouts against recorded clips."""
    from occsora_sim.grid import OCC3D
    from occsora_sim.scoring.drift import drift_report, print_drift_report
    from occsora_sim.scoring.generation import open_encoder
    from occsora_sim.scoring.long_rollout import drift_starts

    starts = drift_starts(scenes, options.drift, world.grid)
    encoder = open_encoder()[0] if world.grid == OCC3D else None
    with Bar("chunks", None) as told:
        report = drift_report(
            world,
            starts,
            scenes,
            seconds=options.drift_seconds,
            seed=options.seed,
            batch=options.batch,
            encoder=encoder,
            on_chunk=told,
            crew=crew,
        )
    print_drift_report(report)
    return report


def generation(options: Options, world: World, scenes: list[Recorded], crew: Crew) -> dict[str, Any]:
    """Frames of rollouts against recorded ones: in the shipped encoder's space, and their ground by itself."""
    from occsora_sim.scoring.generation import (
        FEATURE_SECONDS,
        generation_report,
        open_encoder,
        print_generation_report,
    )
    from occsora_sim.scoring.long_rollout import drift_starts

    encoder, name = open_encoder()
    starts = drift_starts(scenes, options.generation, world.grid)
    with Bar("chunks", None) as told:
        report = generation_report(
            world,
            starts,
            scenes,
            encoder,
            name,
            seconds=max(FEATURE_SECONDS, options.drift_seconds),
            seed=options.seed,
            batch=options.batch,
            on_chunk=told,
            crew=crew,
        )
    print_generation_report(report)
    return report


def revisit(options: Options, world: World, scenes: list[Recorded], crew: Crew) -> dict[str, Any]:
    """Round a block, and what stands there on return."""
    from occsora_sim.scenes.start import sample_starts
    from occsora_sim.scoring.revisit import print_revisit_report, revisit_report

    starts = sample_starts(scenes, options.revisit, options.seed, grid=world.grid, future=0.0)
    with Bar("chunks", None) as told:
        report = revisit_report(
            world, starts, seed=options.seed, batch=options.batch, on_chunk=told, crew=crew
        )
    print_revisit_report(report)
    return report


def scene_prompts(options: Options, world: World, scenes: list[Recorded], crew: Crew) -> dict[str, Any]:
    """Starts from nothing under different scene prompts."""
    from occsora_sim.scoring.scene_control import print_scene_control_report, scene_control_report

    with Bar("prompts", None) as told:
        report = scene_control_report(
            world,
            options.scene_prompts,
            scenes,
            seed=options.seed,
            batch=options.batch,
            on_chunk=told,
            crew=crew,
        )
    print_scene_control_report(report)
    return report


def traffic(options: Options, world: World, scenes: list[Recorded], crew: Crew) -> dict[str, Any]:
    """Road users of rollouts along recorded egos, against the recorded ones."""
    from occsora_sim.scoring.traffic_report import print_traffic_report, traffic_report

    with Bar("chunks", None) as told:
        report = traffic_report(
            world,
            scenes,
            rollouts=options.traffic,
            seconds=options.drift_seconds,
            seed=options.seed,
            batch=options.batch,
            on_chunk=told,
            crew=crew,
        )
    print_traffic_report(report)
    return report


def pictures(options: Options, world: Any, scenes: list[Recorded]) -> None:
    """Sheets of what was recorded above what was generated."""
    import numpy as np

    from occsora_sim.rendering.example_sheet import write_example_sheet
    from occsora_sim.scenes.blank import blank_start
    from occsora_sim.scoring.examples import forecast_examples, rollout_examples
    from occsora_sim.scoring.long_rollout import drift_starts
    from occsora_sim.worlds.replay import ReplayWorld

    assert options.pictures is not None
    with Bar("windows", None) as told:
        write_example_sheet(
            forecast_examples(world, scenes, options.windows_per_scene, options.seed, told),
            options.pictures / "forecasts.png",
        )
    starts = drift_starts(scenes, 2, world.grid)
    recorded = ReplayWorld(world.grid)
    write_example_sheet(
        rollout_examples(world, starts, recorded, options.seed), options.pictures / "rollouts.png"
    )
    generator = np.random.default_rng(options.seed)
    blank = [blank_start(generator, world.grid) for _ in range(2)]
    write_example_sheet(rollout_examples(world, blank, None, options.seed), options.pictures / "nothing.png")
    print(f"written to {options.pictures}: forecasts.png, rollouts.png and nothing.png")


class Bar:
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
