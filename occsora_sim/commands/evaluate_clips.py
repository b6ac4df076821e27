"""`occsora-sim evaluate clips`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from occsora_sim.commands.output import Outputs, output_file, output_folder, write_json
from occsora_sim.device import check_device
from occsora_sim.errors import ConfigurationError

if TYPE_CHECKING:
    from torch import Tensor

    from occsora_sim.scoring.clip_models import RecordedClip
    from occsora_sim.scoring.examples import Example

PICTURED = 2
"""Clips of each model that a picture shows."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of `evaluate clips`.

    Attributes:
        weights: one or more weights files, of closed-loop presets or OccSora's own.
        scenes: what was recorded: a file, a folder or `traffic:A-B`.
        clips: how many recorded clips to reconstruct, and to draw from their trajectories alone.
        windows_per_scene: instants of a scene to forecast from, for weights that can; 0: none.
        steps: calls of the network for a tile of new ground, of closed-loop weights.
        paper_steps: diffusion steps of OccSora's own; 0: all of its schedule, as published.
        control: numbers of diffusion steps; for each of them, do clips of OccSora's own move as their prompts say, with
            guidance, with the prompt alone and without?
        pictures: folder for clips.png: what each drew, under what was recorded.
        seed: of the drawn clips.
        device: cpu, cuda, cuda:1...
        json: also write the figures to this file.

    """

    weights: tuple[Path, ...]
    scenes: str = "traffic:500000-500003"
    clips: int = 8
    windows_per_scene: int = 4
    steps: int = 4
    paper_steps: int = 0
    control: tuple[int, ...] = ()
    pictures: Path | None = None
    seed: int = 0
    device: str = "cpu"
    json: Path | None = None

    def __post_init__(self) -> None:
        if not self.weights or len(set(self.weights)) < len(self.weights):
            raise ConfigurationError(
                f"--weights {' '.join(map(str, self.weights))}: give one or more files, each of them once"
            )
        if min(self.clips, self.steps) < 1 or min(self.windows_per_scene, self.paper_steps, self.seed) < 0:
            raise ConfigurationError(
                f"--clips {self.clips} and --steps {self.steps} must be 1 or more, --windows-per-scene "
                f"{self.windows_per_scene}, --paper-steps {self.paper_steps} and --seed {self.seed} 0 or more"
            )
        if self.control and (self.clips < 2 or min(self.control) < 1):
            raise ConfigurationError(
                f"--control {' '.join(map(str, self.control))} with --clips {self.clips}: give 1 step or more, and 2 "
                "clips or more, whose prompts are swapped"
            )


def run(options: Options) -> None:
    """Reconstruct, forecast and draw; print the table, write --json and --pictures."""
    from occsora_sim.commands.world_tables import Bar
    from occsora_sim.scenes.source import open_scenes
    from occsora_sim.scoring import clip_control
    from occsora_sim.scoring.clip_models import WholeClips, open_clip_model, recorded_clips
    from occsora_sim.scoring.clip_report import clip_report, print_clip_report
    from occsora_sim.scoring.generation import open_encoder

    check_device(options.device)
    if options.json:
        output_file(options.json)
    if options.pictures:
        output_folder(options.pictures)
    models = {
        str(path): open_clip_model(
            path, steps=options.steps, paper_steps=options.paper_steps or None, device=options.device
        )
        for path in options.weights
    }
    designs = {which: model.model for which, model in models.items() if isinstance(model, WholeClips)}
    if options.control:
        clip_control.check(designs, options.control)
    encoder, name = open_encoder()
    scenes = open_scenes(options.scenes)
    shown: dict[int, list[Example]] = {}

    def keep(which: str, row: int, frames: Tensor, clip: RecordedClip) -> None:
        if options.pictures and row < PICTURED:
            mine = shown.setdefault(row, [])
            mine.append(_example(Path(which).stem, frames, None if mine else clip))

    with Bar("clips", None) as told:
        report = clip_report(
            models,
            scenes,
            encoder,
            name,
            clips=options.clips,
            windows_per_scene=options.windows_per_scene,
            seed=options.seed,
            on_step=told,
            on_clip=keep,
        )
    if options.control:
        report["control_protocol"] = clip_control.PROTOCOL
        for row in report["models"]:
            if design := designs.get(row["weights"]):
                config = design.config
                clips = list(recorded_clips(scenes, options.clips, config.grid, config.tokenizer.frames))
                with Bar("control", None) as told:
                    row["control"] = clip_control.clip_control(
                        design, clips, steps=options.control, seed=options.seed, on_clip=told
                    )
    with Outputs() as outputs:
        if options.json:
            outputs.write(write_json, options.json, report)
        print_clip_report(report)
        for row in report["models"]:
            if "control" in row:
                clip_control.print_clip_control(row["weights"], row["control"])
        if options.pictures:
            outputs.write(_write_pictures, shown, options.pictures)


def _write_pictures(shown: dict[int, list[Example]], folder: Path) -> None:
    """One sheet: of each clip the recorded frames, then what each model drew."""
    from occsora_sim.rendering.example_sheet import write_example_sheet

    write_example_sheet([example for row in sorted(shown) for example in shown[row]], folder / "clips.png")
    print(f"written to {folder}: clips.png")


def _example(name: str, frames: Tensor, clip: RecordedClip | None) -> Example:
    """Five of a drawn clip's frames (t - GIVEN + 1, x, y, z), from the first to the last; with a recorded clip (t), its
    own above them.
    """
    from occsora_sim.grid import FRAME_SECONDS
    from occsora_sim.scoring.clip_models import GIVEN
    from occsora_sim.scoring.examples import Example

    at = [round(place * (len(frames) - 1) / 4) for place in range(5)]
    return Example(
        name=name,
        seconds=tuple(FRAME_SECONDS * (GIVEN + index) for index in at),
        frames=frames[at],
        real=None if clip is None else clip.labels[GIVEN - 1 :][at],
    )
