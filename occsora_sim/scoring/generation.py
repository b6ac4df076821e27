"""How like recorded frames generated ones are, in the space of the shipped occupancy encoder."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from occsora_sim.errors import ConfigurationError
from occsora_sim.geometry import relative
from occsora_sim.grid import FRAME_SECONDS, Grid
from occsora_sim.models.occupancy_encoder import OccupancyEncoder, load_encoder
from occsora_sim.scenes.recorded import Recorded
from occsora_sim.scenes.start import Start
from occsora_sim.scoring.allocator import give_back
from occsora_sim.scoring.feature_distance import frechet_distance, kernel_distance, precision_recall
from occsora_sim.scoring.long_rollout import route_poses
from occsora_sim.scoring.real_clips import real_clips
from occsora_sim.worlds.protocol import World
from occsora_sim.worlds.replay import ReplayWorld

EVERY = 2.0
"""Time between the frames of a rollout that are looked at [s]."""

FLOORS = 20
"""Random draws behind the floors."""

PROTOCOL = (
    f"egos follow their routes by pure pursuit, blind to road users; a frame every {EVERY:g} s of each rollout against "
    "frames along the recorded expert egos of the same scenes; floor: as many recorded frames against the rest; "
    "recorded: what a recorded world shows along the same ways; "
    "frechet: Heusel et al. 2017; kernel: unbiased, cubic (Binkowski et al. 2018); precision and recall: third "
    "neighbours (Kynkaanniemi et al. 2019)"
)


def shipped_encoder() -> Path:
    """The path of the shipped encoder."""
    return Path(str(resources.files("occsora_sim.assets") / "encoder" / "encoder.safetensors"))


def open_encoder(path: Path | None = None) -> tuple[OccupancyEncoder, str]:
    """An encoder (default: the shipped one) and its name, the beginning of its file's digest.

    Raises:
        CheckpointError: the file is missing, damaged, foreign or of another kind.

    """
    path = path or shipped_encoder()
    encoder, _ = load_encoder(path)
    return encoder, f"{path.stem}-{hashlib.sha256(path.read_bytes()).hexdigest()[:8]}"


def generation_report(
    world: World,
    starts: Sequence[Start],
    scenes: Sequence[Recorded],
    encoder: OccupancyEncoder,
    name: str,
    *,
    seconds: float = 16.0,
    seed: int = 0,
    batch: int = 4,
    frames_per_scene: int = 96,
    on_chunk: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Roll the starts on for `seconds` and hold their frames against real ones of the same scenes; see PROTOCOL.

    Args:
        world: any world.
        starts: where the rollouts begin; each has a route.
        scenes: real traffic of the same places.
        encoder: in whose space the frames are compared.
        name: the encoder's, for the report.
        seconds: length of a rollout [s].
        seed: of the first start; the next ones count on.
        batch: rollouts at once.
        frames_per_scene: real frames of each scene.
        on_chunk: told how many chunks are done, and of how many.

    Raises:
        ConfigurationError: no start, or less than EVERY seconds.

    """
    f = world.frames_per_chunk
    if not starts or batch < 1 or seconds < EVERY:
        raise ConfigurationError(
            f"generation: {len(starts)} starts, {seconds:g} s and batch {batch}; give 1 or more of each, at least "
            f"{EVERY:g} s"
        )
    real = real_features(scenes, world.grid, encoder, frames_per_scene)
    chunks = -(-round(seconds / FRAME_SECONDS) // f)
    total, done = -(-len(starts) // batch) * chunks, 0

    def told() -> None:
        nonlocal done
        done += 1
        if on_chunk:
            on_chunk(done, total)

    made = _features(world, starts, seed, chunks, encoder, batch, told)
    return {
        "encoder": name,
        "protocol": PROTOCOL,
        "rollouts": len(starts),
        "seconds": chunks * f * FRAME_SECONDS,
        "frames": len(made),
        "real_frames": len(real),
        **feature_distances(real, made),
        "floor": feature_floor(real, len(made), seed),
        "recorded": _recorded(world, starts, chunks, encoder, batch, real),
    }


def _features(
    world: World,
    starts: Sequence[Start],
    seed: int,
    chunks: int,
    encoder: OccupancyEncoder,
    batch: int,
    told: Callable[[], None],
) -> Tensor:
    """Features (n, d) float64 of a frame every EVERY seconds of each rollout, `batch` of them at a time."""
    f, every, features = world.frames_per_chunk, round(EVERY / FRAME_SECONDS), []
    for begin in range(0, len(starts), batch):
        part = starts[begin : begin + batch]
        poses, frames = route_poses(part, chunks * f), []
        state = world.reset(part, [seed + begin + row for row in range(len(part))])
        for k in range(chunks):
            path = poses[:, k * f : (k + 1) * f + 1]
            state = world.step(state, relative(path[:, :1], path[:, 1:]).float())
            frames += [state.occupancy[:, i] for i in range(f) if (k * f + i + 1) % every == 0]
            give_back()
            told()
        features.append(encoder.encode(torch.cat(frames)))
    return torch.cat(features)


def _recorded(
    world: World, starts: Sequence[Start], chunks: int, encoder: OccupancyEncoder, batch: int, real: Tensor
) -> dict[str, float] | None:
    """What the recorded world scores along the same ways: a perfect world that sees just these places; None where the
    starts hold no recording.
    """
    if any(start.source is None for start in starts):
        return None
    replay = ReplayWorld(world.grid)
    chunks = chunks * world.frames_per_chunk // replay.frames_per_chunk
    return feature_distances(real, _features(replay, starts, 0, chunks, encoder, batch, lambda: None))


def real_features(
    scenes: Sequence[Recorded], grid: Grid, encoder: OccupancyEncoder, per_scene: int = 96
) -> Tensor:
    """Features (n, d) float64 of `per_scene` frames of each scene, along the recorded expert egos.

    Raises:
        SceneError: a scene has no expert ego.

    """
    return real_clips(scenes, grid, 1, per_scene, encoder).features[:, 0]


def feature_distances(real: Tensor, made: Tensor) -> dict[str, float]:
    """Frechet and kernel distance, precision and recall of features (n, d) made against real ones (m, d)."""
    precision, recall = precision_recall(real, made)
    return {
        "frechet": frechet_distance(made, real),
        "kernel": kernel_distance(made, real),
        "precision": precision,
        "recall": recall,
    }


def feature_floor(real: Tensor, count: int, seed: int) -> dict[str, float] | None:
    """What `count` real frames score against the rest of them, mean over draws; None where too few are left."""
    count = min(count, len(real) // 2)
    if count < 5:
        return None
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(FLOORS):
        order = torch.from_numpy(rng.permutation(len(real)))
        rows.append(feature_distances(real[order[count:]], real[order[:count]]))
    return {key: float(np.mean([row[key] for row in rows])) for key in rows[0]}


def print_generation_report(report: dict[str, Any]) -> None:
    """Print a report as a table."""
    from rich.console import Console
    from rich.table import Table

    table = Table(
        "frames", "Frechet", "kernel", "precision", "recall",
        title=f"Generation: {report['frames']} frames of {report['rollouts']} rollouts of {report['seconds']:g} s, "
        f"{report['real_frames']} recorded ones; encoder {report['encoder']}",
    )  # fmt: skip
    keys = ("frechet", "kernel", "precision", "recall")
    table.add_row("generated", *(f"{report[key]:.3f}" for key in keys))
    if report["recorded"]:
        table.add_row("recorded, same ways", *(f"{report['recorded'][key]:.3f}" for key in keys))
    if report["floor"]:
        table.add_row("recorded, drawn at random", *(f"{report['floor'][key]:.3f}" for key in keys))
    Console().print(table)
