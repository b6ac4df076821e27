"""The flat layers of a town: terrain, roads, pavements; and the plain shapes of all static layers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from occsora_sim import grid
from occsora_sim.scenes.town import Network

GROUND_Z = (-0.2, 0.2)
"""Lower and upper height of ground polygons [m]: one voxel layer."""

_KERB = 2.0  # least width of the pavement around a junction [m]

MARGIN = 60.0
"""How far the terrain reaches beyond the map [m]: an ego sees 40 m."""


@dataclass(frozen=True, kw_only=True)
class Polygon:
    """A prism: points (n, 2) [m], its label, and its lower and upper height [m]."""

    points: np.ndarray
    label: int
    z: tuple[float, float]


def ribbon(points: np.ndarray, width: float, extend: float = 0.0) -> np.ndarray:
    """Outline (2n, 2) of a polyline (n, 2) [m] of a width [m], its ends extended [m]; mitred corners."""
    keep = np.concatenate(([True], np.linalg.norm(np.diff(points, axis=0), axis=1) > 1e-3))
    points = points[keep]
    if len(points) < 2:
        points = np.concatenate((points, points + np.array([[0.01, 0.0]])))
    along = np.diff(points, axis=0)
    along = along / np.linalg.norm(along, axis=1, keepdims=True)
    points = points.copy()
    points[0] -= along[0] * extend
    points[-1] += along[-1] * extend
    normal = np.stack((-along[:, 1], along[:, 0]), -1)
    first, last = normal[:1], normal[-1:]
    middle = normal[:-1] + normal[1:]
    # A mitre is as long as 1 / cos(half the bend); kept below 2 for hairpins.
    middle = middle / np.maximum((middle**2).sum(1, keepdims=True) / 2, 0.5)
    side = np.concatenate((first, middle, last)) * width / 2
    return np.concatenate((points + side, (points - side)[::-1]))


def inset(points: np.ndarray, depth: float) -> np.ndarray | None:
    """The polygon (n, 2) [m] with every side moved inwards by `depth` [m], or None where nothing is left."""
    points = points[np.linalg.norm(points - np.roll(points, 1, axis=0), axis=1) > 1e-3]
    if len(points) < 3:
        return None
    points = points if area(points) > 0 else points[::-1]
    side = np.roll(points, -1, axis=0) - points
    normal = np.stack((-side[:, 1], side[:, 0]), -1) / np.linalg.norm(side, axis=1, keepdims=True)
    both = normal + np.roll(normal, 1, axis=0)
    inner = points + depth * both / np.maximum((both**2).sum(1, keepdims=True) / 2, 0.5)
    return inner if 0.1 * area(points) < area(inner) < area(points) else None


def area(points: np.ndarray) -> float:
    """Area of a polygon (n, 2) [m2], positive if it runs counter-clockwise (shoelace formula)."""
    x, y = points.T
    return float((x * np.roll(y, -1) - y * np.roll(x, -1)).sum() / 2)


def rectangle(centre: np.ndarray, yaw: float, length: float, width: float) -> np.ndarray:
    """Corners (4, 2) [m] of a rectangle, counter-clockwise."""
    u, v = np.array([np.cos(yaw), np.sin(yaw)]), np.array([-np.sin(yaw), np.cos(yaw)])
    signs = np.array([[1, 1], [-1, 1], [-1, -1], [1, -1]]) / 2
    return np.asarray(centre + signs[:, :1] * length * u + signs[:, 1:] * width * v)


def octagon(centre: np.ndarray, diameter: float) -> np.ndarray:
    """Corners (8, 2) [m] of a regular octagon."""
    angle = (np.arange(8) + 0.5) * np.pi / 4
    return np.asarray(centre + diameter / 2 * np.stack((np.cos(angle), np.sin(angle)), -1))


def terrain_bounds(network: Network) -> tuple[float, float, float, float]:
    """The square of the map: (x lower, y lower, x upper, y upper) [m]."""
    x0, y0, x1, y1 = network.bounds
    return x0 - MARGIN, y0 - MARGIN, x1 + MARGIN, y1 + MARGIN


def ground_polygons(network: Network, extras: list[Polygon]) -> list[Polygon]:
    """The ground in painting order; `extras` (plazas, car parks) lie over the terrain, under the streets."""
    x0, y0, x1, y1 = terrain_bounds(network)
    square = np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]])
    lanes = list(network.lanes.values())
    layers = [Polygon(points=square, label=grid.TERRAIN, z=GROUND_Z), *extras]

    def paint(points: np.ndarray, label: int) -> None:
        layers.append(Polygon(points=points, label=label, z=GROUND_Z))

    for lane in lanes:
        if lane.kind == "sidewalk":
            paint(ribbon(lane.shape, lane.width + 0.2, 0.3), grid.SIDEWALK)
    pavements = any(lane.kind == "sidewalk" for lane in lanes)
    for shape in network.junctions.values():
        inner = inset(shape, _KERB) if pavements else None
        if inner is not None:  # SUMO's walking areas leave gaps along the rim
            paint(shape, grid.SIDEWALK)
        paint(shape if inner is None else inner, grid.DRIVEABLE)
    for lane in lanes:
        if lane.kind == "walkingarea" and len(lane.shape) >= 3:
            paint(lane.shape, grid.SIDEWALK)
    for lane in lanes:  # last, so that the road is continuous wherever something drives
        if lane.kind in ("drive", "bicycle", "other"):
            paint(ribbon(lane.shape, lane.width + 0.1, 0.3), grid.DRIVEABLE)
        elif lane.kind == "crossing" and lane.outline is not None:
            paint(lane.outline, grid.DRIVEABLE)
    return layers


class Raster:
    """Which cells of a map are taken, for placing things where nothing is yet."""

    cell = 0.5

    def __init__(self, bounds: tuple[float, float, float, float]) -> None:
        self.lower = np.array(bounds[:2])
        size = np.ceil((np.array(bounds[2:]) - self.lower) / self.cell).astype(int)
        self.taken = np.zeros((size[1], size[0]), dtype=bool)  # rows are y

    def _window(self, points: np.ndarray) -> tuple[np.ndarray, slice, slice] | None:
        """A polygon in cells, and the rows and columns around it. None if it leaves the map."""
        at = (points - self.lower) / self.cell
        low, high = np.floor(at.min(0)).astype(int), np.ceil(at.max(0)).astype(int) + 1
        if (low < 0).any() or high[0] > self.taken.shape[1] or high[1] > self.taken.shape[0]:
            return None
        return at, slice(low[1], high[1]), slice(low[0], high[0])

    def _cover(self, points: np.ndarray) -> tuple[slice, slice, np.ndarray] | None:
        """The cells that a convex counter-clockwise polygon touches: rows, columns, and which of them."""
        window = self._window(points)
        if window is None:
            return None
        at, rows, columns = window
        x, y = np.arange(columns.start, columns.stop) + 0.5, np.arange(rows.start, rows.stop) + 0.5
        side = np.roll(at, -1, axis=0) - at
        inwards = np.stack((-side[:, 1], side[:, 0]), -1) / np.hypot(side[:, 0], side[:, 1])[:, None]
        depth = inwards[:, 0, None, None] * x + inwards[:, 1, None, None] * y[:, None]
        # Half a cell more on every side, so that what is touched counts.
        return rows, columns, (depth > (inwards * at).sum(1)[:, None, None] - 0.5).all(0)

    def free(self, points: np.ndarray) -> bool:
        """Whether a convex polygon (n, 2) [m], counter-clockwise, is in the map and touches nothing taken."""
        cover = self._cover(points)
        return cover is not None and not (self.taken[cover[0], cover[1]] & cover[2]).any()

    def take(self, points: np.ndarray) -> None:
        """Mark a convex polygon (n, 2) [m], counter-clockwise, as taken."""
        cover = self._cover(points)
        if cover is not None:
            self.taken[cover[0], cover[1]] |= cover[2]

    def take_any(self, points: np.ndarray) -> None:
        """Mark a polygon (n, 2) [m] of any shape as taken; slower."""
        window = self._window(points)
        if window is not None:
            at, rows, columns = window
            picture = Image.new("L", (columns.stop - columns.start, rows.stop - rows.start))
            corners = [(float(x) - columns.start - 0.5, float(y) - rows.start - 0.5) for x, y in at]
            ImageDraw.Draw(picture).polygon(corners, fill=1, outline=1)
            self.taken[rows, columns] |= np.asarray(picture) > 0
