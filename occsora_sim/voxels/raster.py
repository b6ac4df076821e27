"""Static ground as rasters of voxel columns in the world frame; those of many places in one atlas."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from occsora_sim.grid import Grid
from occsora_sim.voxels.paint import word_of


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


class Atlas:
    """Rasters of one cell size, behind one another in one tensor, so that frames of different places are one gather.

    Attributes:
        rasters: that it was made of, on its device.

    """

    def __init__(
        self, rasters: Sequence[Raster], grid: Grid, device: torch.device, real: torch.dtype
    ) -> None:
        """Take `rasters` together on `device`; poses are computed in `real`."""
        self._grid, self._cell = grid, rasters[0].cell
        cells = [raster.columns.numel() for raster in rasters]
        palettes = [len(raster.palette) for raster in rasters]
        wide = any(raster.columns.dtype == torch.int32 for raster in rasters)
        kind = torch.int32 if wide else torch.int16
        parts = [raster.columns.to(device, kind).view(-1) for raster in rasters]
        self.columns = parts[0] if len(parts) == 1 else torch.cat(parts)
        self.palette = torch.cat([raster.palette.to(device) for raster in rasters])
        # The rasters again, as views: they are kept once.
        self.rasters = tuple(
            replace(raster, columns=columns.view(raster.columns.shape), palette=palette)
            for raster, columns, palette in zip(
                rasters, self.columns.split(cells), self.palette.split(palettes), strict=True
            )
        )
        self._word = word_of(grid.shape[2], device)
        self._index = torch.int32 if sum(cells) < 1 << 31 else torch.int64

        def table(values: Sequence[object], dtype: torch.dtype) -> Tensor:
            return torch.tensor(values, dtype=dtype, device=device)

        self._origin = table([raster.origin for raster in rasters], real)
        self._shape = table([raster.columns.shape for raster in rasters], torch.int64)
        self._first = table([sum(cells[:k]) for k in range(len(cells))], torch.int64)
        self._colour = table([sum(palettes[:k]) for k in range(len(palettes))], torch.int32)
        centres = grid.centres_xy(device)
        self._axis_x, self._axis_y = centres[:, 0, 0] / self._cell, centres[0, :, 1] / self._cell

    def gather(self, place: Tensor, pose: Tensor, out: Tensor) -> None:
        """Fill `out` (n, x, y, z) with the columns at the grid's column centres around `pose` (n, 3) of the rasters
        `place` (n,) int64.
        """
        width, height = self._shape[place][..., None, None].unbind(1)
        cos, sin = torch.cos(pose[:, 2]).float()[:, None], torch.sin(pose[:, 2]).float()[:, None]
        start = ((pose[:, :2] - self._origin[place]) / self._cell + 0.5).float()
        i = (cos * self._axis_x + start[:, :1])[:, :, None] - (sin * self._axis_y)[:, None, :]
        j = (sin * self._axis_x + start[:, 1:])[:, :, None] + (cos * self._axis_y)[:, None, :]
        # clamp before the cast: truncation is then floor, and the border answers for what lies outside
        i = i.clamp_(min=0).minimum((width - 1).float()).to(self._index)
        j = j.clamp_(min=0).minimum((height - 1).float()).to(self._index)
        cells = i.mul_(height.to(self._index)).add_(j)
        if len(self._first) > 1:
            cells.add_(self._first[place].to(self._index)[:, None, None])
        ids = self.columns.index_select(0, cells.flatten()).int()
        if len(self._first) > 1:
            ids = ids.view(len(place), -1).add_(self._colour[place][:, None]).flatten()
        if self._word is None:
            torch.index_select(self.palette, 0, ids, out=out.view(-1, self.palette.shape[1]))
        else:
            words = self.palette.view(self._word).view(-1)
            torch.index_select(words, 0, ids, out=out.view(self._word).view(-1))
