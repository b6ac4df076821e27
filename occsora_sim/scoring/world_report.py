"""How good a generated world is: reconstruction and forecasting, against the baselines it must beat."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import accumulate, islice
from typing import Any

import torch
from torch import Tensor

from occsora_sim.cluster import Alone, Crew, Told
from occsora_sim.grid import CLASSES, DYNAMIC, FRAME_SECONDS
from occsora_sim.scenes.recorded import Recorded
from occsora_sim.scoring.allocator import give_back
from occsora_sim.scoring.confusion import Confusion
from occsora_sim.scoring.forecasting import (
    FUTURE,
    HISTORY,
    HORIZONS,
    ForecastWindow,
    chunk_trajectories,
    copy_last,
    ego_warp,
    forecast_windows,
    oracle,
    scenes_with_windows,
    window_count,
)
from occsora_sim.scoring.interval import pooled_intervals
from occsora_sim.worlds.diffusion import DiffusionWorld

PROTOCOL = (
    f"2 Hz; {HISTORY} history frames given ({HISTORY * FRAME_SECONDS:g} s); ego motion given: the ego's true future "
    f"trajectory, but not the route; scored at the instants {', '.join(f'{h:g}' for h in HORIZONS)} s, each by itself, "
    f"not the mean up to it; expert egos; windows {FUTURE} frames apart, spread evenly over each scene; voxels only, "
    "pooled over the whole set, no visibility masks"
)
"""What a forecast's figures mean; printed with each table of them."""

CONTESTANTS = {
    "model": "the expectation: ground of which most is expected to be right, likeliest motions; voxels alone given",
    "draw": "what the environment runs: one drawn future, {steps} calls of the network for a tile of new ground "
    "(here without the route)",
    "model_tracks": "the expectation, where the history's tracks are given too",
    "draw_tracks": "one drawn future, where the history's tracks are given too",
    "ego_warp": "the last frame, moved by the ego's motion",
    "copy": "the last frame",
    "tokenizer": "the ceiling: the true future through the tokenizer",
    "oracle": "true velocity kept, true map",
}
"""Who is scored, in the order of the table, and what each is."""


def evaluate_world(
    world: DiffusionWorld,
    scenes: Sequence[Recorded],
    *,
    windows_per_scene: int = 16,
    batch: int = 4,
    seed: int = 0,
    on_window: Callable[[int], None] | None = None,
    crew: Crew[DiffusionWorld] | None = None,
) -> dict[str, Any]:
    """Score a world against truth, warp, copy, its own tokenizer, and objects at constant velocity on the true map.

    Pooled over the scenes that hold a window, with 95 % intervals that draw the scenes again (null for a single one).
    Who is scored: CONTESTANTS; a drawn future is penalised for choosing. No more than a batch of windows is held.

    Args:
        world: the generated world; its weights are used in both modes.
        scenes: what to score on.
        windows_per_scene: windows of each scene.
        batch: windows per call.
        seed: of the drawn futures.
        on_window: told how many windows are done.
        crew: who forecasts; by default this process.

    """
    scenes = scenes_with_windows(scenes)
    counts = [window_count(scene, windows_per_scene) for scene in scenes]
    seeds = [seed + before for before in accumulate(counts, initial=0)]
    done = 0

    def told() -> None:
        nonlocal done
        done += 1
        if on_window:
            on_window(done)

    work = partial(_score, windows_per_scene=windows_per_scene, batch=batch)
    units = list(zip(scenes, seeds[:-1], strict=True))
    scored = list((crew or Alone(world)).map(work, units, told))
    tables = {h: {name: [found[h][name] for found, _ in scored] for name in CONTESTANTS} for h in HORIZONS}
    reconstruction = Confusion.pooled([found for _, found in scored])
    return {
        "scenes": len(scenes),
        "windows": sum(counts),
        "protocol": PROTOCOL,
        "contestants": {name: what.format(steps=world.steps) for name, what in CONTESTANTS.items()},
        "reconstruction": reconstruction.metrics(),
        "forecast": {f"{h}": _horizon(tables[h]) for h in HORIZONS},
    }


def _score(
    world: DiffusionWorld, unit: tuple[Recorded, int], told: Told, *, windows_per_scene: int, batch: int
) -> tuple[dict[float, dict[str, Confusion]], Confusion]:
    """The counts of a scene, whose first window has the seed: by horizon and contestant, and of the reconstruction."""
    scene, seed = unit
    table = {h: {name: Confusion() for name in CONTESTANTS} for h in HORIZONS}
    reconstruction, f = Confusion(), world.frames_per_chunk
    windows = forecast_windows(scene, windows_per_scene, world.grid)
    while part := list(islice(windows, batch)):
        truth = torch.stack([window.truth for window in part])
        for name, answer in _answers(world, part, truth, seed):
            for horizon in HORIZONS:
                k = round(horizon / FRAME_SECONDS) - 1
                table[horizon][name].add(answer[:, k], truth[:, k])
            if name == "tokenizer":
                reconstruction.add(answer[:, :f], truth[:, :f])
        seed += len(part)
        for _ in part:
            told()
    return table, reconstruction


def _answers(
    world: DiffusionWorld, windows: Sequence[ForecastWindow], truth: Tensor, seed: int
) -> Iterator[tuple[str, Tensor]]:
    """The contestants' frames (b, FUTURE, x, y, z), one contestant after another; none of the oracle's where a window
    has no velocities. `truth`, of the same shape, is for the tokenizer alone.
    """
    grid = world.grid
    expectation, drawn = (world.variant(mode=mode, follow_route=False) for mode in ("mean", "sample"))
    yield "model", _roll(expectation, windows, seed, None)
    yield "draw", _roll(drawn, windows, seed, None)
    if all(window.users is not None for window in windows):
        tracked = [replace(w, start=replace(w.start, users=w.users)) for w in windows]
        yield "model_tracks", _roll(expectation, tracked, seed, None)
        yield "draw_tracks", _roll(drawn, tracked, seed, None)
    yield "ego_warp", torch.stack([ego_warp(window, grid) for window in windows])
    yield "copy", torch.stack([copy_last(window, grid) for window in windows])
    yield "tokenizer", _roll(expectation, windows, seed, truth)
    known = [frames for window in windows if (frames := oracle(window, grid)) is not None]
    if len(known) == len(windows):
        yield "oracle", torch.stack(known)


def _horizon(table: dict[str, list[Confusion]]) -> dict[str, dict[str, Any]]:
    """Metrics of every contestant, pooled over the scenes, with intervals over the scenes of themselves ("interval")
    and of their gain over the warp ("gain_interval"). A contestant that scored nowhere is left out.
    """
    rows: dict[str, dict[str, Any]] = {}
    for name, scenes in table.items():
        pooled = Confusion.pooled(scenes)
        if not int(pooled.counts.sum()):
            continue
        rows[name] = pooled.metrics() | {
            "interval": pooled_intervals(scenes),
            "gain_interval": pooled_intervals(scenes, table["ego_warp"]) if name != "ego_warp" else None,
        }
    return rows


def _roll(
    world: DiffusionWorld, windows: Sequence[ForecastWindow], seed: int, truth: Tensor | None
) -> Tensor:
    """Frames (b, FUTURE, x, y, z) along the true ego motion; with `truth`, the tokenizer's rendition of it."""
    starts = [replace(w.start) for w in windows]
    state = world.reset(starts, [seed + k for k in range(len(starts))])
    frames = []
    for k, trajectory in enumerate(chunk_trajectories(windows, world.frames_per_chunk)):
        if truth is None:
            state = world.step(state, trajectory)
        else:
            begin = k * world.frames_per_chunk
            state = world.reconstruct(state, trajectory, truth[:, begin : begin + world.frames_per_chunk])
        frames.append(state.occupancy)
        give_back()
    return torch.cat(frames, dim=1).cpu()


def report_rows(report: dict[str, Any]) -> list[tuple[str, ...]]:
    """The report as rows of text: horizon, who, mIoU, dynamic mIoU, IoU, mIoU (OccWorld) [%], and the intervals of what
    mIoU and dynamic mIoU gain over the warp [points].
    """

    def percent(value: float | None) -> str:
        return "-" if value is None else f"{100 * value:.1f}"

    def gain(metrics: dict[str, Any], key: str) -> str:
        ends = (metrics["gain_interval"] or {}).get(key)
        return "" if ends is None else f"{100 * ends[0]:+.1f} to {100 * ends[1]:+.1f}"

    keys = ("miou", "dynamic_miou", "iou", "miou_occworld")
    rows = [("chunk", "reconstruction", *(percent(report["reconstruction"][key]) for key in keys), "", "")]
    for horizon, table in report["forecast"].items():
        for name, metrics in table.items():
            values = (percent(metrics[key]) for key in keys)
            rows.append((f"{horizon} s", name, *values, gain(metrics, "miou"), gain(metrics, "dynamic_miou")))
    return rows


def print_world_report(report: dict[str, Any]) -> None:
    """Print both tables of a report."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    title = f"{report['windows']} windows of {report['scenes']} scenes [%]"
    table = Table(
        "horizon", "who", "mIoU", "dynamic", "IoU", "mIoU (OccWorld)", "gain", "dynamic gain", title=title
    )
    for row in report_rows(report):
        table.add_row(*row)
    console.print(table)
    for name in report["forecast"][next(iter(report["forecast"]))]:
        console.print(f"{name}: {report['contestants'][name]}")
    if report["scenes"] > 1:
        console.print("gain: 95 % interval over the scenes of mIoU against ego_warp, in points")
    console.print(f"protocol: {report['protocol']}")
    horizon = next(iter(report["forecast"]))
    classes = Table(
        "class", *report["forecast"][horizon], title=f"IoU per class at {horizon} s [%]; * road users"
    )
    for row in class_rows(report, horizon):
        classes.add_row(*row)
    console.print(classes)


def class_rows(report: dict[str, Any], horizon: str = "1.0") -> list[tuple[str, ...]]:
    """IoU per class at one horizon [%]: class, then a column for each contestant; road users are starred."""
    table = report["forecast"][horizon]
    names = [CLASSES[label] for label in DYNAMIC]
    rows = []
    for name in CLASSES[:-1]:
        values = [m["per_class"][name] for m in table.values()]
        if any(value is not None for value in values):
            label = f"{name} *" if name in names else name
            rows.append((label, *("-" if v is None else f"{100 * v:.1f}" for v in values)))
    return rows
