"""The static ground of a voxel sequence: all of its frames merged in the world frame."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from occsora_sim.geometry import to_frame
from occsora_sim.grid import FREE, Grid
from occsora_sim.models.columns import UNSEEN, distinct_columns, without_road_users
from occsora_sim.scenes.voxel_scene import VoxelFrames, VoxelScene
from occsora_sim.voxels.raster import Raster

_BAND = 2**22
"""Cells of the raster whose columns are told apart at once."""


def merged(scene: VoxelScene, grid: Grid, cell: float) -> Raster:
    """The static columns of `scene` on a lattice of `cell` [m], with the layers of `grid`.

    A column is that of the frame whose recording car was nearest to it, of those frames that show anything there that
    does not move: frames hold no ground under road users and where nothing was measured, and there a column is free
    throughout. What no frame shows is UNSEEN; so is the border.

    Raises:
        SceneError: a frame's file is missing or damaged.

    """
    drawer = VoxelFrames(scene, grid)
    steps = [
        (pose[step], step)
        for pose, valid in zip(scene.ego_pose, scene.ego_valid, strict=True)
        for step in np.flatnonzero(valid).tolist()
        if scene.files[step] is not None
    ]
    places = np.array([pose[:2] for pose, _ in steps], dtype=np.float64)
    extent = np.abs((grid.lower[:2], grid.upper[:2])).max(0)
    half = float(np.hypot(*extent)) + 2 * cell
    low = np.floor((places.min(0) - half) / cell).astype(np.int64)
    size = np.ceil((places.max(0) + half) / cell).astype(np.int64) - low + 1
    columns = torch.full((int(size[0]), int(size[1]), grid.shape[2]), UNSEEN, dtype=torch.uint8)
    nearest = torch.full(columns.shape[:2], torch.inf)
    lower, shape = torch.tensor(grid.lower[:2]), torch.tensor(grid.shape[:2])
    for pose, step in steps:
        frame = without_road_users(
            drawer.frames(torch.from_numpy(pose)[None], torch.tensor([step * scene.dt]))[0]
        )
        begin = np.floor((pose[:2] - half) / cell).astype(np.int64) - low
        begin = np.maximum(begin, 0)
        end = np.minimum(begin + int(2 * half / cell) + 2, size)
        box = slice(int(begin[0]), int(end[0])), slice(int(begin[1]), int(end[1]))
        axes = [
            torch.arange(int(b), int(e), dtype=torch.float64)
            for b, e in zip(low + begin, low + end, strict=True)
        ]
        points = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1) * cell
        local = to_frame(points, torch.from_numpy(pose.astype(np.float64)))
        index = torch.floor((local - lower) / grid.voxel).long()
        inside = ((index >= 0) & (index < shape)).all(-1)
        index = index.clamp(min=0).minimum(shape - 1)
        found = frame[index[..., 0], index[..., 1]]
        distance = local.norm(dim=-1).float()
        better = inside & (found != FREE).any(-1) & (distance < nearest[box])
        columns[box] = torch.where(better[..., None], found, columns[box])
        nearest[box] = torch.where(better, distance, nearest[box])
    return _raster(columns, (float(low[0] * cell), float(low[1] * cell)), cell)


def _raster(columns: Tensor, origin: tuple[float, float], cell: float) -> Raster:
    """A raster of columns (w, h, z) uint8; its palette begins with a free column."""
    w, h, z = columns.shape
    bands = columns.split(max(1, _BAND // h))
    palettes, indices = zip(*(distinct_columns(band[None]) for band in bands), strict=True)
    begin = np.cumsum([0, *(len(palette) for palette in palettes)])
    unique, of = torch.unique(torch.cat(palettes), dim=0, return_inverse=True)
    index = torch.cat([of[part + start] for part, start in zip(indices, begin.tolist(), strict=False)]) + 1
    palette = torch.cat((torch.full((1, z), FREE, dtype=torch.uint8), unique))
    return Raster(
        columns=index.view(w, h).to(torch.int16 if len(palette) < 2**15 else torch.int32),
        palette=palette,
        origin=origin,
        cell=cell,
    )
