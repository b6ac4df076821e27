"""What a log does not say of a place: terrain, pavements, buildings, trees; from a seed, and away from what it says."""

from __future__ import annotations

import numpy as np

from occsora_sim import grid
from occsora_sim.scenes.dressing import FLOOR, _Builder, _line, _Side, _tree
from occsora_sim.scenes.drivable import Canvas, Road, closed, dilated, one_ring
from occsora_sim.scenes.ground import GROUND_Z, Polygon, Raster, area, octagon, rectangle
from occsora_sim.scenes.log_egos import resampled
from occsora_sim.scenes.log_map import LogMap
from occsora_sim.scenes.log_tracks import LogTracks

PAVEMENT = 2.5
"""Width of the pavement along a road [m], where the log has none."""

CLEARANCE = 1.0
"""What is made up keeps this far from whatever was recorded [m]."""

_PARKED = (grid.CAR, grid.BUS, grid.TRUCK, grid.TRAILER)  # they do not stand on grass
_SECTION = 90.0  # a side of a street looks alike for about this long [m]
_SHARP = 0.6  # [rad] in 6 m; there a side ends


def dress_log(
    rng: np.random.Generator, canvas: Canvas, road: Road, log_map: LogMap, tracks: LogTracks
) -> list[Polygon]:
    """All polygons of a log's place in painting order, ground first.

    Args:
        rng: what is made up follows from it.
        canvas: the place.
        road: where the road lies.
        log_map: the rest of the map.
        tracks: what moved and stood; nothing solid is put where it was.

    """
    walks = canvas.all_clipped(points for points, label in log_map.areas if label == grid.SIDEWALK)
    crossings = canvas.all_clipped(points for points, label in log_map.areas if label != grid.SIDEWALK)
    street = road.mask | (canvas.fill(walks) if walks else dilated(road.mask, PAVEMENT))
    edges = [rounded(line, 1.0) for line in canvas.outlines(street)]
    everything = np.ones(len(tracks.label), dtype=bool)
    recorded = dilated(_trodden(canvas, tracks, everything), CLEARANCE)
    parked = _trodden(canvas, tracks, np.isin(tracks.label, _PARKED)) & ~street
    lots = [rounded(line, 1.0) for line in canvas.outlines(closed(dilated(parked, 1.5), 2.5))]

    raster = Raster((*canvas.lower.tolist(), *canvas.upper.tolist()))
    lot = canvas.fill([one_ring(lots)]) if lots else np.zeros(canvas.shape, dtype=bool)
    taken = (street | canvas.fill(crossings) | recorded | lot).T
    raster.taken[: taken.shape[0], : taken.shape[1]] = taken
    place = _Builder(rng, raster)
    for side in _sides(edges):
        _lamps(place, side, recorded.T, street.T)
        _line(place, side)
    _fill(place, canvas)
    for point in log_map.posts:
        place.solid(octagon(point, 0.5), grid.MANMADE, FLOOR, 2.4)

    x0, y0, x1, y1 = (*canvas.lower, *canvas.upper)
    square = np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]])
    ground = [(square, grid.TERRAIN), *((polygon.points, polygon.label) for polygon in place.extras)]
    if lots:
        ground.append((one_ring(lots), grid.OTHER_FLAT))
    if not walks and edges:
        ground.append((one_ring(edges), grid.SIDEWALK))
    ground += [(points, grid.SIDEWALK) for points in walks]
    ground += [(points, grid.DRIVEABLE) for points in (*road.rings, *crossings)]
    return [Polygon(points=points, label=label, z=GROUND_Z) for points, label in ground] + place.solids


def _trodden(canvas: Canvas, tracks: LogTracks, whose: np.ndarray) -> np.ndarray:
    """The cells (w, h) that any of the boxes `whose` (k,) ever covers."""
    k, t = np.nonzero(tracks.valid & whose[:, None])
    half = tracks.size[k, :2] / 2
    x, y, yaw = tracks.state[k, t, 0], tracks.state[k, t, 1], tracks.state[k, t, 2]
    mask = np.zeros(canvas.shape, dtype=bool)
    for along in np.linspace(-1, 1, 7):
        for across in (-1.0, 0.0, 1.0):
            dx, dy = along * half[:, 0], across * half[:, 1]
            points = np.stack(
                (x + np.cos(yaw) * dx - np.sin(yaw) * dy, y + np.sin(yaw) * dx + np.cos(yaw) * dy), -1
            )
            i, j, inside = canvas.at(points)
            mask[i[inside], j[inside]] = True
    return mask


def _sides(edges: list[np.ndarray]) -> list[_Side]:
    """The outer edges of the pavements, cut where they turn sharply and after a while."""
    sides = []
    for edge in edges:
        if abs(area(edge)) < 30.0:
            continue
        line = rounded(edge, 3.0)
        if len(line) < 60:
            continue
        along = np.roll(line, -3, axis=0) - np.roll(line, 3, axis=0)
        along /= np.maximum(np.linalg.norm(along, axis=1, keepdims=True), 1e-9)
        ahead, behind = np.roll(along, -6, axis=0), np.roll(along, 6, axis=0)
        turn = np.abs(
            np.arctan2(behind[:, 0] * ahead[:, 1] - behind[:, 1] * ahead[:, 0], (behind * ahead).sum(1))
        )
        smooth = np.concatenate(([False], turn < _SHARP, [False])).astype(np.int8)
        begins, ends = np.flatnonzero(np.diff(smooth) == 1), np.flatnonzero(np.diff(smooth) == -1)
        for begin, end in zip(begins, ends, strict=True):
            parts = max(1, round((end - begin) / 2 / _SECTION))
            for part in np.array_split(np.arange(begin, end), parts):
                if len(part) > 24:
                    sides.append(_Side(points=line[part], along=along[part], pavement=PAVEMENT))
    return sides


def rounded(ring: np.ndarray, reach: float) -> np.ndarray:
    """A closed line (n, 2) [m] about every half metre, its corners rounded over `reach` [m] to either side."""
    line = resampled(np.concatenate((ring, ring[:1])), 0.5)[:-1]
    half = min(round(reach / 0.5), (len(line) - 1) // 2)
    around = np.concatenate((line[len(line) - half :], line, line[:half]))
    window = np.ones(2 * half + 1) / (2 * half + 1)
    return np.stack([np.convolve(around[:, c], window, mode="valid") for c in range(2)], axis=-1)


def _lamps(place: _Builder, side: _Side, recorded: np.ndarray, street: np.ndarray) -> None:
    """Lamp posts near the kerb, where nobody ever was."""
    station = float(place.rng.uniform(3, 15))
    while station < side.length - 3:
        centre, yaw = side.at(station, -side.pavement + 0.6)
        column, row = np.floor((centre - place.raster.lower) / Raster.cell).astype(int)
        if street[row, column] and not recorded[row, column]:
            place.solid(
                rectangle(centre, yaw, 0.5, 0.5), grid.MANMADE, FLOOR, float(place.rng.uniform(4.4, 6.0))
            )
        station += float(place.rng.uniform(24, 34))


def _fill(place: _Builder, canvas: Canvas) -> None:
    """Behind the rows: more buildings, bushes, trees."""
    rng = place.rng
    span = canvas.upper - canvas.lower
    for count, kind in ((8, "building"), (5, "bush"), (30, "tree")):
        for _ in range(round(count * float(span.prod()) / 1e4)):
            centre, yaw = canvas.lower + rng.random(2) * span, float(rng.uniform(0, np.pi))
            if kind == "building":
                length, width = rng.uniform(8, 18, 2)
                clear = rectangle(centre, yaw, length + 6, width + 6)
                place.put(
                    rectangle(centre, yaw, length, width), grid.MANMADE, float(rng.uniform(3, 9)), clear
                )
            elif kind == "bush":
                length, width, height = rng.uniform(2, 10), rng.uniform(0.8, 3), rng.uniform(0.8, 2.2)
                place.put(rectangle(centre, yaw, length, width), grid.VEGETATION, float(height))
            else:
                _tree(place, centre)
