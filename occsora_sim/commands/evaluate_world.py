"""`occsora-sim evaluate world`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from occsora_sim.commands.device import check_device
from occsora_sim.commands.output import output_file, write_json
from occsora_sim.errors import ConfigurationError


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of `evaluate world`.

    Attributes:
        weights: weights of the generated world; by default the shipped ones.
        scenes: what really happened: a file, a folder or `traffic:A-B`.
        windows_per_scene: how many instants of a scene to forecast from.
        batch: windows at once.
        steps: denoising steps of a drawn future ("sample"; "model" is the expectation).
        seed: of the drawn futures.
        device: cpu, cuda, cuda:1...
        json: also write the figures to this file.

    """

    weights: Path | None = None
    scenes: str = "traffic:500000-500003"
    windows_per_scene: int = 16
    batch: int = 4
    steps: int = 2
    seed: int = 0
    device: str = "cpu"
    json: Path | None = None

    def __post_init__(self) -> None:
        if min(self.windows_per_scene, self.batch, self.steps) < 1:
            raise ConfigurationError(
                f"--windows-per-scene {self.windows_per_scene}, --batch {self.batch} and --steps {self.steps} must be "
                "1 or more"
            )


def run(options: Options) -> None:
    """Forecast, print the table, write --json."""
    from rich.console import Console
    from rich.progress import Progress

    from occsora_sim.scenes.source import open_scenes
    from occsora_sim.scoring.world_report import evaluate_world, print_world_report
    from occsora_sim.worlds.diffusion import load_world

    check_device(options.device)
    if options.json:
        output_file(options.json)
    world = load_world(options.weights, device=options.device)
    scenes = open_scenes(options.scenes)
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("windows", total=len(scenes) * options.windows_per_scene)
        report = evaluate_world(
            world,
            scenes,
            windows_per_scene=options.windows_per_scene,
            batch=options.batch,
            seed=options.seed,
            on_window=lambda done: progress.update(task, completed=done),
        )
    print_world_report(report)
    if options.json:
        write_json(options.json, report)
