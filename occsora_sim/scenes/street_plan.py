"""The street plan of a town: a net of streets drawn from a seed, and the SUMO network built of it."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from occsora_sim.scenes.motorway import write_motorway
from occsora_sim.scenes.roundabout import Ring, draw_rings, trim, write_rings
from occsora_sim.scenes.town import TownConfig, run_sumo_tool


@dataclass(frozen=True, kw_only=True)
class StreetPlan:
    """Junctions and the streets between them.

    Attributes:
        kind: a plan of TownConfig, not "any".
        nodes: (n, 2) [m].
        streets: (from node, to node, line); streets of one line are one road and look alike.
        fringe: the nodes at which streets leave the town.
        arterials: lines that are wide roads.

    """

    kind: str
    nodes: np.ndarray
    streets: list[tuple[int, int, int]]
    fringe: list[int]
    arterials: tuple[int, ...] = ()


def draw_plan(rng: np.random.Generator, config: TownConfig) -> StreetPlan:
    """Rows and columns of junctions: nearly straight in a grid, displaced and thinned if organic."""
    kind = config.plan if config.plan != "any" else ("grid", "organic")[int(rng.integers(2))]
    count = max(2, round(config.extent / config.block) + 1)
    spacing = config.extent / (count - 1)
    jitter = 0.2 if kind == "organic" else 0.03
    cell = np.stack(np.meshgrid(np.arange(count), np.arange(count), indexing="ij"), -1).reshape(-1, 2)
    # Whole rows and columns move together, so that the roads of a grid stay straight.
    steps = rng.uniform(0.75, 1.25, (2, count - 1))
    axes = np.concatenate((np.zeros((2, 1)), np.cumsum(steps / steps.sum(1, keepdims=True), axis=1)), axis=1)
    nodes = np.stack((axes[0][cell[:, 0]], axes[1][cell[:, 1]]), -1) * config.extent
    nodes = nodes + rng.uniform(-jitter, jitter, nodes.shape) * spacing
    if kind == "organic":
        nodes[:, 1] += (cell[:, 0] % 2) * rng.uniform(-0.3, 0.3) * spacing
    streets = []
    for i in range(count):
        for j in range(count):
            here = i * count + j
            if i + 1 < count:
                streets.append((here, here + count, j))
            if j + 1 < count:
                streets.append((here, here + 1, count + i))
    arterials = _arterials(rng, count) if kind == "arterial" else ()
    kept = [street for street in streets if street[2] in arterials]
    streets = _thin(rng, len(nodes), streets, 0.25 if kind == "organic" else 0.1, kept)
    fringe, points = [], list(nodes)
    for n, (i, j) in enumerate(cell):
        for axis, value, line in ((0, i, j), (1, j, count + i)):
            if value in (0, count - 1) and (rng.random() < 0.6 or line in arterials):
                step = np.zeros(2)
                step[axis] = config.fringe if value else -config.fringe
                step[1 - axis] = rng.uniform(-0.1, 0.1) * config.fringe
                fringe.append(len(points))
                streets.append((n, len(points), int(line)))
                points.append(nodes[n] + step)
    return StreetPlan(
        kind=kind, nodes=np.asarray(points), streets=streets, fringe=fringe, arterials=arterials
    )


def _arterials(rng: np.random.Generator, count: int) -> tuple[int, ...]:
    """One wide road along each axis, through the middle of the town rather than along its edge."""
    inner = range(1, count - 1) if count > 2 else range(count)
    return int(rng.choice(inner)), count + int(rng.choice(inner))


def _thin(
    rng: np.random.Generator,
    nodes: int,
    streets: list[tuple[int, int, int]],
    share: float,
    wanted: list[tuple[int, int, int]],
) -> list[tuple[int, int, int]]:
    """Take a share of the streets out, while every junction keeps two and the town stays in one piece.

    The streets `wanted` stay.
    """
    kept = list(streets)
    for index in rng.permutation(len(streets))[: round(share * len(streets))]:
        if streets[index] in wanted:
            continue
        rest = [s for s in kept if s != streets[index]]
        degree = np.bincount(np.array([s[:2] for s in rest]).reshape(-1), minlength=nodes)
        seen, frontier = {0}, [0]
        while frontier:
            here = frontier.pop()
            for a, b, _ in rest:
                for near, far in ((a, b), (b, a)):
                    if near == here and far not in seen:
                        seen.add(far)
                        frontier.append(far)
        if degree.min() >= 2 and len(seen) == nodes:
            kept = rest
    return kept


def _shape(rng: np.random.Generator, a: np.ndarray, b: np.ndarray, bend: float) -> np.ndarray:
    """A gently bent street from a to b, (n, 2) [m]: straight at its ends, so that junctions stay regular."""
    along = b - a
    normal = np.array([-along[1], along[0]])
    share = np.linspace(0, 1, 9)
    height = float(np.clip(rng.normal(), -1.5, 1.5)) * bend * (rng.random() < 0.6)
    return np.asarray(a + share[:, None] * along + (height * np.sin(np.pi * share) ** 2)[:, None] * normal)


def write_network(rng: np.random.Generator, config: TownConfig, folder: Path, seed: int) -> tuple[str, Path]:
    """Draw a plan and have netconvert build its network in `folder`. Returns the plan's kind and the file."""
    out = folder / "town.net.xml"
    files = f"--node-files town.nod.xml --edge-files town.edg.xml -o {out.name} "
    options = (
        f"--seed {seed % 2**31} --no-turnarounds --crossings.guess --walkingareas --tls.cycle.time 50 "
        "--junctions.limit-turn-speed 3 --junctions.corner-detail 6 --junctions.internal-link-detail 10 "
        "--no-warnings --offset.disable-normalization"
    )
    if config.plan == "motorway":
        files += write_motorway(rng, config, folder)
        kind = config.plan
    else:
        kind = _write_streets(rng, config, folder)
    run_sumo_tool("netconvert", (files + options).split(), folder)
    return kind, out


def _write_streets(rng: np.random.Generator, config: TownConfig, folder: Path) -> str:
    """Write the junctions and streets of a plan; returns its kind."""
    plan = draw_plan(rng, config)
    degree = np.bincount(np.array([s[:2] for s in plan.streets]).reshape(-1), minlength=len(plan.nodes))
    lights = {int(n) for n in np.flatnonzero(degree >= 3) if rng.random() < 0.5}
    rings: dict[int, Ring] = {}
    if plan.kind == "arterial":  # it has the lights wherever it is crossed
        wide = {n for a, b, line in plan.streets if line in plan.arterials for n in (a, b)}
        lights |= {n for n in wide if degree[n] >= 3}
    if plan.kind == "roundabout":
        rings = draw_rings(rng, plan.nodes, plan.streets)
    nodes, edges = ElementTree.Element("nodes"), ElementTree.Element("edges")
    for n, (x, y) in enumerate(plan.nodes):
        control = "traffic_light" if n in lights else "dead_end" if n in plan.fringe else "priority"
        node = {"id": f"n{n}", "x": f"{x:.2f}", "y": f"{y:.2f}", "type": control}
        node["radius"] = f"{rng.uniform(2.5, 5):.1f}"
        if n not in rings:
            ElementTree.SubElement(nodes, "node", node)
    roads = [_road(rng) for _ in range(max(line for _, _, line in plan.streets) + 1)]
    for line in plan.arterials:
        roads[line] = _arterial(rng)
    if rings:
        roads = [road | {"numLanes": "1"} for road in roads]
    bend = 0.12 if plan.kind == "organic" else 0.03
    for a, b, line in plan.streets:
        shape = trim(_shape(rng, plan.nodes[a], plan.nodes[b], bend), rings.get(a), rings.get(b))
        for start, end, points in ((a, b, shape), (b, a, shape[::-1])):
            text = " ".join(f"{x:.2f},{y:.2f}" for x, y in points)
            edge = {"id": f"e{start}_{end}", "from": f"n{start}", "to": f"n{end}", "shape": text}
            if start in rings:
                edge["from"] = rings[start].arm(end)
            if end in rings:
                edge["to"] = rings[end].arm(start)
            ElementTree.SubElement(edges, "edge", edge | roads[line])
    write_rings(rings, nodes, edges)
    ElementTree.ElementTree(nodes).write(folder / "town.nod.xml")
    ElementTree.ElementTree(edges).write(folder / "town.edg.xml")
    return plan.kind


def _arterial(rng: np.random.Generator) -> dict[str, str]:
    """The look of a wide road: as `_road`."""
    return {
        "numLanes": str(rng.integers(2, 4)),
        "speed": "13.89",
        "priority": "5",
        "width": f"{rng.uniform(3.2, 3.5):.2f}",
        "sidewalkWidth": f"{rng.uniform(2.8, 3.6):.1f}",
    }


def _road(rng: np.random.Generator) -> dict[str, str]:
    """What the streets of one road have in common, as attributes of SUMO's edges."""
    rank = rng.random()
    main, quiet = rank < 0.3, rank > 0.8
    road = {
        "numLanes": "2" if main else "1",
        "speed": "12.5" if main else "8.33" if quiet else "11.11",
        "priority": "3" if main else "1" if quiet else "2",
        "width": f"{rng.uniform(3.1, 3.5):.2f}",
        "sidewalkWidth": f"{rng.uniform(2.0, 3.4):.1f}",
    }
    return road | {"bikeLaneWidth": "1.6"} if rng.random() < 0.3 else road
