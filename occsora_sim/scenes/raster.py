"""The static part of a scene as a world-aligned raster of voxel columns, made once per scene."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from occsora_sim.errors import SceneError
from occsora_sim.grid import FREE, Grid
from occsora_sim.scenes.scene import Scene

GROUND_UPPER = 0.2
"""Polygons that end at or below this height [m] are ground: they fill the one layer that holds z = 0."""

MAX_CELLS = 500_000_000
"""A raster larger than this is a mistake in the scene's coordinates, not a place."""

_TIE = 1e-3
"""Fraction of a cell below which a corner counts as lying on a cell's centre, so that float32 corners at
round numbers fall on the same side everywhere."""


@dataclass(frozen=True, kw_only=True)
class Raster:
    """Voxel columns on a world-aligned lattice; the cell (i, j) has its centre at origin + (i, j) * cell.

    Attributes:
        columns: (w, h) int16 (int32 for 32768 columns or more): index into `palette`; the border is free.
        palette: (K, z) uint8, the unique columns of labels, bottom first; palette[0] is free throughout.
        origin: world x, y of the centre of cell (0, 0) [m].
        cell: distance of two cells [m].

    """

    columns: torch.Tensor
    palette: torch.Tensor
    origin: tuple[float, float]
    cell: float


def layers_between(grid: Grid, lower: float, upper: float) -> np.ndarray:
    """Bool mask (z,) of the layers that a prism fills: voxel centres in [lower, upper) [m].

    Ground (upper <= GROUND_UPPER) fills the layer `grid.ground` alone, whatever the voxel's size.
    """
    if upper <= GROUND_UPPER + 1e-4:
        return np.arange(grid.shape[2]) == grid.ground
    centres = (np.arange(grid.shape[2]) + 0.5) * grid.voxel + grid.lower[2]
    return (centres >= lower - 1e-4) & (centres < upper - 1e-4)


def fill_polygon(corners: np.ndarray) -> tuple[int, int, np.ndarray] | None:
    """Even-odd fill by cell centre of one closed polygon.

    Args:
        corners: (m, 2) float64 in cell units: the cell (i, j) has its centre at exactly (i, j).

    Returns:
        The first i and j of the bounding box and a bool mask (w, h) of the cells inside it, or None when the
        polygon holds no centre. A centre on an edge belongs to the polygon on its upper side only, so that
        neighbours that share an edge neither overlap nor leave a gap.

    """
    if len(corners) < 3:
        return None
    snapped = np.ceil(corners - _TIE).astype(np.int64)
    (first_i, first_j), (last_i, last_j) = snapped.min(0), snapped.max(0)
    if last_i <= first_i or last_j <= first_j:
        return None
    a, b = corners, np.roll(corners, -1, axis=0)
    swap = a[:, 0] > b[:, 0]
    a, b = np.where(swap[:, None], b, a), np.where(swap[:, None], a, b)
    start, stop = np.ceil(a[:, 0] - _TIE).astype(np.int64), np.ceil(b[:, 0] - _TIE).astype(np.int64)
    rows = stop - start  # scan lines i that each edge crosses
    edge = np.repeat(np.arange(len(a)), rows)
    i = np.arange(len(edge)) - np.repeat(np.cumsum(rows) - rows, rows) + start[edge]
    slope = (b[edge, 1] - a[edge, 1]) / (b[edge, 0] - a[edge, 0])
    j = np.ceil(a[edge, 1] + (i - a[edge, 0]) * slope - _TIE).astype(np.int64)
    toggles = np.zeros((last_i - first_i, last_j - first_j + 1), dtype=np.uint8)
    np.add.at(toggles, (i - first_i, np.clip(j - first_j, 0, last_j - first_j)), 1)
    parity = np.bitwise_xor.accumulate(toggles & 1, axis=1)[:, :-1]
    return int(first_i), int(first_j), parity.astype(bool)


def rasterise(scene: Scene, grid: Grid, cell: float = 0.2) -> Raster:
    """Paint the scene's polygons, in order, into columns of the grid's layers; uncovered space is FREE.

    Raises:
        SceneError: corners that are not finite or spread over an impossible area.

    """
    points = scene.polygon_points.astype(np.float64)
    if not np.isfinite(points).all():
        raise SceneError(
            f"scene {scene.name}: polygon_points holds values that are not finite; remake the scene"
        )
    corners = np.round(points / cell, 6)
    # A border of free cells, so that clamping an index that lies outside answers "free".
    low = np.floor(corners.min(0)).astype(np.int64) - 1 if len(corners) else np.zeros(2, dtype=np.int64)
    high = np.ceil(corners.max(0)).astype(np.int64) + 1 if len(corners) else np.zeros(2, dtype=np.int64)
    width, height = (int(n) for n in high - low + 1)
    if width * height > MAX_CELLS:
        raise SceneError(
            f"scene {scene.name}: polygons span {width * cell:.0f} x {height * cell:.0f} m; cut it up"
        )
    columns = np.zeros((width, height), dtype=np.int32)
    palette: list[bytes] = [bytes([FREE] * grid.shape[2])]
    index = {palette[0]: 0}
    for k in range(len(scene.polygon_class)):
        filled = fill_polygon(corners[scene.polygon_offsets[k] : scene.polygon_offsets[k + 1]] - low)
        layers = layers_between(grid, float(scene.polygon_z[k, 0]), float(scene.polygon_z[k, 1]))
        if filled is None or not layers.any():
            continue
        i, j, mask = filled
        window = columns[i : i + mask.shape[0], j : j + mask.shape[1]]
        covered = window[mask]
        repainted = np.arange(len(palette), dtype=np.int32)
        for old in np.flatnonzero(np.bincount(covered)):
            column = np.frombuffer(palette[old], dtype=np.uint8).copy()
            column[layers] = scene.polygon_class[k]
            key = column.tobytes()
            if key not in index:
                index[key] = len(palette)
                palette.append(key)
            repainted[old] = index[key]
        window[mask] = repainted[covered]
    kind = np.int16 if len(palette) < 32768 else np.int32
    labels = np.frombuffer(b"".join(palette), dtype=np.uint8).reshape(len(palette), -1).copy()
    return Raster(
        columns=torch.from_numpy(columns.astype(kind)),
        palette=torch.from_numpy(labels),
        origin=(float(low[0] * cell), float(low[1] * cell)),
        cell=cell,
    )
