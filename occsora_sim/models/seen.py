"""What stood still in the frames that a world began with: kept in the world frame as it was measured, for good.

A frame of labels is a set of samples, one column at the centre of each voxel. A cell of a lattice finer than a voxel
keeps the sample nearest to its centre, of all frames': between whose voxels the ego moved, so that they show edges
finer than a voxel. A later frame is answered at each of its centres by the cell there. Columns are codes into a palette
of the world's own, so that whoever asks what a column means looks it up.

It is a value: reading waits for no device, and no shape depends on what is there.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from occsora_sim.constants import constant, span
from occsora_sim.errors import ConfigurationError
from occsora_sim.geometry import relative
from occsora_sim.grid import Grid
from occsora_sim.models.columns import UNSEEN, distinct_columns

EXTENT = 128.0
"""Edge of the square that is kept [m]: what road users are simulated on."""

FINER = 4
"""Cells along a voxel. With so many what is read is as right as the nearest sample itself, with two it is not."""


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What was seen by b worlds.

    Attributes:
        codes: (b, s, s) int16: the code of what was sampled nearest to each cell's centre; 0: nothing was seen there.
        palette: (b, p, z) uint8, the column of each code; the first is UNSEEN.
        origin: (b, 3) world pose of the lattice's frame, that of the newest frame, whose columns' centres are centres
            of cells, so that it enters exactly.
        cell: edge of a cell [m].

    """

    codes: Tensor
    palette: Tensor
    origin: Tensor
    cell: float

    @staticmethod
    def of(labels: Tensor, poses: Tensor, grid: Grid) -> Seen:
        """What frames (b, h, x, y, z) uint8 saw from world poses (b, h, 3), the newest last. Columns with an UNSEEN
        voxel are left out. Waits for the device.
        """
        cell, origin = grid.voxel / FINER, poses[:, -1]
        palette, codes = _coded(labels)
        side = math.ceil(EXTENT / cell / 2) * 2
        axis = (torch.arange(side, device=labels.device) - side // 2) * cell
        kept = torch.zeros(len(labels), side, side, dtype=torch.int16, device=labels.device)
        least = torch.full(kept.shape, torch.inf, device=labels.device)
        for k in reversed(range(poses.shape[1])):  # of samples as near the newest is kept
            away, index, shown = _nearest(axis, relative(origin, poses[:, k]), grid)
            code = codes[:, k].flatten(1).gather(1, index.flatten(1)).view_as(index)
            wins = shown & (code > 0) & (away < least)
            kept, least = torch.where(wins, code, kept), torch.where(wins, away, least)
        return Seen(codes=kept, palette=palette, origin=origin, cell=cell)

    def map(self, change: Callable[[Tensor], Tensor]) -> Seen:
        """Every tensor changed in the same way: rows picked, say."""
        return replace(
            self, codes=change(self.codes), palette=change(self.palette), origin=change(self.origin)
        )

    def with_codes(self, count: int) -> Seen:
        """With a palette of at least `count` columns."""
        missing = max(0, count - self.palette.shape[1])
        return replace(self, palette=F.pad(self.palette, (0, 0, 0, missing), value=UNSEEN))

    def points(self, poses: Tensor, grid: Grid) -> Tensor:
        """Where in the lattice's frame the columns (b, f, x, y, 2) [m] of frames at world poses (b, f, 3) are."""
        return grid.centres_from(relative(self.origin[:, None], poses))

    def look(self, points: Tensor, grid: Grid) -> Tensor:
        """Codes (b, ...) int32 of what was seen at points (b, ..., 2) [m] of the lattice's frame; 0: nothing."""
        side = self.codes.shape[1]
        middle = constant(tuple(_middle(grid)), points.device)
        cell = torch.floor((points - middle) / self.cell + 0.5).int() + side // 2
        held = cell.clamp(0, side - 1)
        (x, y), (in_x, in_y) = held.unbind(-1), (cell == held).unbind(-1)
        index = _rows(x, side * side) + x * side + y
        return self.codes.view(-1).index_select(0, index.flatten()).int().view_as(index) * (in_x & in_y)

    def columns(self, codes: Tensor) -> Tensor:
        """Labels (b, ..., z) uint8 of codes (b, ...)."""
        return of_codes(self.palette, codes)


def _nearest(axis: Tensor, pose: Tensor, grid: Grid) -> tuple[Tensor, Tensor, Tensor]:
    """Of the lattice's cells the nearest columns of frames at `pose` (b, 3) of its frame: how far off [voxels^2] and
    which they are, int64 in the flattened ground plane, and whether the frame has them, (b, s, s) each.
    """
    x, y = (
        (axis + at)[None] - own[:, None]
        for at, own in zip(_middle(grid), pose[:, :2].unbind(-1), strict=True)
    )
    cos, sin = (part[:, None] / grid.voxel for part in (pose[:, 2].cos(), pose[:, 2].sin()))
    away, index, shown = None, None, None
    for along, across, low, size in zip(
        (cos * x, -sin * x), (sin * y, cos * y), grid.lower, grid.shape, strict=False
    ):
        # Centres on a border between voxels, by rounding on either side of it, belong to the upper one.
        place = along[:, :, None] + (across + (1e-4 - low / grid.voxel))[:, None]
        voxel = place.floor()
        off = place.sub_(voxel).sub_(0.5).square_()
        held = voxel.clamp(0, size - 1)
        there = held == voxel
        away = off if away is None else away.add_(off)
        index = held if index is None else index.mul_(size).add_(held)  # exact in float32
        shown = there if shown is None else shown.logical_and_(there)
    assert away is not None and index is not None and shown is not None
    return away, index.long(), shown


def of_codes(table: Tensor, codes: Tensor) -> Tensor:
    """What each world's own table (b, p, ...) says of its codes (b, ...) int32; -1 is the last."""
    size = table.shape[1]
    index = codes.remainder(size) + _rows(codes, size)
    return table.flatten(0, 1).index_select(0, index.flatten()).unflatten(0, codes.shape)


def _coded(labels: Tensor) -> tuple[Tensor, Tensor]:
    """Palettes (b, p, z) uint8, of each the first UNSEEN, and codes (b, h, x, y) int16 of labels (b, h, x, y, z)."""
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
        codes.append(code.short()[index].view(frames.shape[:-1]))
    most = max(map(len, palettes))
    padded = [F.pad(palette, (0, 0, 0, most - len(palette)), value=UNSEEN) for palette in palettes]
    return torch.stack(padded), torch.stack(codes)


def _rows(index: Tensor, size: int) -> Tensor:
    """Where each world's own `size` entries begin, in the shape of `index` (b, ...)."""
    kind = torch.int32 if len(index) * size < 1 << 31 else torch.int64  # of more than a thousand worlds
    rows = span(len(index), index.device, kind) * size
    return rows.view(-1, *(1,) * (index.ndim - 1))


def _middle(grid: Grid) -> list[float]:
    """The centre of a column in the middle of the view, in the ego frame [m]; the lattice's middle cell is there."""
    return [
        low + (side // 2 + 0.5) * grid.voxel for low, side in zip(grid.lower[:2], grid.shape[:2], strict=True)
    ]
