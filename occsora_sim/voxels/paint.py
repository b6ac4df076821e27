"""Draws road users into occupancy frames: boxes, or shapes as they were seen, over the ground."""

from __future__ import annotations

from functools import lru_cache, reduce

import torch
from torch import Tensor

from occsora_sim.grid import Grid
from occsora_sim.road_users import RoadUsers
from occsora_sim.voxels.cover import cover_columns


def paint_road_users(
    labels: Tensor, users: RoadUsers, pose: Tensor, grid: Grid, *, pieces: int | None = None, in_place: bool = False
) -> Tensor:  # fmt: skip
    """Ground labels with the road users over them.

    A box fills the voxels whose centres it holds, from the layer above the ground up to its height, at least one layer,
    and always the column of its own centre. A road user with a shape fills the layers of the shape's cell under each
    column's centre. Where road users overlap, the later slot wins the column.

    Neither the number of operations nor any shape depends on the road users; nothing waits for the device.

    Args:
        labels: (b, x, y, z) uint8, the ground in each ego frame.
        users: of b worlds, as they are now.
        pose: (b, 3) float64 world poses of the egos: x, y [m], yaw [rad].
        grid: the voxels around the ego.
        pieces: as for `cover.cover_columns`.
        in_place: write into `labels`, which is contiguous, and return it.

    Returns:
        (b, x, y, z) uint8.

    """
    n = users.label.shape[1]
    out = labels if in_place else labels.clone()
    if not n:
        return out
    cover = cover_columns(users, pose, grid, pieces)
    columns, cells = out.view(-1, grid.shape[2]), cover.cells
    # Every column that was looked at is written as its winner leaves it, so the order of writing is free.
    code = cover.code.index_select(0, cells)
    slot = (code >> cover.layers).long() - 1
    world = cells // (grid.shape[0] * grid.shape[1])
    label = users.label.flatten().index_select(0, world * n + slot.clamp(min=0))  # of nobody: masked below
    painted = take_columns(columns, cells)
    brush = take_columns(_labels(grid, out.device), label.int())
    painted ^= (painted ^ brush) & _layer_mask(code, cover.layers, grid)
    put_columns(columns, cells, painted)
    return out


@lru_cache(maxsize=16)
def _labels(grid: Grid, device: torch.device) -> Tensor:
    """Columns of one label throughout, (256, z) uint8."""
    return torch.arange(256, dtype=torch.uint8, device=device)[:, None].expand(-1, grid.shape[2]).contiguous()


@lru_cache(maxsize=16)
def _layer_tables(layers: int, grid: Grid, device: torch.device) -> list[Tensor]:
    """For each eight layers above the ground what their bits, together, mean: (256, z) uint8, 255 in those set."""
    byte = torch.arange(256, device=device)[:, None]
    tables = []
    for first in range(0, layers, 8):
        bit = torch.arange(grid.shape[2], device=device) - grid.ground - 1 - first
        on = (byte >> bit.clamp(0, 7) & 1).bool() & (bit >= 0) & (bit < min(8, layers - first))
        tables.append(on.to(torch.uint8) * 255)
    return tables


def _layer_mask(code: Tensor, layers: int, grid: Grid) -> Tensor:
    """255 in the layers above the ground whose bits are set in `code` (c,), 0 elsewhere: (c, z) uint8."""
    parts = [
        take_columns(table, (code >> 8 * k & 255).int())
        for k, table in enumerate(_layer_tables(layers, grid, code.device))
    ]
    return reduce(torch.bitwise_or, parts)


def word_of(layers: int, device: torch.device) -> torch.dtype | None:
    """A type as large as a column of so many labels, if there is one: whole columns move several times as fast."""
    if device.type == "mps":
        return None
    return {8: torch.int64, 16: torch.complex128}.get(layers)


def take_columns(columns: Tensor, index: Tensor) -> Tensor:
    """The rows `index` (c,) of `columns` (n, z) uint8."""
    word = word_of(columns.shape[1], columns.device)
    if word is None:
        return columns.index_select(0, index)
    return columns.view(word).view(-1).index_select(0, index).view(-1, 1).view(torch.uint8)


def put_columns(columns: Tensor, index: Tensor, values: Tensor) -> None:
    """Write the rows `index` (c,) int64 of `columns` (n, z) uint8."""
    word = word_of(columns.shape[1], columns.device)
    if word is None:
        columns.index_copy_(0, index, values)
    else:
        columns.view(word).view(-1).index_copy_(0, index, values.view(word).view(-1))
