"""The cells of a shape: voxels in a road user's own frame.

A cell is half a voxel wide. Its diagonal is then shorter than a voxel, so it holds at most one column's centre, and the
voxel that holds its middle is that column's own: a road user that stays where it was seen is painted to the voxel.
"""

from __future__ import annotations

import torch
from torch import Tensor

from occsora_sim.grid import Grid

CELLS = (96, 20)
"""Cells along and across a road user; of Occ3D's voxels they are 19.2 x 4 m. What is larger is a box."""

GROWN = 1.0
"""What is added to each face of a box when its voxels are looked for [voxels]: labels and boxes seldom agree."""

BITS = 16
"""Layers above the ground that a shape can tell."""


def shape_bits(shape: Tensor, slot: Tensor, forward: Tensor, left: Tensor, grid: Grid) -> Tensor:
    """The layers that shapes fill at points of their own frames.

    Args:
        shape: (b, n, l, w) int16.
        slot: (p,) int64, whose shape: flat (b, n) indices.
        forward: (d, d, p) [m], along the road user.
        left: (d, d, p) [m], across it.
        grid: of the voxels.

    Returns:
        (d, d, p) int64 in [0, 2^BITS); 0 outside the shape.

    """
    length, width = shape.shape[2:]
    row = torch.floor(forward * (2 / grid.voxel) + length / 2).long()
    column = torch.floor(left * (2 / grid.voxel) + width / 2).long()
    inside = (row >= 0) & (row < length) & (column >= 0) & (column < width)
    index = (slot * length + row.clamp(0, length - 1)) * width + column.clamp(0, width - 1)
    bits = shape.flatten()[index].long() & ((1 << BITS) - 1)
    return bits * inside
