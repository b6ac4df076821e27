"""A motorway: two carriageways side by side, each with a ramp that joins it by a merging lane."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np

from occsora_sim.scenes.town import TownConfig

_MEDIAN = 4.0  # between the carriageways [m]
_WIDTH = 3.6  # of a lane [m]
_MERGING = 170.0  # length of a merging lane [m]
_RAMP = 130.0


def write_motorway(rng: np.random.Generator, config: TownConfig, folder: Path) -> str:
    """Write nodes, edges and connections of SUMO into `folder`. Returns netconvert's option for the last.

    It is `extent` + 2 `fringe` long and bends gently; each carriageway has two or three lanes.
    """
    length = config.extent + 2 * config.fringe
    height = float(rng.uniform(-0.06, 0.06)) * length
    x = np.linspace(0.0, length, 41)
    line = np.stack((x, height * np.sin(np.pi * x / length) ** 2), -1)
    lanes = int(rng.integers(2, 4))
    root = {name: ElementTree.Element(name) for name in ("nodes", "edges", "connections")}
    for side, middle in (("a", line), ("b", line[::-1])):
        _carriageway(rng, root, side, middle, lanes)
    ElementTree.ElementTree(root["nodes"]).write(folder / "town.nod.xml")
    ElementTree.ElementTree(root["edges"]).write(folder / "town.edg.xml")
    ElementTree.ElementTree(root["connections"]).write(folder / "town.con.xml")
    return "--connection-files town.con.xml "


def _carriageway(
    rng: np.random.Generator,
    root: dict[str, ElementTree.Element],
    side: str,
    middle: np.ndarray,
    lanes: int,
) -> None:
    """One direction: it enters, is joined, loses the merging lane, leaves. Its left edge follows `middle` (n, 2)."""
    along = np.gradient(middle, axis=0)
    along /= np.linalg.norm(along, axis=1, keepdims=True)
    right = np.stack((along[:, 1], -along[:, 0]), -1)
    left = middle + right * _MEDIAN / 2
    station = np.concatenate(([0.0], np.cumsum(np.linalg.norm(np.diff(left, axis=0), axis=1))))
    joined = float(rng.uniform(0.25, 0.4)) * station[-1]
    cuts = [0.0, joined, joined + _MERGING, station[-1]]

    def piece(start: float, end: float) -> np.ndarray:
        at = np.unique(np.concatenate(([start, end], station[(station > start + 2) & (station < end - 2)])))
        return np.stack([np.interp(at, station, left[:, k]) for k in range(2)], -1)

    for number, at in enumerate(cuts):
        _node(root, f"{side}{number}", piece(at, at)[0], "dead_end" if number in (0, 3) else "priority")
    look = {"speed": "22.22", "width": f"{_WIDTH}", "disallow": "pedestrian bicycle", "spreadType": "right"}
    for number in range(3):
        name, count = f"e{side}{number}", lanes + (number == 1)
        _edge(root, name, f"{side}{number}", f"{side}{number + 1}", piece(cuts[number], cuts[number + 1]))
        root["edges"][-1].attrib.update(look | {"numLanes": str(count), "priority": "9"})
    # The ramp comes up beside the carriageway, at a small angle, to the right of its lanes.
    here = int(np.searchsorted(station, joined))
    end = piece(joined, joined)[0] + right[here] * lanes * _WIDTH
    away = np.linspace(1.0, 0.0, 9)[:, None]
    ramp = end - along[here] * _RAMP * away + right[here] * float(rng.uniform(16.0, 24.0)) * away**2
    _node(root, f"{side}r", ramp[0], "dead_end")
    _edge(root, f"e{side}r", f"{side}r", f"{side}1", ramp)
    root["edges"][-1].attrib.update(look | {"numLanes": "1", "speed": "16.67", "priority": "5"})
    links = [(f"e{side}0", f"e{side}1", lane, lane + 1) for lane in range(lanes)]
    links += [(f"e{side}r", f"e{side}1", 0, 0)]
    links += [(f"e{side}1", f"e{side}2", lane + 1, lane) for lane in range(lanes)]
    for start, to, a, b in links:
        link = {"from": start, "to": to, "fromLane": str(a), "toLane": str(b)}
        ElementTree.SubElement(root["connections"], "connection", link)


def _node(root: dict[str, ElementTree.Element], name: str, at: np.ndarray, control: str) -> None:
    node = {"id": name, "x": f"{at[0]:.2f}", "y": f"{at[1]:.2f}", "type": control}
    ElementTree.SubElement(root["nodes"], "node", node)


def _edge(root: dict[str, ElementTree.Element], name: str, start: str, to: str, line: np.ndarray) -> None:
    text = " ".join(f"{x:.2f},{y:.2f}" for x, y in line)
    edge = {"id": name, "from": start, "to": to, "shape": text}
    ElementTree.SubElement(root["edges"], "edge", edge)
