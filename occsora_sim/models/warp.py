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
    x, y, _ = _sampled(source_pose, target_pose, grid)
    shown = (x >= 0) & (x < nx) & (y >= 0) & (y < ny)
    row = torch.arange(b, device=labels.device, dtype=torch.int32).view(b, 1, 1, 1)
    index = torch.where(shown, (row * nx + x) * ny + y, b * nx * ny)  # the last row is the fill
    source = torch.cat((labels.reshape(-1, nz), labels.new_full((1, nz), fill)))
    return source.index_select(0, index.flatten()).view(b, f, nx, ny, nz)


def warp_nearest(
    labels: Tensor, valid: Tensor, source_pose: Tensor, target_pose: Tensor, grid: Grid, fill: int = UNSEEN
) -> Tensor:
    """Resample several frames at once: each target column is the one whose centre is nearest, of the columns that hold
    the target's centre in each frame. Where frames are as near, the first of them answers.

    Args:
        labels: (b, h, x, y, z) uint8.
        valid: (b, h, x, y) bool, the columns that may answer.
        source_pose: (b, h, 3) world poses of the frames [m, m, rad].
        target_pose: (b, f, 3) world poses to see them from.
        grid: the voxel grid.
        fill: label of columns that no frame answers.

    Returns:
        (b, f, x, y, z) uint8.

    """
    b, h, nx, ny, nz = labels.shape
    f = target_pose.shape[1]
    answer = torch.full((b, f, nx, ny), b * h * nx * ny, dtype=torch.int32, device=labels.device)
    least = torch.full((b, f, nx, ny), torch.inf, device=labels.device)
    row = torch.arange(b, device=labels.device, dtype=torch.int32).view(b, 1, 1, 1)
    may = torch.cat((valid.flatten(), valid.new_zeros(1)))
    for k in range(h):
        x, y, distance = _sampled(source_pose[:, k], target_pose, grid)
        shown = (x >= 0) & (x < nx) & (y >= 0) & (y < ny)
        index = torch.where(shown, ((row * h + k) * nx + x) * ny + y, b * h * nx * ny)
        closer = may[index] & (distance < least)
        answer, least = torch.where(closer, index, answer), torch.where(closer, distance, least)
    source = torch.cat((labels.reshape(-1, nz), labels.new_full((1, nz), fill)))
    return source.index_select(0, answer.flatten()).view(b, f, nx, ny, nz)


def _sampled(source_pose: Tensor, target_pose: Tensor, grid: Grid) -> tuple[Tensor, Tensor, Tensor]:
    """The columns of frames at `source_pose` (b, 3) that hold the centres of those at `target_pose` (b, f, 3), their
    indices x and y, and the squares of the distances between both centres [voxels]: (b, f, x, y) each.
    """
    offset = relative(source_pose[:, None], target_pose)[:, :, None, None]  # the targets in the source frame
    points = to_world(grid.centres_xy(source_pose.device), offset)  # (b, f, x, y, 2)
    points = (points - points.new_tensor(grid.lower[:2])) / grid.voxel
    # A ten-thousandth of a voxel keeps centres that fall on a border by rounding in the upper voxel.
    voxel = torch.floor(points + 1e-4)
    distance = (points - voxel - 0.5).square().sum(-1)
    voxel = voxel.int()
    return voxel[..., 0], voxel[..., 1], distance
