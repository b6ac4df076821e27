"""The report on a world's traffic: its realism between floor and ceiling, and plain figures beside recorded ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from operator import attrgetter
from typing import Any

import numpy as np
import torch
from torch import Tensor

from occsora_sim.cluster import Alone, Crew, Told, batches
from occsora_sim.errors import ConfigurationError
from occsora_sim.grid import FRAME_SECONDS
from occsora_sim.road_users import HISTORY
from occsora_sim.scenes.recorded import Recorded
from occsora_sim.scoring.traffic_features import traffic_features
from occsora_sim.scoring.traffic_log import AREA, TrafficLog, constant_velocity_log, recorded_log
from occsora_sim.scoring.traffic_realism import (
    FEATURES,
    FIGURES,
    SPANS,
    Likelihood,
    Tally,
    figures,
    likelihood,
    of_the_way,
    stack,
    tally,
)
from occsora_sim.scoring.traffic_rollout import SHORTEST, Way, recorded_ways, roll_ways
from occsora_sim.worlds.protocol import World

RESAMPLES = 1000

PROTOCOL = (
    "egos driven along recorded expert motions; road users in view, of those within "
    f"{AREA:g} m; the recording of each scene judged under histograms of the other scenes' rollouts (of one scene: of "
    "the other rollouts), after Montali et al. 2023; ceiling: recorded traffic in the world's place; floor: whoever is "
    "in view at the start at constant velocity; intervals: 95 %, scenes (of one scene: rollouts) drawn again"
)

_PERCENT = ("faster", "persistence", "standing", "off_road", "overlap", "vehicle_overlap", "touching")
_CONTESTANTS = ("model", "recorded", "floor")


def traffic_report(
    world: World,
    scenes: Sequence[Recorded],
    *,
    rollouts: int,
    seconds: float = 60.0,
    seed: int = 0,
    batch: int = 4,
    on_chunk: Callable[[int, int], None] | None = None,
    crew: Crew[World] | None = None,
) -> dict[str, Any]:
    """Drive recorded ways in a world, and hold its traffic against the recorded; see PROTOCOL and `traffic_realism`.

    "realism": the joint likelihood of "model", "ceiling" and "floor", and "of_the_way", each with its interval; null
    where a single rollout leaves nothing to judge it by. "spans": for each part of the rollout that exists the same,
    the likelihood of each of the "features", and plain "figures" of "model", "recorded" and "floor".

    Args:
        world: any world whose states carry road users.
        scenes: with tracks.
        rollouts: how many.
        seconds: length of each [s], as far as it is recorded.
        seed: of the first rollout; the next ones count on, and of the intervals.
        batch: rollouts at once.
        on_chunk: told how many chunks are done, and of how many.
        crew: who rolls; by default this process.

    Raises:
        ConfigurationError: no rollout, one too short, or a world without road users.
        SceneError: no scene has tracks and an expert ego.

    """
    frames = round(seconds / FRAME_SECONDS)
    if min(rollouts, batch) < 1 or frames < SHORTEST:
        raise ConfigurationError(
            f"traffic: {rollouts} rollouts of {seconds:g} s in batches of {batch}; give 1 or more, of "
            f"{SHORTEST * FRAME_SECONDS:g} s or more"
        )
    ways = recorded_ways(scenes, rollouts, frames, world.grid)
    by_length = sorted(
        range(len(ways)), key=lambda k: -ways[k].frames
    )  # a batch lasts as long as its longest
    groups = [[by_length[k] for k in rows] for rows in batches(len(ways), batch)]
    chunk, done = min(world.frames_per_chunk, HISTORY), 0
    chunks = sum(-(-ways[rows[0]].frames // chunk) for rows in groups)

    def told() -> None:
        nonlocal done
        done += 1
        if on_chunk:
            on_chunk(done, chunks)

    def judged(log: TrafficLog) -> Tally:
        return tally(traffic_features(log, world.grid))

    units = [([ways[row] for row in rows], [seed + row for row in rows]) for rows in groups]
    model: dict[int, Tally] = {}
    for rows, found in zip(groups, (crew or Alone(world)).map(_rolled, units, told), strict=True):
        model |= dict(zip(rows, found, strict=True))
    tallies = {
        "model": stack([model[row] for row in range(len(ways))]),
        "recorded": stack([judged(_made(recorded_log, way, world)) for way in ways]),
        "floor": stack([judged(_made(constant_velocity_log, way, world)) for way in ways]),
    }
    return _report(tallies, ways, seed)


def _rolled(world: World, unit: tuple[Sequence[Way], Sequence[int]], told: Told) -> list[Tally]:
    """The tallies of ways driven in a world with their seeds, in one batch."""
    return [tally(traffic_features(log, world.grid)) for log in roll_ways(world, *unit, told)]


def _made(make: Callable[..., TrafficLog], way: Way, world: World) -> TrafficLog:
    log = make(way.scene, way.ego, way.step, way.frames + 1, world.grid, way.ground)
    return log.in_chunks(min(world.frames_per_chunk, HISTORY))


def _report(tallies: dict[str, Tally], ways: Sequence[Way], seed: int) -> dict[str, Any]:
    """Figures of the tallies, one row a way."""
    scenes = sorted({way.group for way in ways})
    group = [scenes.index(way.group) for way in ways] if len(scenes) > 1 else list(range(len(ways)))
    summed = {name: rows.grouped(group) for name, rows in tallies.items()}
    n = max(group) + 1
    drawn = np.random.default_rng(seed).integers(n, size=(RESAMPLES, n))
    times = torch.from_numpy(np.stack([np.bincount(row, minlength=n) for row in drawn])).double()
    plain = {name: (figures(rows.sums), figures(rows.sums, times)) for name, rows in summed.items()}
    realism = _realism(summed, times) if n > 1 else None
    longest = max(way.frames for way in ways) * FRAME_SECONDS
    spans = {}
    for s, (begin, end) in enumerate(SPANS):
        if longest <= begin:
            continue
        part: dict[str, Any] = {"until": min(end, longest), "realism": None, "features": None}
        if realism:
            part["realism"] = _joint(realism, partial(_of_span, s))
            part["features"] = {
                name: {who: _number(found.features[s, f]) for who, (found, _) in realism.items()}
                for f, name in enumerate(FEATURES)
            }
        part["figures"] = {
            name: {who: _with_interval(point[s, f], draws[:, s, f]) for who, (point, draws) in plain.items()}
            for f, name in enumerate(FIGURES)
        }
        spans[f"{begin:g}-{end:g}"] = part
    return {
        "rollouts": len(ways),
        "scenes": len(scenes),
        "seconds": longest,
        "protocol": PROTOCOL,
        "meaning": FIGURES,
        "realism": _joint(realism, attrgetter("joint")) if realism else None,
        "spans": spans,
    }


def _of_span(span: int, found: Likelihood) -> Tensor:
    return found.spans[..., span]


Pair = tuple[Likelihood, Likelihood]
"""Of all groups, and of the groups drawn again."""


def _realism(summed: dict[str, Tally], times: Tensor) -> dict[str, Pair]:
    """Likelihoods of each contestant: of all groups, and of the groups drawn again."""
    recorded = summed["recorded"].counts
    # A draw of one group alone leaves nothing to judge it by.
    several = times[(times > 0).sum(dim=1) > 1]
    names = {"model": "model", "ceiling": "recorded", "floor": "floor"}
    return {
        name: (likelihood(summed[key].counts, recorded), likelihood(summed[key].counts, recorded, several))
        for name, key in names.items()
    }


def _joint(realism: dict[str, Pair], pick: Callable[[Likelihood], Tensor]) -> dict[str, Any]:
    """One joint figure of each contestant, and how far the model has come from the floor to the ceiling."""
    values = {name: (pick(point), pick(draws)) for name, (point, draws) in realism.items()}
    table: dict[str, Any] = {name: _with_interval(point, draws) for name, (point, draws) in values.items()}
    way = [of_the_way(*(values[name][k] for name in ("model", "floor", "ceiling"))) for k in (0, 1)]
    return table | {"of_the_way": _with_interval(way[0], way[1])}


def _with_interval(point: Tensor, draws: Tensor) -> dict[str, Any]:
    """A figure, and the percentile interval of its draws (r,): null with one group, or where one in twenty fails."""
    known, ends = draws[draws.isfinite()], None
    if len(known) >= max(0.95 * len(draws), 1) and bool((known != known[0]).any()):
        ends = torch.quantile(known, known.new_tensor([0.025, 0.975])).tolist()
    return {"value": _number(point), "interval": ends}


def _number(value: Tensor) -> float | None:
    return float(value) if bool(value.isfinite()) else None


def figure_rows(report: dict[str, Any]) -> list[tuple[str, ...]]:
    """Plain figures as rows of text: span, figure, model with its interval, recorded, floor."""
    rows: list[tuple[str, ...]] = []
    for span, part in report["spans"].items():
        for name, table in part["figures"].items():
            scale, unit = (100.0, " [%]") if name in _PERCENT else (1.0, "")
            model, recorded, floor = (_text(table[who]["value"], scale) for who in _CONTESTANTS)
            rows.append((f"{span} s", name + unit, model, _ends(table["model"], scale), recorded, floor))
    return rows


def realism_rows(report: dict[str, Any]) -> list[tuple[str, ...]]:
    """The likelihoods as rows of text: span, feature, model, ceiling, floor, of the way [%] with its interval."""
    rows: list[tuple[str, ...]] = []
    for span, part in [*((f"{name} s", part) for name, part in report["spans"].items()), ("whole", report)]:
        whole = part["realism"]
        if whole is None:
            continue
        for name, table in (part.get("features") or {}).items():
            values = (_text(table[who], 1.0, 3) for who in ("model", "ceiling", "floor"))
            rows.append((span, name, *values, "", ""))
        values = (_text(whole[who]["value"], 1.0, 3) for who in ("model", "ceiling", "floor"))
        way = whole["of_the_way"]
        rows.append((span, "joint", *values, _text(way["value"], 100.0), _ends(way, 100.0)))
    return rows


def _text(value: float | None, scale: float, digits: int = 1) -> str:
    return "-" if value is None else f"{scale * value:.{digits}f}"


def _ends(entry: dict[str, Any], scale: float) -> str:
    low_high = entry["interval"]
    return "" if low_high is None else f"{scale * low_high[0]:.1f} to {scale * low_high[1]:.1f}"


def print_traffic_report(report: dict[str, Any]) -> None:
    """Print the plain figures, the likelihoods, and what the plain figures mean."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    title = f"Traffic: {report['rollouts']} rollouts of up to {report['seconds']:g} s in {report['scenes']} scenes"
    plain = Table(
        "time", "road users in view", "model", "interval", "recorded", "constant velocity", title=title
    )
    for row in figure_rows(report):
        plain.add_row(*row)
    console.print(plain)
    for name, meaning in report["meaning"].items():
        console.print(f"{name}: {meaning}", highlight=False)
    if report["realism"] is None:
        console.print("realism: needs two rollouts or more")
        return
    table = Table(
        "time", "likelihood of", "model", "recorded", "constant velocity", "of the way [%]", "interval",
        title="Traffic: likelihood of the recorded under the rolled out",
    )  # fmt: skip
    for row in realism_rows(report):
        table.add_row(*row)
    console.print(table)
