"""Does a scene prompt decide what is drawn? Starts from nothing under different prompts, and what is then seen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from occsora_sim.cluster import Alone, Crew, Told, batches
from occsora_sim.errors import ConfigurationError
from occsora_sim.geometry import relative
from occsora_sim.grid import FRAME_SECONDS, Grid
from occsora_sim.models.entry_view import vehicles_in_view
from occsora_sim.scene_prompt import PLACES, ScenePrompt
from occsora_sim.scenes.blank import blank_start
from occsora_sim.scenes.recorded import Recorded, drawer_of
from occsora_sim.scenes.start import place_of
from occsora_sim.scoring.allocator import give_back
from occsora_sim.scoring.frequencies import class_counts, filled_frequencies, jensen_shannon
from occsora_sim.scoring.long_rollout import route_poses
from occsora_sim.worlds.protocol import World

QUIET, BUSY = 3.0, 20.0
"""Vehicles in view that the two ends of the test ask for."""

SECONDS = 8.0
"""Length of a rollout [s]; its second half is looked at."""

PROTOCOL = (
    f"starts from nothing, driven along their routes for {SECONDS:g} s, each under every prompt with the same seed; "
    "vehicles in view, parked ones too, are counted in the second half; a place is known by its mean shares of the "
    "classes there, against recorded frames of each kind of place (Jensen-Shannon divergence)"
)


def scene_control_report(
    world: World,
    count: int,
    scenes: Sequence[Recorded],
    *,
    seed: int = 0,
    batch: int = 4,
    frames_per_scene: int = 48,
    on_chunk: Callable[[int, int], None] | None = None,
    crew: Crew[World] | None = None,
) -> dict[str, Any]:
    """Roll `count` starts from nothing under prompts for few and many vehicles and for every place; see PROTOCOL.

    "vehicles_obeyed": in every start more vehicles are seen where many were asked for. "vehicles_swap_fails": the mean
    number seen is nearer to what was asked than to what the other prompt asked, both ways. "places_obeyed": among the
    recorded kinds of place the nearest to what is drawn is the one asked for, for each; with the prompts swapped it
    then fails. null where `scenes` hold fewer than two kinds.

    Args:
        world: a generated world.
        count: starts.
        scenes: recorded ones, of the kinds of place to compare with (attribute "plan").
        seed: of the first start.
        batch: rollouts at once.
        frames_per_scene: recorded frames of each scene.
        on_chunk: told how many batches of rollouts are done, and of how many.
        crew: who rolls; by default this process.

    Raises:
        ConfigurationError: no start.

    """
    if count < 1 or batch < 1:
        raise ConfigurationError(f"scene prompts: {count} starts and batch {batch}; give 1 or more of each")
    real = _recorded_places(scenes, world.grid, frames_per_scene)
    prompts = {
        "quiet": ScenePrompt(vehicles=QUIET),
        "busy": ScenePrompt(vehicles=BUSY),
        "open": ScenePrompt(),
    }
    prompts |= {name: ScenePrompt(place=name) for name in real}
    seen: dict[str, Tensor] = {}
    shares: dict[str, Tensor] = {}
    groups = batches(count, batch)
    units = [(prompt, rows) for prompt in prompts.values() for rows in groups]
    drawn = []
    for done, found in enumerate((crew or Alone(world)).map(partial(_drawn, seed=seed), units), start=1):
        drawn.append(found)
        if on_chunk:
            on_chunk(done, len(units))
    for index, name in enumerate(prompts):
        vehicles, counts = zip(*drawn[index * len(groups) : (index + 1) * len(groups)], strict=True)
        seen[name], shares[name] = torch.cat(vehicles), filled_frequencies(torch.cat(counts).sum(0))
    means = {name: float(seen[name].mean()) for name in seen}
    table = {
        name: {other: float(jensen_shannon(shares[name], real[other])) for other in real}
        for name in ("open", *real)
    }
    near = {name: min(row.items(), key=lambda item: item[1])[0] for name, row in table.items() if row}
    quiet, busy = means["quiet"], means["busy"]
    return {
        "protocol": PROTOCOL,
        "starts": count,
        "asked": {"quiet": QUIET, "busy": BUSY},
        "vehicles": means,
        "vehicles_obeyed": bool((seen["busy"] > seen["quiet"]).all()),
        "vehicles_swap_fails": abs(quiet - QUIET) < abs(quiet - BUSY)
        and abs(busy - BUSY) < abs(busy - QUIET),
        "divergence": table,
        "nearest": near,
        "places_obeyed": all(near[name] == name for name in real) if len(real) > 1 else None,
    }


def _drawn(world: World, unit: tuple[ScenePrompt, range], told: Told, *, seed: int) -> tuple[Tensor, Tensor]:
    """Mean vehicles in view (n,) and voxels of each class (n, NUM_CLASSES) in the second half of the rollouts of some
    numbers under a prompt, in one batch.
    """
    (prompt, rows), f = unit, world.frames_per_chunk
    chunks = max(2, round(SECONDS / FRAME_SECONDS / f))
    starts = [
        replace(blank_start(np.random.default_rng(seed + row), world.grid), prompt=prompt) for row in rows
    ]
    poses = route_poses(starts, chunks * f)
    state, frames, seen = world.reset(starts, [seed + row for row in rows]), [], []
    for k in range(chunks):
        path = poses[:, k * f : (k + 1) * f + 1]
        state = world.step(state, relative(path[:, :1], path[:, 1:]).float())
        give_back()
        if k >= chunks // 2:
            frames.append(state.occupancy)
            assert state.users is not None, "a world that takes scene prompts tells road users apart"
            seen.append(vehicles_in_view(state.users, state.ego_pose[:, -1], world.grid))
    return torch.stack(seen).mean(dim=0), class_counts(torch.cat(frames, dim=1))


def _recorded_places(scenes: Sequence[Recorded], grid: Grid, frames: int) -> dict[str, Tensor]:
    """Shares of the classes (NUM_CLASSES - 1,) in recorded frames of each kind of place, in the order of PLACES."""
    counts: dict[str, Tensor] = {}
    for scene in scenes:
        place = place_of(scene).place
        if place is None:
            continue
        ego, step = np.nonzero(scene.ego_valid)
        rows = np.linspace(0, len(ego) - 1, min(frames, len(ego))).round().astype(int)
        drawn = drawer_of(scene, grid).frames(
            torch.from_numpy(scene.ego_pose[ego[rows], step[rows]]),
            torch.from_numpy(step[rows] * scene.dt),
            torch.from_numpy(scene.ego_track[ego[rows]]),
        )
        counts[place] = counts.get(place, 0) + class_counts(drawn).sum(0)
    return {place: filled_frequencies(counts[place]) for place in PLACES if place in counts}


def print_scene_control_report(report: dict[str, Any]) -> None:
    """Print the report as tables."""
    from rich.console import Console
    from rich.table import Table

    console, asked, seen = Console(), report["asked"], report["vehicles"]
    console.print(
        f"Scene prompts, {report['starts']} starts: vehicles in view, asked {asked['quiet']:g}: {seen['quiet']:.1f}; "
        f"asked {asked['busy']:g}: {seen['busy']:.1f}; open: {seen['open']:.1f}. More in every start: "
        f"{report['vehicles_obeyed']}; swapped prompts fail: {report['vehicles_swap_fails']}"
    )
    places = list(report["divergence"]["open"])
    if not places:
        return
    table = Table(
        "asked", *places, "nearest", title="Divergence of class shares from recorded places [1/1000]"
    )
    for name, row in report["divergence"].items():
        table.add_row(name, *(f"{1000 * row[place]:.1f}" for place in places), report["nearest"][name])
    console.print(table)
    console.print(f"every place is nearest to what was asked for: {report['places_obeyed']}")
