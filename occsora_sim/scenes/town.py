"""A town: what it is like, SUMO's programs, and the network file that they make."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import subprocess
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from occsora_sim.errors import ConfigurationError, MissingDependencyError, SceneError

PLANS = ("grid", "organic", "arterial", "roundabout", "motorway")
"""Kinds of place."""


@dataclass(frozen=True, kw_only=True)
class TownConfig:
    """What a town is like. All of it travels into `Scene.attributes`.

    Attributes:
        extent: side of the square that holds the junctions [m]; streets leave it by up to `fringe`.
        fringe: length of the streets that leave the town [m].
        block: usual distance of two junctions [m].
        plan: "grid", "organic", "any" (the seed chooses one of these two), "arterial" (wide roads through a grid),
            "roundabout" (instead of crossings) or "motorway" (two carriageways, each with a merging lane).
        warm_up: traffic before the recording starts [s].
        duration: recorded time [s].
        dt: time between two recorded states [s].
        vehicles_per_km: motor vehicles on each km of street (both directions).
        bicycles_per_km: bicycles on each km of street.
        pedestrians_per_km: pedestrians on each km of street.
        inflow: how many times as many vehicles enter the town as usual.
        egos: number of ego motions.
        expert_share: share of the ego motions that are the recorded vehicle's own.

    """

    extent: float = 270.0
    fringe: float = 70.0
    block: float = 90.0
    plan: str = "any"
    warm_up: float = 40.0
    duration: float = 60.0
    dt: float = 0.5
    vehicles_per_km: float = 36.0
    bicycles_per_km: float = 6.0
    pedestrians_per_km: float = 50.0
    inflow: float = 1.0
    egos: int = 24
    expert_share: float = 0.45

    def __post_init__(self) -> None:
        if self.plan not in ("any", *PLANS):
            raise ConfigurationError(
                f"town: plan {self.plan!r} is unknown; use 'any', {', '.join(map(repr, PLANS))}"
            )
        lengths = (self.extent, self.fringe, self.block, self.duration, self.dt)
        if min(lengths) <= 0 or self.warm_up < 0 or self.extent < self.block:
            raise ConfigurationError(
                "town: lengths and times must be positive, and extent at least one block"
            )
        if abs(self.dt * 10 - round(self.dt * 10)) > 1e-9:
            raise ConfigurationError(f"town: dt {self.dt} s must be a multiple of the simulation step, 0.1 s")
        shares = (self.vehicles_per_km, self.bicycles_per_km, self.pedestrians_per_km)
        if min(shares) < 0 or self.inflow <= 0:
            raise ConfigurationError("town: densities must not be negative, and inflow must be positive")
        if self.egos < 1 or not 0 < self.expert_share <= 1:
            raise ConfigurationError("town: egos must be at least 1 and expert_share in (0, 1]")


PLACES: dict[str, TownConfig] = {
    "grid": TownConfig(plan="grid"),
    "organic": TownConfig(plan="organic"),
    "arterial": TownConfig(plan="arterial", vehicles_per_km=48.0, inflow=1.5),
    "roundabout": TownConfig(plan="roundabout", vehicles_per_km=40.0),
    "motorway": TownConfig(
        plan="motorway", extent=720.0, warm_up=60.0, vehicles_per_km=44.0, bicycles_per_km=0.0,
        pedestrians_per_km=0.0, inflow=5.0,
    ),
}  # fmt: skip
"""The usual place of each kind, by the name of its plan."""


@dataclass(frozen=True, kw_only=True)
class Lane:
    """One lane of a network.

    Attributes:
        id: SUMO's name.
        edge: the name of its edge.
        kind: "drive", "bicycle", "sidewalk", "crossing" or "walkingarea".
        internal: whether it lies inside a junction.
        width: [m].
        speed: allowed [m/s].
        shape: (n, 2) float64 centre line [m] (the outline, for a walkingarea).
        outline: (n, 2) float64 the area itself where SUMO names it, else None.

    """

    id: str
    edge: str
    kind: str
    internal: bool
    width: float
    speed: float
    shape: np.ndarray
    outline: np.ndarray | None = None


@dataclass(frozen=True, kw_only=True)
class Network:
    """The parts of a SUMO network that scenes need.

    Attributes:
        lanes: by name, in the file's order.
        edges: names of the ordinary edges, each with its lanes' names from right to left.
        ends: the junctions (from, to) of each ordinary edge.
        junctions: outline (n, 2) [m] of each junction.
        lights: names of the junctions with traffic lights.
        links: for each lane that cars drive on, the lanes that it leads to; a junction is crossed through its
            internal lanes, one after another.
        bounds: (x lower, y lower, x upper, y upper) [m].

    """

    lanes: dict[str, Lane]
    edges: dict[str, list[str]]
    ends: dict[str, tuple[str, str]]
    junctions: dict[str, np.ndarray]
    lights: tuple[str, ...]
    links: dict[str, list[str]]
    bounds: tuple[float, float, float, float]
    turns: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    """For each ordinary edge, the (next ordinary edge, direction letter) that a car can take, in order."""


def sumo_home() -> Path:
    """The folder of the installed SUMO. Raises MissingDependencyError where there is none."""
    spec = importlib.util.find_spec("sumo")
    if spec is None or not spec.submodule_search_locations:
        raise MissingDependencyError('SUMO is not installed: pip install "occsora-sim[traffic]"')
    return Path(next(iter(spec.submodule_search_locations)))


def sumo_version() -> str:
    """Version of the installed SUMO."""
    sumo_home()
    return importlib.metadata.version("eclipse-sumo")


def run_sumo_tool(tool: str, arguments: Sequence[str], folder: Path) -> None:
    """Run one of SUMO's programs in `folder`. Raises SceneError with its last error line when it fails.

    Files are to be named relative to the folder: SUMO takes names apart at commas and colons.
    """
    home = sumo_home()
    done = subprocess.run(
        [str(home / "bin" / tool), *arguments],
        cwd=folder,
        env={**os.environ, "SUMO_HOME": str(home)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if line.startswith("Error")] or ["no message"]
        raise SceneError(f"town: SUMO's {tool} failed: {lines[0]}; try another seed or configuration")


def read_network(path: Path) -> Network:
    """Read a network file of SUMO."""
    root = ElementTree.parse(path).getroot()
    lanes: dict[str, Lane] = {}
    edges: dict[str, list[str]] = {}
    ends: dict[str, tuple[str, str]] = {}
    for edge in root.iter("edge"):
        name, function = edge.attrib["id"], edge.get("function", "normal")
        for lane in edge.iter("lane"):
            allow, disallow = lane.get("allow", "").split(), lane.get("disallow", "").split()
            if function in ("crossing", "walkingarea"):
                kind = function
            elif allow == ["pedestrian"]:
                kind = "sidewalk"
            elif allow == ["bicycle"]:
                kind = "bicycle"
            elif "passenger" in disallow or (allow and "passenger" not in allow):
                kind = "other"
            else:
                kind = "drive"
            outline = lane.get("outlineShape")
            lanes[lane.attrib["id"]] = Lane(
                id=lane.attrib["id"],
                edge=name,
                kind=kind,
                internal=function != "normal",
                width=float(lane.get("width", 3.2)),
                speed=float(lane.attrib["speed"]),
                shape=_points(lane.attrib["shape"]),
                outline=_points(outline) if outline else None,
            )
            if function == "normal":
                edges.setdefault(name, []).append(lane.attrib["id"])
        if function == "normal":
            ends[name] = (edge.attrib["from"], edge.attrib["to"])
    links: dict[str, list[str]] = {}
    turns: dict[str, list[tuple[str, str]]] = {}
    for link in root.iter("connection"):
        source = f"{link.attrib['from']}_{link.attrib['fromLane']}"
        target = link.get("via") or f"{link.attrib['to']}_{link.attrib['toLane']}"
        if lanes[source].kind != "drive" or lanes[target].kind != "drive":
            continue
        links.setdefault(source, []).append(target)
        turn = (link.attrib["to"], link.attrib["dir"])
        if link.attrib["from"] in edges and turn not in turns.setdefault(link.attrib["from"], []):
            turns[link.attrib["from"]].append(turn)
    junctions = {
        j.attrib["id"]: _points(j.attrib["shape"])
        for j in root.iter("junction")
        if j.get("type") != "internal" and len(j.get("shape", "").split()) >= 3
    }
    every = np.concatenate([lane.shape for lane in lanes.values()])
    (x0, y0), (x1, y1) = every.min(0), every.max(0)
    return Network(
        lanes=lanes,
        edges=edges,
        ends=ends,
        junctions=junctions,
        lights=tuple(j.attrib["id"] for j in root.iter("junction") if j.get("type") == "traffic_light"),
        links=links,
        bounds=(float(x0), float(y0), float(x1), float(y1)),
        turns=turns,
    )


def _points(text: str) -> np.ndarray:
    return np.array([[float(v) for v in pair.split(",")[:2]] for pair in text.split()])
