"""The world-frame record: what stood still when it was seen, kept so that it is there on return.

A frame of labels is a set of samples, one column at the centre of each voxel. A cell of the record keeps the sample
nearest to its own centre together with the place where that was taken, so a later frame is answered at each of its
centres by the nearest sample of all that are at hand: frames that were measured, between whose voxels the ego moved,
together show edges finer than a voxel. A frame that was not measured is written once, where nothing stands yet, so
re-reading it from any pose never compounds resampling errors.

The canvas wraps round like a torus; a stamp per cell says which lap of the torus wrote it, so the record follows the
car without bounds and forgets what is further than half its extent away.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from occsora_sim.geometry import relative, to_frame, to_world
from occsora_sim.grid import Grid
from occsora_sim.models.columns import UNSEEN

_NEVER = torch.iinfo(torch.int32).min

_PLACE = 80
"""Units of `Record.place` in a cell: a sample lies at most half a voxel's diagonal, 1.42 cells, from its cell's centre,
which an int8 holds to a hundredth of a cell."""


@dataclass(frozen=True, kw_only=True)
class Record:
    """The record of b worlds; a value.

    Attributes:
        labels: (b, s, s, z) uint8 labels of the canvas, meaningful where `stamp` is current.
        place: (b, s, s, 2) int8, how far from the cell's centre they were sampled [cell / 80], along the canvas' axes.
        stamp: (b, s, s) int32, the lap of the torus that wrote each cell.
        origin: (b, 3) world pose of the canvas frame. Its axes follow the first frame, whose columns' centres are
            centres of cells, so that frame enters exactly.
        cell: edge of a canvas cell [m]; half a voxel, so that four frames seldom compete for a cell.

    """

    labels: Tensor
    place: Tensor
    stamp: Tensor
    origin: Tensor
    cell: float

    @staticmethod
    def empty(origin: Tensor, grid: Grid) -> Record:
        """A blank record for the worlds with canvas frames `origin` (b, 3), 2.5 views wide."""
        cell = grid.voxel / 2
        side = math.ceil(2.5 * grid.shape[0] * grid.voxel / cell)
        shape = (len(origin), side, side)
        return Record(
            labels=torch.full((*shape, grid.shape[2]), UNSEEN, dtype=torch.uint8, device=origin.device),
            place=torch.zeros((*shape, 2), dtype=torch.int8, device=origin.device),
            stamp=torch.full(shape, _NEVER, dtype=torch.int32, device=origin.device),
            origin=origin,
            cell=cell,
        )

    @staticmethod
    def of(labels: Tensor, poses: Tensor, grid: Grid) -> Record:
        """The record of measured frames (b, h, x, y, z) at `poses` (b, h, 3), the newest last; it enters exactly."""
        record = Record.empty(poses[:, -1], grid)
        for k in reversed(range(poses.shape[1])):
            record = record.write(labels[:, k], poses[:, k], grid, measured=True)
        return record

    def _locate(self, cells: Tensor) -> tuple[Tensor, Tensor]:
        """World-wide indices of cells along an axis, any shape, int32 -> where on the canvas that is, and the lap."""
        lap = torch.div(cells, self.stamp.shape[1], rounding_mode="floor")
        return cells - lap * self.stamp.shape[1], lap

    def _rows(self, cells: Tensor) -> Tensor:
        """The worlds' own offsets into the flat canvases, in the shape of `cells` (b, ...)."""
        row = torch.arange(len(cells), device=cells.device, dtype=torch.int32)
        return (row * self.stamp[0].numel()).view(-1, *(1,) * (cells.ndim - 1))

    def read(self, poses: Tensor, grid: Grid) -> Tensor:
        """The record seen from world poses (b, f, 3): (b, f, x, y, z) uint8, UNSEEN where nothing is recorded."""
        local = relative(self.origin[:, None], poses)[:, :, None, None]  # (b, f, 1, 1, 3)
        points = to_world(grid.centres_xy(poses.device), local)  # (b, f, x, y, 2)
        points = (points - points.new_tensor(_first(grid))) / self.cell
        x, y = points[..., 0].contiguous(), points[..., 1].contiguous()
        cell_x, cell_y = torch.floor(x + 0.5).int(), torch.floor(y + 0.5).int()
        along = [(*self._locate(cell_x + i), (x - cell_x - i) * _PLACE) for i in _AROUND]
        across = [(*self._locate(cell_y + j), (y - cell_y - j) * _PLACE) for j in _AROUND]
        rows = self._rows(cell_x)
        places, stamps = self.place.view(torch.int16).view(-1), self.stamp.view(-1)
        own = nearest = least = None
        for at_x, lap_x, off_x in along:
            for at_y, lap_y, off_y in across:
                index = ((rows + at_x * self.stamp.shape[2]) + at_y).flatten()
                current = stamps.index_select(0, index) == _stamp(lap_x, lap_y).flatten()
                place = places.index_select(0, index).view(torch.int8).view(-1, 2)
                distance = (off_x.flatten() - place[:, 0]).square_()
                distance += (off_y.flatten() - place[:, 1]).square_()
                distance.masked_fill_(~current, math.inf)
                if own is None or nearest is None or least is None:
                    # Where samples are as near, the own cell's is taken.
                    own, nearest, least = current, index, distance
                else:
                    nearest = torch.where(distance < least, index, nearest)
                    least = torch.minimum(least, distance)
        assert own is not None and nearest is not None
        labels = self.labels.view(-1, grid.shape[2]).index_select(0, nearest)
        return labels.masked_fill_(~own[:, None], UNSEEN).view(*x.shape, grid.shape[2])

    def write(self, labels: Tensor, pose: Tensor, grid: Grid, *, measured: bool = False) -> Record:
        """A new record that also holds the columns of `labels` (b, x, y, z) seen from `pose` (b, 3).

        Columns with an UNSEEN voxel are left out. Cells already recorded stay as they are; in a frame that was
        `measured`, so that none of it was read from this record, a nearer sample takes the place of a farther one.
        """
        b = len(labels)
        local = relative(self.origin, pose)
        half = math.ceil(0.5 * math.hypot(grid.shape[0], grid.shape[1]) * grid.voxel / self.cell) + 1
        first = local.new_tensor(_first(grid))
        centre = to_world(local.new_tensor(_middle(grid)).expand(b, 2), local)
        reach = torch.arange(-half, half, device=labels.device, dtype=torch.int32)
        base = torch.floor((centre - first) / self.cell).int()  # (b, 2)
        x, y = base[:, :1] + reach, base[:, 1:] + reach  # (b, w)
        (at_x, lap_x), (at_y, lap_y) = self._locate(x), self._locate(y)
        index = (self._rows(x) + at_x * self.stamp.shape[2])[:, :, None] + at_y[:, None]  # (b, w, w)
        stamp = _stamp(lap_x[:, :, None], lap_y[:, None])
        fresh = self.stamp.view(-1)[index] != stamp
        row, i, j = torch.nonzero(torch.ones_like(fresh) if measured else fresh, as_tuple=True)
        middles = torch.stack((x[row, i], y[row, j]), dim=-1) * self.cell + first
        lower = local.new_tensor(grid.lower[:2])
        # Centres on a border between voxels, by rounding on either side of it, belong to the upper one.
        voxel = torch.floor((to_frame(middles, local[row]) - lower) / grid.voxel + 1e-4).long()
        size = torch.tensor(grid.shape[:2], device=labels.device)
        shown = ((voxel >= 0) & (voxel < size)).all(dim=-1)
        row, i, j, voxel, middles = (part[shown] for part in (row, i, j, voxel, middles))
        columns = labels[row, voxel[:, 0], voxel[:, 1]]
        taken = to_world((voxel + 0.5) * grid.voxel + lower, local[row])
        place = ((taken - middles) / self.cell * _PLACE).round().to(torch.int8)
        where = index[row, i, j]
        wins = (columns != UNSEEN).all(dim=-1)
        if measured:
            wins &= fresh[row, i, j] | (_square(place) < _square(self.place.view(-1, 2)[where]))
        where = where[wins]
        new_labels, new_place, new_stamp = self.labels.clone(), self.place.clone(), self.stamp.clone()
        new_labels.view(-1, grid.shape[2])[where] = columns[wins]
        new_place.view(-1, 2)[where] = place[wins]
        new_stamp.view(-1)[where] = stamp[row, i, j][wins]
        return replace(self, labels=new_labels, place=new_place, stamp=new_stamp)


_AROUND = (0, 1, -1)
"""A cell and its neighbours along an axis, the cell first."""


def _stamp(lap_x: Tensor, lap_y: Tensor) -> Tensor:
    """The stamp of laps along both axes, int32."""
    return lap_x * 4096 + lap_y


def _square(place: Tensor) -> Tensor:
    """Squared length (n,) of places (n, 2) int8."""
    return (place.int() ** 2).sum(-1)


def _first(grid: Grid) -> list[float]:
    """The centre of the first column in the ego frame [m]."""
    return [low + grid.voxel / 2 for low in grid.lower[:2]]


def _middle(grid: Grid) -> list[float]:
    """The middle of the grid's ground plane in the ego frame [m]."""
    return [(low + high) / 2 for low, high in zip(grid.lower[:2], grid.upper[:2], strict=True)]
