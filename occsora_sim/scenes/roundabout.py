"""Roundabouts in a street plan: a ring of one-way streets in place of a junction."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass

import numpy as np

_POINTS = 7  # of an arc


@dataclass(frozen=True, kw_only=True)
class Ring:
    """A roundabout.

    Attributes:
        node: the junction that it replaces.
        centre: (2,) [m].
        radius: of the ring's centre line [m].
        bearing: the direction [rad] in which each neighbouring junction lies, by its node.

    """

    node: int
    centre: np.ndarray
    radius: float
    bearing: dict[int, float]

    def arm(self, neighbour: int) -> str:
        """Name of the ring's node at which the street to `neighbour` meets it."""
        return f"n{self.node}_{neighbour}"

    def at(self, bearing: float | np.ndarray) -> np.ndarray:
        """The point (..., 2) of the ring in a direction [rad]."""
        return np.asarray(self.centre + self.radius * np.stack((np.cos(bearing), np.sin(bearing)), -1))


def draw_rings(
    rng: np.random.Generator, nodes: np.ndarray, streets: list[tuple[int, int, int]]
) -> dict[int, Ring]:
    """Replace most junctions (n, 2) [m] of three streets and more; by node. At least one."""
    near: dict[int, list[int]] = {}
    for a, b, _ in streets:
        near.setdefault(a, []).append(b)
        near.setdefault(b, []).append(a)
    able = [n for n in sorted(near) if len(near[n]) >= 3]
    drawn = [n for n in able if rng.random() < 0.7] or able[:1]
    rings = {}
    for n in drawn:
        away = {k: nodes[k] - nodes[n] for k in near[n]}
        bearing = {k: float(np.arctan2(y, x)) for k, (x, y) in away.items()}
        radius = float(rng.uniform(13.0, 17.0))
        rings[n] = Ring(node=n, centre=nodes[n], radius=radius, bearing=bearing)
    return rings


def trim(shape: np.ndarray, first: Ring | None, last: Ring | None) -> np.ndarray:
    """A street's line (n, 2) [m] cut where it meets the rings at its ends, if there are any."""
    for ring, ends in ((first, False), (last, True)):
        if ring is not None:
            line = shape[::-1] if ends else shape
            outside = np.linalg.norm(line - ring.centre, axis=1) > ring.radius + 4.0
            towards = line[outside.argmax()] - ring.centre
            start = ring.at(np.arctan2(towards[1], towards[0]))
            line = np.concatenate((start[None], line[outside]))
            shape = line[::-1] if ends else line
    return shape


def write_rings(rings: dict[int, Ring], nodes: ElementTree.Element, edges: ElementTree.Element) -> None:
    """Append the nodes and the one-way streets of the rings, and say which are roundabouts."""
    for ring in rings.values():
        order = sorted(ring.bearing, key=lambda neighbour: ring.bearing[neighbour])
        names = []
        for place, neighbour in enumerate(order):
            x, y = ring.at(ring.bearing[neighbour])
            node = {"id": ring.arm(neighbour), "x": f"{x:.2f}", "y": f"{y:.2f}", "type": "priority"}
            ElementTree.SubElement(nodes, "node", node | {"radius": "3"})
            following = order[(place + 1) % len(order)]
            turn = (ring.bearing[following] - ring.bearing[neighbour]) % (2 * np.pi)
            arc = ring.at(ring.bearing[neighbour] + turn * np.linspace(0, 1, _POINTS))  # counter-clockwise
            names.append(f"r{ring.node}_{place}")
            edge = {
                "id": names[-1],
                "from": ring.arm(neighbour),
                "to": ring.arm(following),
                "shape": " ".join(f"{x:.2f},{y:.2f}" for x, y in arc),
                "spreadType": "center",
            }
            look = {"numLanes": "1", "speed": "6.94", "priority": "6", "width": "4.5", "sidewalkWidth": "2.2"}
            ElementTree.SubElement(edges, "edge", edge | look)
        members = {"nodes": " ".join(map(ring.arm, order)), "edges": " ".join(names)}
        ElementTree.SubElement(edges, "roundabout", members)
