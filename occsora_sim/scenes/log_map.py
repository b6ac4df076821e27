"""The map of a log: lanes, areas and the outlines of the road, from features of many makers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from occsora_sim.grid import DRIVEABLE, SIDEWALK
from occsora_sim.scenes.safe_pickle import short_text

LANE_WIDTH = {"LANE_BIKE_LANE": 1.8}
"""Width [m] of lanes of a type where the log does not say."""

USUAL_WIDTH = 3.5
"""Width [m] of all other lanes where the log does not say."""

AREAS = {
    "CROSSWALK": DRIVEABLE,  # Occ3D has no label of its own for it
    "SPEED_BUMP": DRIVEABLE,
    "DRIVEWAY": DRIVEABLE,
    "ROAD_EDGE_SIDEWALK": SIDEWALK,
    "BOUNDARY_SIDEWALK": SIDEWALK,
    "SIDEWALK": SIDEWALK,
    "WALKWAY": SIDEWALK,
}
"""Type of a polygon -> what lies there."""

_WIDTHS = (1.0, 12.0)  # [m]; what a log says beyond is no lane's width


@dataclass(frozen=True, kw_only=True)
class LogLane:
    """A lane: its centre line (n, 2) [m] in driving direction, its width [m], and its outline where that is known."""

    line: np.ndarray
    width: float
    outline: np.ndarray | None = None


@dataclass(kw_only=True)
class LogMap:
    """What a log says of a place. All points (n, 2) float64 [m], in the log's frame.

    Attributes:
        lanes: what is driven on.
        outlines: closed lines around the road: what an odd number of them holds is road.
        areas: polygons with their labels.
        posts: (2,) places of signs.

    """

    lanes: list[LogLane] = field(default_factory=list)
    outlines: list[np.ndarray] = field(default_factory=list)
    areas: list[tuple[np.ndarray, int]] = field(default_factory=list)
    posts: list[np.ndarray] = field(default_factory=list)

    def moved(self, origin: np.ndarray) -> LogMap:
        """The same map with `origin` (2,) [m] at zero."""
        return LogMap(
            lanes=[
                LogLane(
                    line=lane.line - origin,
                    width=lane.width,
                    outline=None if lane.outline is None else lane.outline - origin,
                )
                for lane in self.lanes
            ],
            outlines=[line - origin for line in self.outlines],
            areas=[(points - origin, label) for points, label in self.areas],
            posts=[point - origin for point in self.posts],
        )


def read_map(features: dict[Any, Any], faults: list[str]) -> LogMap:
    """Sort the features of a log; lines between lanes and what is unknown are passed over.

    Args:
        features: `map_features` of the log: by name, each with a type, a polyline or a polygon or both.
        faults: what is wrong is added here, with its place.

    """
    found = LogMap()
    for name, feature in features.items():
        place = f"map_features[{short_text(name)}]"
        kind = feature.get("type") if isinstance(feature, dict) else None
        if not isinstance(kind, str):
            faults.append(f"{place}.type is missing")
            continue
        line = _points(feature, "polyline", place, faults)
        polygon = _polygon(feature, place, faults)
        closed = line is not None and len(line) > 3 and float(np.abs(line[0] - line[-1]).max()) < 0.01
        if kind.startswith("LANE") and line is not None and len(line) > 1:
            width = _width(feature.get("width"), LANE_WIDTH.get(kind, USUAL_WIDTH), f"{place}.width", faults)
            outline = polygon if polygon is not None and len(polygon) > 2 else None
            found.lanes.append(LogLane(line=line, width=width, outline=outline))
        elif kind.startswith("LANE") and polygon is not None and len(polygon) > 2:
            found.areas.append((polygon, DRIVEABLE))
        elif kind in AREAS and polygon is not None and len(polygon) > 2:
            found.areas.append((polygon, AREAS[kind]))
        elif (
            closed
            and line is not None
            and (kind.startswith("ROAD_EDGE") or short_text(name).startswith("boundary"))
        ):
            found.outlines.append(line[:-1])
        elif kind == "STOP_SIGN" and feature.get("position") is not None:
            point = _array([feature["position"]])
            if point is None:
                faults.append(f"{place}.position is not a point")
            else:
                found.posts.append(point[0])
    return found


def one_ring(rings: Sequence[np.ndarray]) -> np.ndarray:
    """Several polygons as one (n, 2) that holds, by the even-odd rule, what an odd number of them hold.

    The lines from ring to ring are walked to and fro, so that they bound nothing.
    """
    home = rings[0][:1]
    parts = [rings[0], home]
    for ring in rings[1:]:
        parts += [ring, ring[:1], home]
    return np.concatenate(parts)


def _polygon(feature: dict[Any, Any], place: str, faults: list[str]) -> np.ndarray | None:
    """The polygon (n, 2) of a feature; None if it has none. One with holes, or of several parts, is a list of rings:
    what an odd number of them holds is inside.
    """
    if feature.get("polygon") is None:
        return None
    rings = _rings(feature["polygon"])
    if rings is None:
        faults.append(f"{place}.polygon is not a list of finite points, nor of rings of them")
        return None
    rings = [_distinct(ring) for ring in rings]
    whole = [ring for ring in rings if len(ring) > 2]
    return one_ring(whole) if len(whole) > 1 else (whole or rings)[0]


def _rings(values: Any, depth: int = 2) -> list[np.ndarray] | None:
    """The rings (n, 2) of a polygon, whether written as one ring, a list of rings or a list of polygons."""
    points = _array(values)
    if points is not None:
        return [points]
    if not depth or not isinstance(values, list | tuple | np.ndarray):
        return None
    parts = [_rings(value, depth - 1) for value in values]
    if not parts or any(part is None for part in parts):
        return None
    return [ring for part in parts for ring in part or ()]


def _points(feature: dict[Any, Any], name: str, place: str, faults: list[str]) -> np.ndarray | None:
    """The points (n, 2) of a feature; None if it has none. Neighbours that coincide count once."""
    if feature.get(name) is None:
        return None
    points = _array(feature[name])
    if points is None:
        faults.append(f"{place}.{name} is not a list of finite points")
        return None
    return _distinct(points)


def _distinct(points: np.ndarray) -> np.ndarray:
    """Points (n, 2) of which neighbours that coincide count once."""
    keep = np.ones(len(points), dtype=bool)
    keep[1:] = np.abs(np.diff(points, axis=0)).max(axis=1, initial=0.0) > 1e-4
    return points[keep]


def _array(values: Any) -> np.ndarray | None:
    """`values` as (n, 2) float64, whether arrays, lists or tuples of two numbers or more; None if they are not that."""
    try:
        if isinstance(values, np.ndarray):
            values = values[:, :2] if values.ndim == 2 else [row[:2] for row in values]
        elif isinstance(values, list | tuple):
            values = [row[:2] for row in values]
        else:
            return None
        points = np.asarray(values)
        if points.dtype.kind not in "iufO":
            return np.zeros((0, 2)) if points.size == 0 else None
        points = np.asarray(points, dtype=np.float64)
    except (TypeError, ValueError, OverflowError, IndexError, KeyError):
        return None
    if points.size == 0:
        return np.zeros((0, 2))
    if (
        points.ndim != 2
        or points.shape[1] != 2
        or not np.isfinite(points).all()
        or np.abs(points).max() > 1e9
    ):
        return None
    return points


def _width(value: Any, usual: float, place: str, faults: list[str]) -> float:
    """The median width [m] of a lane: of one number, one a point, or a left and a right part a point."""
    if value is None:
        return usual
    try:
        widths = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        faults.append(f"{place} is not a list of numbers")
        return usual
    if widths.ndim == 2:
        widths = widths.sum(axis=1)
    if widths.ndim > 2:
        faults.append(f"{place} is not a list of numbers")
        return usual
    widths = widths[(widths >= _WIDTHS[0]) & (widths <= _WIDTHS[1])]
    return float(np.median(widths)) if widths.size else usual
