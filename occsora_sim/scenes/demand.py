"""Who is on a town's streets: road users with sizes and seeded walks, run through SUMO and recorded."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from occsora_sim import grid
from occsora_sim.scenes.town import Network, TownConfig, run_sumo_tool

STEP = 0.1
"""Step of the traffic simulation [s]."""

_WALK_METRES = 1500.0  # longer than anybody drives in a recording, so that nobody vanishes in mid-street


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A kind of road user.

    Attributes:
        label: its class in the grid.
        sumo_class: SUMO's vClass, which decides the lanes it may use.
        size: length, width, height [m], of the usual one.
        spread: relative standard deviation of the size.
        share: share of its kind among motor vehicles (0 for those who have their own density).
        extra: further attributes of SUMO's vType.

    """

    label: int
    sumo_class: str
    size: tuple[float, float, float]
    spread: float
    share: float
    extra: tuple[tuple[str, str], ...] = ()


_SOFT = (("decel", "3.2"), ("emergencyDecel", "8.0"))  # brakes like a person, not like a controller

KINDS: dict[str, Kind] = {
    "car": Kind(
        label=grid.CAR, sumo_class="passenger", size=(4.5, 1.85, 1.6), spread=0.06, share=0.74, extra=_SOFT
    ),
    "van": Kind(
        label=grid.CAR, sumo_class="passenger", size=(5.3, 2.0, 2.1), spread=0.05, share=0.06, extra=_SOFT
    ),
    "truck": Kind(label=grid.TRUCK, sumo_class="truck", size=(8.0, 2.5, 3.2), spread=0.08, share=0.08),
    "bus": Kind(
        label=grid.BUS,
        sumo_class="bus",
        size=(12.0, 2.55, 3.2),
        spread=0.03,
        share=0.06,
        extra=(("accel", "1.2"),),
    ),
    "motorcycle": Kind(
        label=grid.MOTORCYCLE,
        sumo_class="motorcycle",
        size=(2.2, 0.8, 1.5),
        spread=0.05,
        share=0.06,
        extra=(("accel", "3"), ("decel", "4")),
    ),
    "bicycle": Kind(
        label=grid.BICYCLE,
        sumo_class="bicycle",
        size=(1.8, 0.6, 1.6),
        spread=0.04,
        share=0.0,
        extra=(("maxSpeed", "5.5"),),
    ),
    "pedestrian": Kind(
        label=grid.PEDESTRIAN, sumo_class="pedestrian", size=(0.6, 0.6, 1.75), spread=0.06, share=0.0
    ),
}
VARIANTS = 6
"""Sizes per kind."""


@dataclass(frozen=True, kw_only=True)
class Recording:
    """What SUMO reported.

    Attributes:
        names: road users in order of appearance.
        kinds: the vType of each.
        front: (k, T, 2) float64 [m], the middle of the front.
        angle: (k, T) float64 [rad], counter-clockwise from +x.
        valid: (k, T) bool.
        lanes: for each, its lane at its last valid step.
        routes: for each, the edges of its route (empty for pedestrians).

    """

    names: tuple[str, ...]
    kinds: tuple[str, ...]
    front: np.ndarray
    angle: np.ndarray
    valid: np.ndarray
    lanes: tuple[str, ...]
    routes: tuple[tuple[str, ...], ...]


def draw_sizes(rng: np.random.Generator) -> dict[str, tuple[float, float, float]]:
    """Size (length, width, height) [m] of each vType, named "car.0" and so on."""
    sizes = {}
    for name, kind in KINDS.items():
        for variant in range(VARIANTS):
            scale = 1 + kind.spread * np.clip(rng.normal(size=3), -1.5, 1.5)
            scale[1] = 1 + (scale[1] - 1) * 0.4  # widths vary least: lanes do not
            length, width, height = np.round(np.asarray(kind.size) * scale, 2).tolist()
            sizes[f"{name}.{variant}"] = (length, width, height)
    return sizes


def write_demand(
    rng: np.random.Generator,
    config: TownConfig,
    network: Network,
    sizes: dict[str, tuple[float, float, float]],
    path: Path,
) -> dict[str, tuple[str, ...]]:
    """Write SUMO's route file. Returns the route of each vehicle by name."""
    root = ElementTree.Element("routes")
    for name, (long, wide, high) in sizes.items():
        user = KINDS[name.split(".")[0]]
        attributes = {
            "vClass": user.sumo_class,
            "length": str(long),
            "width": str(wide),
            "height": str(high),
        }
        ElementTree.SubElement(root, "vType", {"id": name} | attributes | dict(user.extra))
    edges = list(network.edges)
    length = {e: _length(network.lanes[network.edges[e][-1]].shape) for e in edges}
    drivable = [e for e in edges if network.turns.get(e)]
    weight = np.array([length[e] * (len(network.edges[e]) - 1) for e in drivable])
    km = sum(length.values()) / 2000
    shares = {name: user.share for name, user in KINDS.items() if user.share}
    motor = np.array(list(shares.values())) / sum(shares.values())
    entries = [e for e in drivable if not any(t == e for turns in network.turns.values() for t, _ in turns)]
    spawn: list[tuple[float, str, str, str]] = []  # when, kind, first edge, position
    density = float(rng.uniform(0.6, 1.2))  # some towns are busier than others
    for _ in range(round(config.vehicles_per_km * density * km)):
        kind = list(shares)[rng.choice(len(shares), p=motor)]
        start = drivable[rng.choice(len(drivable), p=weight / weight.sum())]
        spawn.append((round(float(rng.uniform(0, 10)), 1), kind, start, "random_free"))
    for _ in range(round(config.bicycles_per_km * km)):
        start = drivable[rng.choice(len(drivable), p=weight / weight.sum())]
        spawn.append((round(float(rng.uniform(0, 10)), 1), "bicycle", start, "random_free"))
    end = config.warm_up + config.duration
    for entry in entries:  # who leaves the town is replaced
        when = float(rng.exponential(8.0))
        while when < end:
            cycles = rng.random() < 0.1 and config.bicycles_per_km > 0
            kind = "bicycle" if cycles else list(shares)[rng.choice(len(shares), p=motor)]
            spawn.append((round(when, 1), kind, entry, "base"))
            when += (4.0 + float(rng.exponential(14.0))) / density / config.inflow
    walkable = [edge for edge in edges if network.lanes[network.edges[edge][0]].kind == "sidewalk"]
    walkers = round(config.pedestrians_per_km * km) if walkable else 0
    people: list[tuple[float, int]] = [
        (round(float(rng.uniform(0, 10)), 1), index) for index in range(walkers)
    ]
    routes: dict[str, tuple[str, ...]] = {}
    elements: list[tuple[float, ElementTree.Element]] = []
    for index, (when, kind, start, position) in enumerate(spawn):
        name = f"{kind}{index}"
        routes[name] = _drive(rng, network, length, start)
        vehicle = ElementTree.Element("vehicle", {"id": name, "type": f"{kind}.{rng.integers(VARIANTS)}"})
        vehicle.attrib |= {
            "depart": str(when),
            "departPos": position,
            "departLane": "best",
            "departSpeed": "max",
        }
        ElementTree.SubElement(vehicle, "route", edges=" ".join(routes[name]))
        elements.append((when, vehicle))
    incident: dict[str, list[str]] = {}
    for edge in walkable:
        for junction in network.ends[edge]:
            incident.setdefault(junction, []).append(edge)
    for when, index in people:
        walk = _stroll(rng, network, incident, walkable)
        person = ElementTree.Element(
            "person", {"id": f"pedestrian{index}", "type": f"pedestrian.{rng.integers(VARIANTS)}"}
        )
        person.attrib |= {"depart": str(when), "departPos": f"{rng.uniform(0, 0.9) * length[walk[0]]:.2f}"}
        ElementTree.SubElement(person, "walk", edges=" ".join(walk), speed=f"{rng.uniform(0.9, 1.6):.2f}")
        elements.append((when, person))
    root.extend(element for _, element in sorted(elements, key=lambda item: item[0]))
    ElementTree.ElementTree(root).write(path)
    return routes


def _drive(
    rng: np.random.Generator, network: Network, length: dict[str, float], start: str
) -> tuple[str, ...]:
    """A random walk over a car's turns, mostly straight on, until it is long or leaves the town."""
    route, metres = [start], 0.0
    while metres < _WALK_METRES and network.turns.get(route[-1]):
        turns = network.turns[route[-1]]
        weight = np.array([0.5 if letter in "s" else 0.3 for _, letter in turns])
        # An edge that leaves the town ends the walk: less likely, so that the town does not empty.
        weight = weight * np.array([1.0 if network.turns.get(edge) else 0.3 for edge, _ in turns])
        route.append(turns[rng.choice(len(turns), p=weight / weight.sum())][0])
        metres += length[route[-1]]
    return tuple(route)


def _stroll(
    rng: np.random.Generator, network: Network, incident: dict[str, list[str]], edges: list[str]
) -> tuple[str, ...]:
    """A walk along pavements, of five streets at most, on either side."""
    walk = [edges[rng.integers(len(edges))]]
    end = network.ends[walk[0]][int(rng.integers(2))]
    if len(incident[end]) <= 2:  # where the street leaves the town nobody walks on
        end = next(e for e in network.ends[walk[0]] if e != end)
    for _ in range(4):
        taken = set(network.ends[walk[-1]])
        near = [e for e in incident[end] if set(network.ends[e]) != taken]
        if not near:
            break
        walk.append(near[rng.integers(len(near))])
        first, second = network.ends[walk[-1]]
        end = second if first == end else first
    return tuple(walk)


def _length(points: np.ndarray) -> float:
    return float(np.linalg.norm(np.diff(points, axis=0), axis=1).sum())


SUMO_OPTIONS = (
    f"--step-length {STEP} --lanechange.duration 2.5 --time-to-teleport -1 --collision.action none "
    "--ignore-route-errors --no-step-log --no-warnings --xml-validation never --extrapolate-departpos"
)
"""What a recorded and a live simulation have in common."""


def run_traffic(
    config: TownConfig, net: Path, demand: Path, routes: dict[str, tuple[str, ...]], seed: int
) -> Recording:
    """Run SUMO on a network and a demand of one folder and read its trace."""
    trace = demand.with_name("trace.xml")
    end = config.warm_up + config.duration
    options = (
        f"-n {net.name} -r {demand.name} --seed {seed % 2**31} --end {end} --fcd-output {trace.name} "
        f"--device.fcd.begin {config.warm_up} --device.fcd.period {config.dt} --precision 4 {SUMO_OPTIONS}"
    )
    run_sumo_tool("sumo", options.split(), demand.parent)
    steps = round(config.duration / config.dt)
    index: dict[str, int] = {}
    kinds: list[str] = []
    lanes: list[str] = []
    rows: list[tuple[int, int, float, float, float]] = []
    step = -1
    for event, element in ElementTree.iterparse(trace, events=("start", "end")):
        if element.tag == "timestep":
            if event == "start":
                step = round((float(element.attrib["time"]) - config.warm_up) / config.dt)
            else:
                element.clear()
        elif event == "end" and element.tag in ("vehicle", "person") and 0 <= step < steps:
            data = element.attrib
            who = index.setdefault(data["id"], len(index))
            if who == len(kinds):
                kinds.append(data["type"])
                lanes.append("")
            lanes[who] = data.get("lane", "")
            rows.append((who, step, float(data["x"]), float(data["y"]), float(data["angle"])))
    front = np.zeros((len(index), steps, 2))
    angle = np.zeros((len(index), steps))
    valid = np.zeros((len(index), steps), dtype=bool)
    table = np.array(rows).reshape(-1, 5)
    who_at, step_at = table[:, 0].astype(int), table[:, 1].astype(int)
    front[who_at, step_at] = table[:, 2:4]
    angle[who_at, step_at] = np.pi / 2 - np.radians(
        table[:, 4]
    )  # clockwise from north to counter-clockwise from east
    valid[who_at, step_at] = True
    return Recording(
        names=tuple(index),
        kinds=tuple(kinds),
        front=front,
        angle=(angle + np.pi) % (2 * np.pi) - np.pi,
        valid=valid,
        lanes=tuple(lanes),
        routes=tuple(routes.get(name, ()) for name in index),
    )
