"""Designs side by side: clips reconstructed, forecast and drawn from nothing by models of either family."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch

from occsora_sim.errors import ConfigurationError
from occsora_sim.grid import FRAME_SECONDS
from occsora_sim.models.occupancy_encoder import OccupancyEncoder
from occsora_sim.scenes.recorded import Recorded
from occsora_sim.scoring.allocator import give_back
from occsora_sim.scoring.clip_models import GIVEN, ChainedClips, ClipModel, RecordedClip, recorded_clips
from occsora_sim.scoring.confusion import Confusion
from occsora_sim.scoring.forecasting import HORIZONS
from occsora_sim.scoring.generation import EVERY, feature_distances, feature_floor, real_features
from occsora_sim.scoring.world_report import PROTOCOL as FORECAST_PROTOCOL
from occsora_sim.scoring.world_report import evaluate_world

FRAMES = 32
"""Length of a clip where no model says another; 16 s."""

LEAST = 4
"""Frames behind a distance; third neighbours need as many."""

WIDTH = 160
"""Of the table [characters]; narrower, its columns are cut."""

PROTOCOL = (
    f"recorded clips along expert egos; reconstruction: through the model's own latents, from frame {GIVEN} on, the "
    f"closed loop chunk by chunk after {GIVEN} true frames; forecast: the expectation; generation: "
    f"a clip from nothing but the recorded ego's trajectory, a frame every {EVERY:g} s, against frames of the same "
    "scenes; floor: as many recorded frames against the rest of them; recorded: the recorded clips' own frames"
)


def clip_report(
    models: Mapping[str, ClipModel],
    scenes: Sequence[Recorded],
    encoder: OccupancyEncoder,
    name: str,
    *,
    clips: int = 8,
    windows_per_scene: int = 4,
    frames_per_scene: int = 96,
    seed: int = 0,
    on_step: Callable[[int, int], None] | None = None,
    on_clip: Callable[[str, int, torch.Tensor, RecordedClip], None] | None = None,
) -> dict[str, Any]:
    """Hold models of either family against the same recorded clips; see PROTOCOL.

    Args:
        models: by name; of one grid and one length of clips.
        scenes: what really happened.
        encoder: in whose space drawn frames are compared.
        name: the encoder's, for the report.
        clips: how many are reconstructed, and drawn.
        windows_per_scene: instants of a scene to forecast from; 0: none.
        frames_per_scene: real frames of each scene.
        seed: of the first clip's draw; the next ones count on. The same for every model.
        on_step: told how many clips have been taken apart or drawn, and of how many.
        on_clip: given each drawn clip: the model's name, its number, `DrawnClip.frames`, what was recorded.

    Raises:
        ConfigurationError: no model or no clip, or the models' grids or clips differ.
        SceneError: the scenes are too short.

    """
    frames = _length(models, clips)
    grid = next(iter(models.values())).grid
    every = round(EVERY / FRAME_SECONDS)
    recorded = partial(recorded_clips, scenes, clips, grid, frames)  # once for each model: clips are large
    looks = [encoder.encode(clip.labels[GIVEN - 1 :: every]) for clip in recorded()]
    own, count = torch.cat(looks), len(looks)
    if len(own) < LEAST:
        raise ConfigurationError(
            f"clips: {count} clips give {len(own)} frames to look at, {EVERY:g} s apart; {LEAST} are needed, "
            "give more clips"
        )
    real = real_features(scenes, grid, encoder, frames_per_scene)
    total, done = 2 * count * len(models), 0

    def told() -> None:
        nonlocal done
        done += 1
        give_back()
        if on_step:
            on_step(done, total)

    rows = []
    for which, model in models.items():
        confusion, features = Confusion(), []
        seconds, in_full = 0.0, 0.0
        for row, clip in enumerate(recorded()):
            confusion.add(model.reconstruct(clip), clip.labels[GIVEN:])
            told()
            drawn = model.draw(clip.poses, seed + row)
            seconds, in_full = seconds + drawn.seconds, in_full + drawn.seconds_in_full
            features.append(encoder.encode(drawn.frames[::every]))
            if on_clip:
                on_clip(which, row, drawn.frames, clip)
            told()
        rows.append(
            {
                "weights": which,
                "preset": model.preset,
                "parameters": model.parameters,
                "reconstruction": confusion.metrics(),
                "forecast": _forecast(model, scenes, windows_per_scene, seed),
                "generation": feature_distances(real, torch.cat(features)),
                "seconds_per_clip": seconds / count,
                "seconds_per_clip_in_full": in_full / count,
            }
        )
    return {
        "encoder": name,
        "protocol": PROTOCOL,
        "forecast_protocol": FORECAST_PROTOCOL,
        "scenes": len(scenes),
        "clips": count,
        "seconds": frames * FRAME_SECONDS,
        "frames": len(own),
        "recorded_frames": len(real),
        "models": rows,
        "recorded": feature_distances(real, own),
        "floor": feature_floor(real, len(own), seed),
    }


def _length(models: Mapping[str, ClipModel], clips: int) -> int:
    """Frames in a clip."""
    if not models or clips < 1:
        raise ConfigurationError(f"clips: {len(models)} models and {clips} clips; give 1 or more of each")
    grids = {model.grid for model in models.values()}
    lengths = {model.frames for model in models.values() if model.frames is not None}
    if len(grids) > 1 or len(lengths) > 1:
        raise ConfigurationError(
            f"clips: the models' grids {sorted(grid.shape for grid in grids)} and clips of {sorted(lengths)} frames "
            "must be the same; give weights that fit together"
        )
    frames = lengths.pop() if lengths else FRAMES
    if frames <= GIVEN:
        raise ConfigurationError(
            f"clips: of clips of {frames} frames nothing is left after the {GIVEN} that are given; give other weights"
        )
    return frames


def _forecast(
    model: ClipModel, scenes: Sequence[Recorded], windows_per_scene: int, seed: int
) -> dict[str, Any] | None:
    """Metrics by horizon; None for a model that cannot go on from what was seen, or where none are asked for."""
    if not isinstance(model, ChainedClips) or not windows_per_scene:
        return None
    report = evaluate_world(model.world, scenes, windows_per_scene=windows_per_scene, seed=seed)
    return {horizon: contestants["model"] for horizon, contestants in report["forecast"].items()}


def print_clip_report(report: dict[str, Any]) -> None:
    """Print a report as a table, a row a model."""
    from rich.console import Console
    from rich.table import Table

    horizons = ", ".join(f"{h:g}" for h in HORIZONS)
    table = Table(
        "", "parameters", "reconstruction: mIoU, dynamic, IoU", f"forecast mIoU: {horizons} s",
        "Frechet", "kernel", "precision", "recall", "s a clip (all steps)",
        title=f"{report['clips']} clips of {report['seconds']:g} s of {report['scenes']} scenes; "
        f"encoder {report['encoder']}",
    )  # fmt: skip
    keys = ("frechet", "kernel", "precision", "recall")
    for row in report["models"]:
        rebuilt, forecast = row["reconstruction"], row["forecast"]
        ahead = ["-"] if forecast is None else [_percent(forecast[f"{h}"]["miou"]) for h in HORIZONS]
        table.add_row(
            f"{row['weights']} ({row['preset']})",
            f"{row['parameters'] / 1e6:.1f} M",
            ", ".join(_percent(rebuilt[key]) for key in ("miou", "dynamic_miou", "iou")),
            ", ".join(ahead),
            *(f"{row['generation'][key]:.2f}" for key in keys),
            f"{row['seconds_per_clip']:.1f} ({row['seconds_per_clip_in_full']:.0f})",
        )
    for name, what in (("recorded", "recorded, same ways"), ("floor", "recorded, drawn at random")):
        if report[name]:
            table.add_row(what, "", "", "", *(f"{report[name][key]:.2f}" for key in keys), "")
    console = Console(width=WIDTH)
    console.print(table)
    console.print(f"forecast: the expectation; {FORECAST_PROTOCOL}")


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f}"
