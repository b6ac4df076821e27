"""How like recorded ones generated frames are: in the space of the shipped occupancy encoder, and in their ground."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from occsora_sim.cluster import Alone, Crew, Told, batches, untold
from occsora_sim.errors import ConfigurationError
from occsora_sim.geometry import relative
from occsora_sim.grid import FRAME_SECONDS, Grid
from occsora_sim.models.occupancy_encoder import OccupancyEncoder, load_encoder
from occsora_sim.scenes.recorded import Recorded
from occsora_sim.scenes.start import Start
from occsora_sim.scoring.allocator import give_back
from occsora_sim.scoring.feature_distance import frechet_distance, kernel_distance, precision_recall
from occsora_sim.scoring.ground_crops import SIDE
from occsora_sim.scoring.ground_report import ground_report, print_ground_report
from occsora_sim.scoring.ground_views import GroundWatch, Views
from occsora_sim.scoring.long_rollout import route_poses
from occsora_sim.scoring.real_clips import real_clips
from occsora_sim.worlds.protocol import World
from occsora_sim.worlds.replay import ReplayWorld

EVERY = 2.0
"""Time between the frames of a rollout that are looked at [s]."""

FEATURE_SECONDS = 16.0
"""Frames up to this time after the start are held against recorded ones in the encoder's space [s]."""

FLOORS = 20
"""Random draws behind the floors."""

PROTOCOL = (
    f"egos follow their routes by pure pursuit, blind to road users; a frame every {EVERY:g} s of the first "
    f"{FEATURE_SECONDS:g} s of each rollout against "
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
    seconds: float = FEATURE_SECONDS,
    seed: int = 0,
    batch: int = 4,
    frames_per_scene: int = 96,
    on_chunk: Callable[[int, int], None] | None = None,
    crew: Crew[World] | None = None,
) -> dict[str, Any]:
    """Roll the starts on for `seconds` and hold their frames against real ones of the same scenes (PROTOCOL), their
    ground against the recorded ground along the same ways (`ground_report`).

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
        on_chunk: told how many chunks are done, and of how many; then the parts of the report on the ground count on.
        crew: who rolls; by default this process.

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

    def judged(part: int, parts: int) -> None:
        if on_chunk:
            on_chunk(total + part, total + parts)

    length = chunks * f * FRAME_SECONDS
    crew = crew or Alone(world)
    made, drawn = _roll(crew, starts, seed, length, world.grid, encoder, batch, told)
    recorded = ground = None
    if all(start.source is not None for start in starts):
        # A perfect world that sees just these places.
        replay = Alone(ReplayWorld(world.grid, f))
        features, replayed = _roll(replay, starts, 0, length, world.grid, encoder, batch)
        recorded = feature_distances(real, features)
        if drawn is not None and replayed is not None:
            ground = ground_report(drawn, replayed, world.grid, seed=seed, on_part=judged)
    return {
        "encoder": name,
        "protocol": PROTOCOL,
        "rollouts": len(starts),
        "seconds": length,
        "frames": len(made),
        "recorded_frames": len(real),
        **feature_distances(real, made),
        "floor": feature_floor(real, len(made), seed),
        "recorded": recorded,
        "ground": ground,
    }


def _roll(
    crew: Crew[World],
    starts: Sequence[Start],
    seed: int,
    seconds: float,
    grid: Grid,
    encoder: OccupancyEncoder,
    batch: int,
    told: Told = untold,
) -> tuple[Tensor, Views | None]:
    """Roll the starts on, `batch` of them at a time: features (n, d) float64 of a frame of each every EVERY seconds,
    and what they show of the ground; None where there is no recording to hold that against, or the view is too small.
    """
    judged = all(start.source is not None for start in starts) and min(grid.shape[:2]) >= SIDE
    scenes = [id(start.source[0]) if judged else 0 for start in starts]
    number = {scene: k for k, scene in enumerate(dict.fromkeys(scenes))}
    units = [
        (rows, [starts[row] for row in rows], [number[scenes[row]] for row in rows] if judged else None)
        for rows in batches(len(starts), batch)
    ]
    work = partial(_roll_batch, seed=seed, frames=round(seconds / FRAME_SECONDS), encoder=encoder)
    features, views = zip(*crew.map(work, units, told), strict=True)
    return torch.cat(features), Views.cat(views) if judged else None


def _roll_batch(
    world: World,
    unit: tuple[range, Sequence[Start], Sequence[int] | None],
    told: Told,
    *,
    seed: int,
    frames: int,
    encoder: OccupancyEncoder,
) -> tuple[Tensor, Views | None]:
    """Features and views, see `_roll`, of the starts of some numbers, in one batch; `unit` has the numbers of their
    towns too, None if their ground is not looked at.
    """
    (rows, part, towns), f, every = unit, world.frames_per_chunk, round(EVERY / FRAME_SECONDS)
    looked_at = range(every, min(frames, round(FEATURE_SECONDS / FRAME_SECONDS)) + 1, every)
    poses, seen = route_poses(part, frames), []
    watch = None if towns is None else GroundWatch(part, towns, rows[0], world.grid)
    state = world.reset(part, [seed + row for row in rows])
    for first in range(0, frames, f):
        path = poses[:, first : first + f + 1]
        state = world.step(state, relative(path[:, :1], path[:, 1:]).float())
        if watch is not None:
            watch.see(state)
        shown = state.occupancy.unbind(1)
        seen += [frame for i, frame in enumerate(shown, start=first + 1) if i in looked_at]
        give_back()
        told()
    return encoder.encode(torch.cat(seen)), None if watch is None else watch.views()


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
        f"{report['recorded_frames']} recorded ones; encoder {report['encoder']}",
    )  # fmt: skip
    keys = ("frechet", "kernel", "precision", "recall")
    table.add_row("generated", *(f"{report[key]:.3f}" for key in keys))
    if report["recorded"]:
        table.add_row("recorded, same ways", *(f"{report['recorded'][key]:.3f}" for key in keys))
    if report["floor"]:
        table.add_row("recorded, drawn at random", *(f"{report['floor'][key]:.3f}" for key in keys))
    Console().print(table)
    if report["ground"]:
        print_ground_report(report["ground"])
