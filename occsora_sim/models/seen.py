"""What stood still in the frames that a world began with: kept in the world frame as it was measured, for good.

A frame of labels is a set of samples, one column at the centre of each voxel. A cell keeps the sample nearest to its
own centre together with the place where that was taken, so a later frame is answered at each of its centres by the
nearest sample of all that are at hand: frames between whose voxels the ego moved show edges finer than a voxel. Columns
are codes into a palette of the world's own, so that whoever asks what a column means looks it up.

It is a value: reading waits for no device, and no shape depends on what is there.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from occsora_sim.errors import ConfigurationError
from occsora_sim.geometry import relative, to_frame, to_world
from occsora_sim.grid import Grid
from occsora_sim.models.columns import UNSEEN, distinct_columns

EXTENT = 160.0
"""Edge of the square that is kept [m]: the view, and 40 m to each side for frames from before and to come."""

_UNITS = 80
"""Units of a sample's place in a cell: it lies at most 1.42 cells from its cell's centre, half a voxel's diagonal,
which an int8 holds to a hundredth of a cell."""

_FARTHEST = (1 << 16) - 1
"""Square of a distance that counts as any farther one [units^2]: three cells."""


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What was seen by b worlds.

    Attributes:
        samples: (b, s, s) int32: the sample's code, 16 bits, and how far from the cell's centre it was taken, along x
            and y [cell / 80], 8 bits each with 128 added. Code 0: nothing was seen there.
        palette: (b, p, z) uint8, the column of each code; the first is UNSEEN.
        origin: (b, 3) world pose of the lattice's frame, that of the newest frame, whose columns' centres are centres
            of cells, so that it enters exactly.
        cell: edge of a cell [m]; half a voxel, so that four frames seldom compete for one.

    """

    samples: Tensor
    palette: Tensor
    origin: Tensor
    cell: float

    @staticmethod
    def of(labels: Tensor, poses: Tensor, grid: Grid) -> Seen:
        """What frames (b, h, x, y, z) uint8 saw from world poses (b, h, 3), the newest last. Columns with an UNSEEN
        voxel are left out. Waits for the device.
        """
        cell, origin = grid.voxel / 2, poses[:, -1]
        palette, codes = _coded(labels)
        side = math.ceil(EXTENT / cell / 2) * 2
        axis = (torch.arange(side, device=labels.device) - side // 2) * cell
        middles = torch.stack(torch.meshgrid(axis, axis, indexing="ij"), dim=-1) + axis.new_tensor(
            _middle(grid)
        )
        lower, size = axis.new_tensor(grid.lower[:2]), torch.tensor(grid.shape[:2], device=labels.device)
        kept = torch.zeros(len(labels), side, side, dtype=torch.int32, device=labels.device)
        least = torch.full(kept.shape, torch.iinfo(torch.int32).max, dtype=torch.int32, device=labels.device)
        row = torch.arange(len(labels), device=labels.device)[:, None, None]
        for k in reversed(range(poses.shape[1])):  # of samples as near the newest is kept
            local = relative(origin, poses[:, k])[:, None, None]
            # Centres on a border between voxels, by rounding on either side of it, belong to the upper one.
            voxel = torch.floor((to_frame(middles, local) - lower) / grid.voxel + 1e-4).long()
            shown = ((voxel >= 0) & (voxel < size)).all(-1)
            taken = to_world((voxel + 0.5) * grid.voxel + lower, local)
            place = ((taken - middles) / cell * _UNITS).round().int()
            voxel = voxel.clamp(min=0).minimum(size - 1)
            code = codes[:, k][row, voxel[..., 0], voxel[..., 1]]
            away = place.square().sum(-1, dtype=torch.int32)
            wins = shown & (code > 0) & (away < least)
            sample = code << 16 | (place[..., 0] + 128) << 8 | (place[..., 1] + 128)
            kept, least = torch.where(wins, sample, kept), torch.where(wins, away, least)
        return Seen(samples=kept, palette=palette, origin=origin, cell=cell)

    def map(self, change: Callable[[Tensor], Tensor]) -> Seen:
        """Every tensor changed in the same way: rows picked, say."""
        return replace(
            self, samples=change(self.samples), palette=change(self.palette), origin=change(self.origin)
        )

    def with_codes(self, count: int) -> Seen:
        """With a palette of at least `count` columns."""
        missing = max(0, count - self.palette.shape[1])
        return replace(self, palette=F.pad(self.palette, (0, 0, 0, missing), value=UNSEEN))

    def points(self, poses: Tensor, grid: Grid) -> Tensor:
        """Where in the lattice's frame the columns (b, f, x, y, 2) [m] of frames at world poses (b, f, 3) are."""
        local = relative(self.origin[:, None], poses)
        return to_world(grid.centres_xy(poses.device), local[:, :, None, None])

    def read(self, points: Tensor, grid: Grid) -> Tensor:
        """Codes (b, f, x, y) int32 of frames whose columns are at `points`; 0 where nothing was seen."""
        x, y = self._cells(points, grid)
        index, inside, own_x, own_y = self._index(x, y)
        # The own cell first, and those on the side of it where the point lies: the nearest sample is in one of these
        # but for one column in five thousand.
        x, y, two = (
            x - own_x,
            y - own_y,
            torch.arange(2, device=x.device, dtype=torch.int32).view(-1, 1, 1, 1, 1),
        )
        side_x, side_y = x.sign(), y.sign()
        where = (index + side_x.int() * two * self.samples.shape[1])[:, None] + side_y.int() * two
        where.clamp_(0, self.samples.numel() - 1)  # (2, 2, b, f, x, y)
        samples = self.samples.view(-1).index_select(0, where.flatten()).view_as(where)
        # How far the samples are from the point along both axes, in units.
        along = (samples >> 8 & 255) + ((side_x * two - x) * _UNITS - 128)[:, None]
        across = (samples & 255) + ((side_y * two - y) * _UNITS - 128)
        away, codes = along.square_().add_(across.square_()), samples >> 16
        away.masked_fill_(codes == 0, _FARTHEST)
        # Distance and code in one number, whose least has the code that is wanted.
        nearest = (away.clamp_(max=_FARTHEST).int() << 15 | codes).flatten(0, 1).amin(0)
        return torch.where(inside & (codes[0, 0] > 0), nearest & (1 << 15) - 1, 0)

    def look(self, points: Tensor, grid: Grid) -> Tensor:
        """Codes (b, ...) int32 of what was sampled in the cells of points (b, ..., 2) [m] of the lattice's frame; 0
        where nothing was.
        """
        index, inside, _, _ = self._index(*self._cells(points, grid))
        samples = self.samples.view(-1).index_select(0, index.flatten()).view_as(index)
        return torch.where(inside, samples >> 16, 0)

    def columns(self, codes: Tensor) -> Tensor:
        """Labels (b, ..., z) uint8 of codes (b, ...)."""
        return of_codes(self.palette, codes)

    def _cells(self, points: Tensor, grid: Grid) -> tuple[Tensor, Tensor]:
        """Points of the lattice's frame in cells along x and y, whole numbers at their centres."""
        x, y = _middle(grid)
        return (points[..., 0] - x) / self.cell, (points[..., 1] - y) / self.cell

    def _index(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Of cells (b, ...) where they are in the flat samples, int32, whether they and those around them are held,
        bool, and their centres along x and y.
        """
        side = self.samples.shape[1]
        index, inside = _rows(x, side), None
        centres = torch.floor(x + 0.5), torch.floor(y + 0.5)
        for centre in centres:
            at = centre.int() + side // 2
            held = (at > 0) & (at < side - 1)
            inside = held if inside is None else inside & held
            index = (index + at.clamp_(0, side - 1)) * (side if centre is centres[0] else 1)
        assert inside is not None
        return index, inside, *centres


def of_codes(table: Tensor, codes: Tensor) -> Tensor:
    """What each world's own table (b, p, ...) says of its codes (b, ...) int32; -1 is the last."""
    size = table.shape[1]
    index = codes.remainder(size) + _rows(codes, size)
    return table.flatten(0, 1).index_select(0, index.flatten()).unflatten(0, codes.shape)


def _coded(labels: Tensor) -> tuple[Tensor, Tensor]:
    """Palettes (b, p, z) uint8, of each the first UNSEEN, and codes (b, h, x, y) int32 of labels (b, h, x, y, z)."""
    palettes, codes = [], []
    for frames in labels:
        palette, index = distinct_columns(frames)
        if len(palette) >= 1 << 15:
            raise ConfigurationError(
                f"start: its frames hold {len(palette)} different columns, at most {1 << 15} can be told apart; are "
                "they semantic labels?"
            )
        code = torch.where(
            (palette == UNSEEN).any(-1), 0, torch.arange(1, len(palette) + 1, device=labels.device)
        )
        palettes.append(F.pad(palette, (0, 0, 1, 0), value=UNSEEN))
        codes.append(code.int()[index].view(frames.shape[:-1]))
    most = max(map(len, palettes))
    padded = [F.pad(palette, (0, 0, 0, most - len(palette)), value=UNSEEN) for palette in palettes]
    return torch.stack(padded), torch.stack(codes)


def _rows(index: Tensor, size: int) -> Tensor:
    """Where each world's own `size` entries begin, in the shape of `index` (b, ...)."""
    return (torch.arange(len(index), device=index.device, dtype=torch.int32) * size).view(
        -1, *(1,) * (index.ndim - 1)
    )


def _middle(grid: Grid) -> list[float]:
    """The centre of a column in the middle of the view, in the ego frame [m]; the lattice's middle cell is there."""
    return [
        low + (side // 2 + 0.5) * grid.voxel for low, side in zip(grid.lower[:2], grid.shape[:2], strict=True)
    ]
