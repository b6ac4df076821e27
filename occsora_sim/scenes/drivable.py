"""Where a log's road lies: by its outlines where the log has them, else by its lanes and the gaps between them."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from occsora_sim.scenes.ground import octagon, rectangle
from occsora_sim.scenes.log_map import LogMap, one_ring
from occsora_sim.scenes.raster import polygon_spans

GAP = 3.0
"""Ground between lanes counts as road where it is narrower than twice this [m]."""

TRUSTED = 0.9
"""Outlines are taken for those of the road if they hold this share of the lanes' points."""

_DRIVEN_WIDTH = 2.6  # [m]; what the recording car drove on is road, whatever the map says


class Canvas:
    """Cells of half a metre over a rectangle; masks are (w, h) bool, x first."""

    cell = 0.5

    def __init__(self, bounds: tuple[float, float, float, float]) -> None:
        """Lay cells over (x lower, y lower, x upper, y upper) [m]."""
        self.lower, self.upper = np.array(bounds[:2]), np.array(bounds[2:])
        width, height = np.ceil((self.upper - self.lower) / self.cell).astype(int).tolist()
        self.shape = (width, height)

    def fill(self, rings: Sequence[np.ndarray]) -> np.ndarray:
        """The cells whose centres lie in any of the polygons (n, 2) [m]; each by the even-odd rule."""
        width, height = self.shape[0] + 2, self.shape[1] + 2  # a border, so that polygons may end at the edge
        mask = np.zeros(width * height, dtype=bool)
        rings = self.all_clipped(rings)
        if rings:
            corners = (np.concatenate(rings) - self.lower) / self.cell + 0.5
            corners = np.clip(corners, 0, (width - 1, height - 1))
            offsets = np.concatenate(([0], np.cumsum([len(ring) for ring in rings])))
            edges = np.zeros(len(mask) + 1, dtype=np.int32)
            _, begin, end = polygon_spans(corners, offsets, width, height)
            np.add.at(edges, begin, 1)
            np.add.at(edges, end, -1)
            mask = np.cumsum(edges[:-1]) > 0
        return mask.reshape(width, height)[1:-1, 1:-1]

    def strokes(self, lines: Sequence[tuple[np.ndarray, float]]) -> np.ndarray:
        """The cells within half a width [m] of lines (n, 2) [m]; each line with its width."""
        parts: list[np.ndarray] = []
        for line, width in lines:
            for a, b in itertools.pairwise(line):
                along = b - a
                length = float(np.hypot(*along))
                parts.append(rectangle((a + b) / 2, float(np.arctan2(along[1], along[0])), length, width))
            parts += [octagon(point, width) for point in line]
        return self.fill(parts)

    def at(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The cells (i, j) of points (n, 2) [m], and which of them lie on the canvas (n,)."""
        cells = np.floor((points - self.lower) / self.cell).astype(int)
        inside = ((cells >= 0) & (cells < np.array(self.shape))).all(axis=1)
        cells = np.clip(cells, 0, np.array(self.shape) - 1)
        return cells[:, 0], cells[:, 1], inside

    def clipped(self, ring: np.ndarray) -> np.ndarray:
        """The part of a polygon (n, 2) [m] on the canvas (Sutherland and Hodgman, 1974)."""
        for axis in (0, 1):
            for sign, bound in ((1.0, self.lower[axis]), (-1.0, self.upper[axis])):
                depth = sign * (ring[:, axis] - bound)
                if len(ring) == 0 or (depth >= 0).all():
                    continue
                following, after = np.roll(ring, -1, axis=0), np.roll(depth, -1)
                crosses = (depth >= 0) != (after >= 0)
                share = np.divide(depth, depth - after, out=np.zeros_like(depth), where=crosses)
                cut = ring + share[:, None] * (following - ring)
                cut[:, axis] = bound
                # Of each corner and the edge behind it: the corner if it is inside, the cut if there is one.
                both = np.stack((ring, cut), axis=1).reshape(-1, 2)
                ring = both[np.stack((depth >= 0, crosses), axis=1).reshape(-1)]
        return ring

    def all_clipped(self, rings: Iterable[np.ndarray]) -> list[np.ndarray]:
        """The parts on the canvas of those polygons (n, 2) [m] that reach it."""
        return [part for ring in rings if len(part := self.clipped(ring)) > 2]

    def outlines(self, mask: np.ndarray) -> list[np.ndarray]:
        """Closed lines (n, 2) [m] around a mask, along the cells' edges, with the mask on their left."""
        padded = np.pad(mask, 1)
        starts, ends = [], []
        # The cell (i, j) of the mask lies at (i + 1, j + 1) of the padded one, its lower corner at (i, j).
        for (di, dj), (a, b) in (
            ((0, -1), ((0, 0), (1, 0))), ((1, 0), ((1, 0), (1, 1))),
            ((0, 1), ((1, 1), (0, 1))), ((-1, 0), ((0, 1), (0, 0))),
        ):  # fmt: skip
            neighbour = np.roll(padded, (-di, -dj), axis=(0, 1))
            cells = np.argwhere(padded & ~neighbour) - 1
            starts.append(cells + a)
            ends.append(cells + b)
        rows = int(self.shape[1] + 2)
        start, end = np.concatenate(starts), np.concatenate(ends)
        begin, to = start[:, 0] * rows + start[:, 1], end[:, 0] * rows + end[:, 1]
        leaving: dict[int, list[int]] = {}
        for here, there in zip(begin.tolist(), to.tolist(), strict=True):
            leaving.setdefault(here, []).append(there)
        loops = []
        while leaving:
            first = next(iter(leaving))
            loop, here = [first], _leave(leaving, first)
            while here != first:
                loop.append(here)
                here = _leave(leaving, here)
            corners = np.array([divmod(corner, rows) for corner in loop])
            turns = (np.roll(corners, 1, axis=0) - corners) != (corners - np.roll(corners, -1, axis=0))
            loops.append(self.lower + self.cell * corners[turns.any(axis=1)])
        return loops


def _leave(leaving: dict[int, list[int]], here: int) -> int:
    there = leaving[here].pop()
    if not leaving[here]:
        del leaving[here]
    return there


def dilated(mask: np.ndarray, radius: float) -> np.ndarray:
    """The cells within `radius` [m] of a mask (w, h)."""
    reach = round(radius / Canvas.cell)
    made = mask.copy()
    for shift in range(-reach, reach + 1):
        half = int(np.sqrt(reach**2 - shift**2))
        count = np.cumsum(np.pad(mask, ((0, 0), (half + 1, half))), axis=1, dtype=np.int32)
        wide = count[:, 2 * half + 1 :] > count[:, : -2 * half - 1]
        if shift >= 0:
            made[shift:] |= wide[: len(wide) - shift]
        else:
            made[:shift] |= wide[-shift:]
    return made


def closed(mask: np.ndarray, radius: float) -> np.ndarray:
    """A mask (w, h) with its gaps narrower than twice `radius` [m] filled (a morphological closing)."""
    reach = round(radius / Canvas.cell)
    wide = dilated(np.pad(mask, reach), radius)
    return (~dilated(~wide, radius))[reach:-reach, reach:-reach] | mask


@dataclass(frozen=True, kw_only=True)
class Road:
    """The road on a canvas: polygons (n, 2) [m] that cover it together, and its cells."""

    rings: list[np.ndarray]
    mask: np.ndarray


def find_road(canvas: Canvas, log_map: LogMap, driven: np.ndarray) -> Road:
    """The road of a log's map, and what the recording car drove on, (n, 2) [m]."""
    outlines = canvas.all_clipped(log_map.outlines)
    areas = canvas.all_clipped(lane.outline for lane in log_map.lanes if lane.outline is not None)
    mask = canvas.fill([one_ring(outlines)]) if outlines else np.zeros(canvas.shape, dtype=bool)
    points = np.concatenate([np.zeros((0, 2)), *(lane.line for lane in log_map.lanes)])
    i, j, inside = canvas.at(points)
    held = mask[i, j][inside]
    stroke = canvas.strokes([(driven, _DRIVEN_WIDTH)])
    if outlines and (not held.size or held.mean() >= TRUSTED):
        rings = [one_ring(outlines), *areas]
        mask |= canvas.fill(areas)
        if (stroke & ~mask).any():
            rings.append(one_ring(canvas.outlines(stroke)))
            mask |= stroke
        return Road(rings=rings, mask=mask)
    near = [lane for lane in log_map.lanes if lane.outline is None and canvas.at(lane.line)[2].any()]
    lanes = canvas.strokes([(lane.line, lane.width) for lane in near])
    mask = closed(canvas.fill(areas) | lanes | stroke, GAP)
    return Road(rings=[one_ring(canvas.outlines(mask)), *areas] if mask.any() else areas, mask=mask)
