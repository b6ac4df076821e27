"""The static part of a scene as a world-aligned raster of voxel columns, made once per scene."""

from __future__ import annotations

import numpy as np
import torch

from occsora_sim.errors import SceneError
from occsora_sim.grid import FREE, Grid
from occsora_sim.scenes.scene import Scene
from occsora_sim.voxels.raster import Raster

GROUND_UPPER = 0.2
"""Polygons that end at or below this height [m] are ground: they fill the one layer that holds z = 0."""

MAX_CELLS = 500_000_000
"""A raster larger than this is a mistake in the scene's coordinates, not a place."""

_TIE = 1e-3
"""Fraction of a cell below which a corner counts as lying on a cell's centre, so that float32 corners at
round numbers fall on the same side everywhere."""


_FAR = 2.0**40
"""Corners further away than so many cells are none of a place; far beyond, whole numbers would overflow."""

_LONG_RUNS = 400
"""Runs of more cells than this are painted one by one, as slices; shorter ones gathered by index."""


def layers_between(grid: Grid, lower: float, upper: float) -> np.ndarray:
    """Bool mask (z,) of the layers that a prism fills: voxel centres in [lower, upper) [m].

    Ground (upper <= GROUND_UPPER) fills the layer `grid.ground` alone, whatever the voxel's size.
    """
    if upper <= GROUND_UPPER + 1e-4:
        return np.arange(grid.shape[2]) == grid.ground
    centres = (np.arange(grid.shape[2]) + 0.5) * grid.voxel + grid.lower[2]
    return (centres >= lower - 1e-4) & (centres < upper - 1e-4)


def polygon_spans(
    corners: np.ndarray, offsets: np.ndarray, width: int, height: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Even-odd fill by cell centre of closed polygons on a lattice of (width, height) cells, by scan lines.

    Args:
        corners: (p, 2) float64 in cell units, inside the lattice; cell (i, j) has its centre at (i, j).
        offsets: (n + 1,) int64, polygon k owns corners[offsets[k]:offsets[k + 1]].
        width: cells along i.
        height: cells along j.

    Returns:
        Runs of cells inside a polygon, in the polygons' order: the polygon, the first flat index
        i * height + j, and the index after the last, each (s,) int64. A centre on an edge belongs to the
        polygon on its upper side only, so that neighbours neither overlap nor leave a gap.

    """
    following = np.arange(1, len(corners) + 1)
    some = np.diff(offsets) > 0
    following[offsets[1:][some] - 1] = offsets[:-1][some]
    a, b = corners, corners[following]
    swap = (a[:, 0] > b[:, 0])[:, None]
    a, b = np.where(swap, b, a), np.where(swap, a, b)
    first, stop = np.ceil(a[:, 0] - _TIE).astype(np.int64), np.ceil(b[:, 0] - _TIE).astype(np.int64)
    lines = stop - first  # scan lines i that each edge crosses
    edge = np.repeat(np.arange(len(a)), lines)
    i = np.arange(len(edge)) - np.repeat(np.cumsum(lines) - lines, lines) + first[edge]
    slope = np.divide(b[:, 1] - a[:, 1], b[:, 0] - a[:, 0], where=lines > 0, out=np.zeros(len(a)))
    j = np.ceil(a[edge, 1] + (i - a[edge, 0]) * slope[edge] - _TIE).astype(np.int64)
    owner = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))[edge]
    # A scan line crosses a closed polygon an even number of times: in order, every two bound a run.
    crossings = np.sort((owner * width + i) * height + np.clip(j, 0, height - 1))
    start, stop = crossings[0::2], crossings[1::2]
    some = stop > start
    area = width * height
    return start[some] // area, start[some] % area, stop[some] % area


class _Columns:
    """The unique columns so far, and what becomes of each under each brush (a label and its layers)."""

    def __init__(self, layers: int) -> None:
        self.palette = [bytes([FREE] * layers)]
        self._index = {self.palette[0]: 0}
        self._brushes: dict[tuple[int, bytes], np.ndarray] = {}

    def painted(self, columns: np.ndarray, label: int, layers: np.ndarray) -> np.ndarray:
        """The indices of `columns` (c,) int32 after the brush."""
        brush = (label, layers.tobytes())
        result = self._brushes.get(brush, np.zeros(0, dtype=np.int32))
        if len(result) < len(self.palette):
            result = np.append(result, np.full(2 * len(self.palette) - len(result), -1, dtype=np.int32))
            self._brushes[brush] = result
        painted = result[columns]
        if (painted < 0).any():
            for old in np.unique(columns[painted < 0]):
                column = np.frombuffer(self.palette[old], dtype=np.uint8).copy()
                column[layers] = label
                result[old] = self._index.setdefault(column.tobytes(), len(self.palette))
                if result[old] == len(self.palette):
                    self.palette.append(column.tobytes())
            painted = result[columns]
        return painted


def rasterise(scene: Scene, grid: Grid, cell: float = 0.2) -> Raster:
    """Paint the scene's polygons, in order, into columns of the grid's layers; uncovered space is FREE.

    Raises:
        SceneError: corners that are not finite or spread over an impossible area.

    """
    points = scene.polygon_points.astype(np.float64)
    if not np.isfinite(points).all():
        raise SceneError(f"scene {scene.name}: polygon_points are not all finite; remake the scene")
    corners = np.round(points / cell, 6)
    if not np.abs(corners).max(initial=0.0) < _FAR:
        raise SceneError(
            f"scene {scene.name}: polygon_points lie up to {np.abs(points).max():.3g} m away; move the scene "
            "near its origin"
        )
    # A border of free cells, so that clamping an index that lies outside answers "free".
    low = np.floor(corners.min(0)).astype(np.int64) - 1 if len(corners) else np.zeros(2, dtype=np.int64)
    high = np.ceil(corners.max(0)).astype(np.int64) + 1 if len(corners) else np.zeros(2, dtype=np.int64)
    width, height = (int(n) for n in high - low + 1)
    if width * height > MAX_CELLS:
        span = f"{width * cell:.0f} x {height * cell:.0f} m"
        raise SceneError(f"scene {scene.name}: polygons span {span}; cut it into smaller scenes")
    owner, start, stop = polygon_spans(corners - low, scene.polygon_offsets, width, height)
    bounds = np.searchsorted(owner, np.arange(len(scene.polygon_class) + 1))
    cells = np.zeros(width * height, dtype=np.int32)
    columns = _Columns(grid.shape[2])
    for k, label in enumerate(scene.polygon_class.tolist()):
        layers = layers_between(grid, *scene.polygon_z[k].tolist())
        begin, end = start[bounds[k] : bounds[k + 1]], stop[bounds[k] : bounds[k + 1]]
        lengths = end - begin
        if lengths.sum() > _LONG_RUNS * len(lengths):
            for run in map(slice, begin, end):
                cells[run] = columns.painted(cells[run], label, layers)
        elif len(lengths):
            inside = np.repeat(begin - np.cumsum(lengths) + lengths, lengths) + np.arange(lengths.sum())
            cells[inside] = columns.painted(cells[inside], label, layers)
    kind = np.int16 if len(columns.palette) < 32768 else np.int32
    labels = np.frombuffer(b"".join(columns.palette), dtype=np.uint8).reshape(len(columns.palette), -1)
    return Raster(
        columns=torch.from_numpy(cells.astype(kind).reshape(width, height)),
        palette=torch.from_numpy(labels.copy()),
        origin=(float(low[0] * cell), float(low[1] * cell)),
        cell=cell,
    )
