"""How well drawn ground passes for recorded ground: a classifier that tries to tell them apart, and their shapes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from occsora_sim.grid import Grid
from occsora_sim.scoring.frequencies import jensen_shannon
from occsora_sim.scoring.ground_classifier import ClassifierConfig, auc_over_towns, cross_score
from occsora_sim.scoring.ground_crops import APART, SIDE, Crops, commonest, take_crops
from occsora_sim.scoring.ground_shapes import BEND, CIRCLE, buildings_of, street_nodes, widths
from occsora_sim.scoring.ground_views import BUILDINGS, EVERY, PAVEMENT, ROAD, Views

SPANS: dict[str, tuple[float, float]] = {"early": (0.0, 20.0), "late": (20.0, float("inf"))}
"""Parts of a rollout that are judged each by itself [s]: after the first, up to the second."""

FACTORS = (1, 4, 8)
"""Columns along a cell: as they are, and the commonest kind of 4 by 4 and of 8 by 8."""

STEP = 40.0
"""Between the looks that shapes are measured in an ego drives this far at least [m]."""

LEAST_AREA = 20.0
"""Buildings smaller than this have no outline worth the name [m2]; they count among the sizes."""

SPLITS = 20
"""Random halves of the recorded looks behind the floors of the shapes."""

SHAPES: dict[str, tuple[str, tuple[float, ...]]] = {
    "road_width": ("width of roads [m]", (2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 14, 17, 20, 24)),
    "pavement_width": ("width of pavements [m]", (0.6, 1, 1.4, 1.8, 2.2, 2.6, 3, 3.5, 4, 5, 6, 8)),
    "dead_ends": ("roads that end in nothing, of ends and junctions", (0.5,)),
    "building_area": ("size of buildings [m2]", (1, 2, 5, 10, 20, 50, 100, 150, 200, 300, 400, 600, 1000)),
    "rectangularity": (
        f"building over its smallest rectangle, from {LEAST_AREA:g} m2",
        (0.4, 0.5, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 0.98),
    ),
    "straightness": (
        f"straight share of its outline, from {LEAST_AREA:g} m2",
        tuple(np.arange(0.05, 1, 0.05)),
    ),
    "standing": ("vehicles in view that stand", (0.5, 1.5, 2.5, 3.5, 4.5, 5.5, 7.5, 9.5, 12.5, 16.5)),
}
"""What each shape is, and inner edges of its histogram's bins."""

PROTOCOL = (
    "egos follow their routes by pure pursuit; the ground is written down when first shown and looked at every "
    f"{EVERY:g} s, of the drawn and of the recorded world from the same poses; only what was out of view at the start "
    f"counts; crops of {SIDE} columns, middles {APART:g} m apart, none with an empty column; AUC: a network trained "
    "on half of the towns, on the other half, mean over towns, 95 % interval over towns; recorded: one random half of "
    f"the recorded crops against the other; early up to {SPANS['late'][0]:g} s, late after; shapes: every {STEP:g} m, "
    "mean, and Jensen-Shannon divergence [bit] of the histograms; floor: of random halves of the recorded rollouts; "
    f"dead ends by circles of {CIRCLE:g} m (share of a street network's nodes, Boeing 2017); straight for {BEND:g} m "
    "either way"
)


def ground_report(
    drawn: Views,
    recorded: Views,
    grid: Grid,
    *,
    seed: int = 0,
    config: ClassifierConfig | None = None,
    on_part: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Hold drawn ground against recorded ground; see PROTOCOL.

    Args:
        drawn: looks at rollouts.
        recorded: looks at the recording from the same poses, in the same order.
        grid: the voxels of the looks.
        seed: of the folds, the networks and the splits.
        config: of the networks.
        on_part: told how many networks' figures are done, and of how many.

    Returns:
        `protocol`, `rollouts`, `towns`, `crops`, `holes` (places left out because a drawn column is empty),
        `classifier`: for `ground` and `with_road_users` (null where the world does not tell these apart), for each
        size of cell, `drawn` and `recorded`, each `early` and `late`; `shapes`: early and late. Null where there is too
        little to tell.

    """
    config = config or ClassifierConfig()
    first, second, holes = take_crops(drawn, recorded, grid)
    contents = {"ground": True, "with_road_users": not bool((drawn.standing < 0).any())}
    total, done = len(FACTORS) * sum(contents.values()), 0
    judged: dict[str, Any] = {}
    for content, there in contents.items():
        judged[content] = {} if there else None
        for factor in FACTORS if there else ():
            images = [
                commonest(crops.ground if content == "ground" else crops.shown, factor)
                for crops in (first, second)
            ]
            judged[content][f"{factor * grid.voxel:g}"] = _judge(images, first, config, seed)
            done += 1
            if on_part:
                on_part(done, total)
    return {
        "protocol": PROTOCOL,
        "rollouts": len(drawn.rollout.unique()),
        "towns": len(drawn.town.unique()),
        "crops": len(first.town),
        "holes": holes,
        "classifier": judged,
        "shapes": {span: _shapes(drawn, recorded, grid, *bounds, seed) for span, bounds in SPANS.items()},
    }


def _judge(images: list[Tensor], crops: Crops, config: ClassifierConfig, seed: int) -> dict[str, Any]:
    """AUC of drawn against recorded images, and of halves of the recorded ones, in each span."""
    drawn, recorded = images
    half = torch.zeros(len(recorded), dtype=torch.bool)
    half[torch.from_numpy(np.random.default_rng(seed).permutation(len(half)))[: len(half) // 2]] = True
    sets = {
        "drawn": (drawn, recorded, crops, crops),
        "recorded": (recorded[half], recorded[~half], crops.select(half), crops.select(~half)),
    }
    found: dict[str, Any] = {}
    for name, (one, other, of_one, of_other) in sets.items():
        towns = (of_one.town, of_other.town)
        scored = cross_score(one, other, towns, config, seed)
        found[name] = {
            span: None
            if scored is None
            else auc_over_towns(
                scored,
                towns,
                (_within(of_one.seconds, *bounds), _within(of_other.seconds, *bounds)),
                seed=seed,
            )
            for span, bounds in SPANS.items()
        }
    return found


def _within(seconds: Tensor, after: float, to: float) -> Tensor:
    return (seconds > after) & (seconds <= to)


def _shapes(
    drawn: Views, recorded: Views, grid: Grid, after: float, to: float, seed: int
) -> dict[str, Any] | None:
    """The shapes of one span: of each the mean of both, how many there are, and the divergence; None without looks."""
    rows = _spaced(drawn, after, to)
    if not len(rows):
        return None
    one, other = measure_shapes(drawn.select(rows), grid), measure_shapes(recorded.select(rows), grid)
    rollout = drawn.rollout[rows]
    found: dict[str, Any] = {}
    for name, (_, edges) in SHAPES.items():
        (mine, _), (real, of) = one[name], other[name]
        found[name] = {
            "drawn": _mean(mine),
            "recorded": _mean(real),
            "samples": [len(mine), len(real)],
            "divergence": _divergence(mine, real, edges),
            "floor": _floor(real, rollout[of], edges, seed),
        }
    return found


def _spaced(views: Views, after: float, to: float) -> Tensor:
    """Looks (k,) int64 of a span between which the egos drove STEP, and at whose ground half is new at least."""
    chosen: list[int] = []
    last: dict[int, Tensor] = {}
    new = views.new.flatten(1).double().mean(dim=1)
    for look in (_within(views.seconds, after, to) & (new >= 0.5)).nonzero()[:, 0].tolist():
        number, place = int(views.rollout[look]), views.pose[look, :2]
        if number not in last or float((place - last[number]).norm()) >= STEP:
            last[number] = place
            chosen.append(look)
    return torch.tensor(chosen, dtype=torch.long)


def measure_shapes(views: Views, grid: Grid) -> dict[str, tuple[Tensor, Tensor]]:
    """All of SHAPES in the new ground of looks: values (k,) float64, and the look that each is of (k,) int64."""
    parts: dict[str, list[tuple[Tensor, int]]] = {name: [] for name in SHAPES}
    for look in range(len(views.ground)):
        kinds, region = views.ground[look : look + 1], views.new[look : look + 1]
        road = kinds == ROAD
        ends, junctions = (int(count) for count in street_nodes(road, region, grid.voxel))
        built = torch.isin(kinds, torch.tensor(BUILDINGS, dtype=torch.uint8))
        buildings = buildings_of(built, region, grid.voxel)
        large = buildings.area >= LEAST_AREA
        values = {
            "road_width": widths(road, region, grid.voxel),
            "pavement_width": widths(kinds == PAVEMENT, region, grid.voxel),
            "dead_ends": torch.cat((torch.ones(ends), torch.zeros(junctions))),
            "building_area": buildings.area,
            "rectangularity": buildings.rectangularity[large],
            "straightness": buildings.straightness[large],
            "standing": views.standing[look : look + 1][views.standing[look : look + 1] >= 0],
        }
        for name, value in values.items():
            parts[name].append((value.double(), look))
    return {
        name: (
            torch.cat([value for value, _ in found]),
            torch.cat([torch.full((len(value),), look) for value, look in found]),
        )
        for name, found in parts.items()
    }


def _mean(values: Tensor) -> float | None:
    return float(values.mean()) if len(values) else None


def _divergence(one: Tensor, other: Tensor, edges: tuple[float, ...]) -> float | None:
    """Jensen-Shannon divergence [bit] of the histograms of values (k,) and (m,); None where either is empty."""
    if not len(one) or not len(other):
        return None
    bounds = torch.tensor(edges, dtype=torch.float64)
    shares = [
        torch.bincount(torch.bucketize(values, bounds), minlength=len(edges) + 1).double() / len(values)
        for values in (one, other)
    ]
    return float(jensen_shannon(*shares))


def _floor(values: Tensor, rollout: Tensor, edges: tuple[float, ...], seed: int) -> float | None:
    """Mean divergence of the values (k,) of random halves of the rollouts (k,); None where a half is empty."""
    numbers, generator, found = rollout.unique(), np.random.default_rng(seed), []
    for _ in range(SPLITS):
        half = numbers[torch.from_numpy(generator.permutation(len(numbers)))[: len(numbers) // 2]]
        one = torch.isin(rollout, half)
        found.append(_divergence(values[one], values[~one], edges))
    known = [value for value in found if value is not None]
    return float(np.mean(known)) if known else None


def print_ground_report(report: dict[str, Any]) -> None:
    """Print a report as two tables."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    columns = [f"{part}, {span}" for part in ("drawn", "recorded") for span in SPANS]
    table = Table(
        "a classifier's AUC (0.5: a guess)", "cell", *columns,
        title=f"Ground: {report['crops']} crops of {report['rollouts']} rollouts in {report['towns']} towns, each as "
        f"drawn and as recorded; {report['holes']} left out for holes",
    )  # fmt: skip
    for content, cells in report["classifier"].items():
        for cell, found in (cells or {}).items():
            values = [_interval(found[part][span]) for part in ("drawn", "recorded") for span in SPANS]
            table.add_row(content.replace("_", " "), f"{cell} m", *values)
    console.print(table)
    for span, shapes in report["shapes"].items():
        if shapes is None:
            continue
        table = Table(
            "shape", "drawn", "recorded", "divergence", "floor", title=f"Shapes of the ground, {span}"
        )
        for name, row in shapes.items():
            cells = [_figure(row[key], 2) for key in ("drawn", "recorded")]
            cells += [_figure(row[key], 3) for key in ("divergence", "floor")]
            table.add_row(SHAPES[name][0], *cells)
        console.print(table)


def _interval(found: dict[str, Any] | None) -> str:
    if found is None:
        return "-"
    low, high = found["interval"]
    return f"{found['auc']:.2f} ({low:.2f} to {high:.2f})"


def _figure(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
