"""Ego-motion compensation: frames of labels, seen from where the ego will be."""

from __future__ import annotations

import torch
from torch import Tensor

from occsora_sim.geometry import relative, to_world
from occsora_sim.grid import Grid
from occsora_sim.models.columns import UNSEEN


def warp(labels: Tensor, source_pose: Tensor, target_pose: Tensor, grid: Grid, fill: int = UNSEEN) -> Tensor:
    """Resample whole columns at the voxel that holds each target column's centre.

    Exact for no motion, whole-voxel shifts and quarter turns.

    Args:
        labels: (b, x, y, z) uint8; z may be any number of layers.
        source_pose: (b, 3) world pose of the frame [m, m, rad].
        target_pose: (b, f, 3) world poses to see it from.
        grid: the voxel grid.
        fill: label of columns that the frame does not show.

    Returns:
        (b, f, x, y, z) uint8.

    """
    b, f = target_pose.shape[:2]
    nx, ny, nz = *grid.shape[:2], labels.shape[-1]
    offset = relative(source_pose[:, None], target_pose)[:, :, None, None]  # the targets in the source frame
    points = to_world(grid.centres_xy(source_pose.device), offset)  # (b, f, x, y, 2)
    # A ten-thousandth of a voxel keeps centres that fall on a border by rounding in the upper voxel.
    voxel = torch.floor((points - points.new_tensor(grid.lower[:2])) / grid.voxel + 1e-4).int()
    x, y = voxel[..., 0], voxel[..., 1]
    shown = (x >= 0) & (x < nx) & (y >= 0) & (y < ny)
    row = torch.arange(b, device=labels.device, dtype=torch.int32).view(b, 1, 1, 1)
    index = torch.where(shown, (row * nx + x) * ny + y, b * nx * ny)  # the last row is the fill
    source = torch.cat((labels.reshape(-1, nz), labels.new_full((1, nz), fill)))
    return source.index_select(0, index.flatten()).view(b, f, nx, ny, nz)
