"""The world-frame record: what stood still when it was seen or generated, kept so that it is there on return.

Each column is written once, when it is first shown, so re-reading it from any pose never compounds resampling
errors: the static world cannot drift, however long the rollout. The canvas wraps round like a torus; a stamp per
cell says which lap of the torus wrote it, so the record follows the car without bounds and forgets what is further
than half its extent away.
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


@dataclass(frozen=True, kw_only=True)
class Record:
    """The record of b worlds; a value.

    Attributes:
        labels: (b, s, s, z) uint8 labels of the canvas, meaningful where `stamp` is current.
        stamp: (b, s, s) int32, the lap of the torus that wrote each cell.
        origin: (b, 3) world pose of the canvas frame; its axes follow the first frame, which thus enters unrotated.
        cell: edge of a canvas cell [m]; half a voxel, so that one more resampling costs at most a quarter voxel.

    """

    labels: Tensor
    stamp: Tensor
    origin: Tensor
    cell: float

    @staticmethod
    def empty(origin: Tensor, grid: Grid, extent: float | None = None) -> Record:
        """A blank record for the worlds with canvas frames `origin` (b, 3), `extent` [m] wide (default: 2.5 views)."""
        cell = grid.voxel / 2
        side = math.ceil((extent or 2.5 * grid.shape[0] * grid.voxel) / cell)
        shape = (len(origin), side, side)
        return Record(
            labels=torch.full((*shape, grid.shape[2]), UNSEEN, dtype=torch.uint8, device=origin.device),
            stamp=torch.full(shape, _NEVER, dtype=torch.int32, device=origin.device),
            origin=origin,
            cell=cell,
        )

    def _locate(self, cells: Tensor) -> tuple[Tensor, Tensor]:
        """World-wide cell indices (..., 2) int64 -> flat canvas index (...) and stamp (...) int32."""
        side = self.stamp.shape[1]
        lap = torch.div(cells, side, rounding_mode="floor")
        inside = cells - lap * side
        return inside[..., 0] * side + inside[..., 1], (lap[..., 0] * 4096 + lap[..., 1]).int()

    def read(self, poses: Tensor, grid: Grid) -> Tensor:
        """The record seen from world poses (b, f, 3): (b, f, x, y, z) uint8, UNSEEN where nothing is recorded."""
        b, f = poses.shape[:2]
        local = relative(self.origin[:, None], poses)[:, :, None, None]  # (b, f, 1, 1, 3)
        points = to_world(grid.centres_xy(poses.device), local)  # (b, f, x, y, 2)
        index, stamp = self._locate(torch.floor(points / self.cell).long())
        side = self.stamp.shape[1]
        index = index + torch.arange(b, device=poses.device)[:, None, None, None] * side * side
        labels = self.labels.view(-1, grid.shape[2]).index_select(0, index.flatten())
        current = self.stamp.view(-1).index_select(0, index.flatten()) == stamp.flatten()
        labels.masked_fill_(~current[:, None], UNSEEN)
        return labels.view(b, f, *grid.shape)

    def write(self, labels: Tensor, pose: Tensor, grid: Grid) -> Record:
        """A new record that also holds the columns of `labels` (b, x, y, z) seen from `pose` (b, 3).

        Columns already recorded stay as they are; columns with an UNSEEN voxel are left out.
        """
        b, side = len(labels), self.stamp.shape[1]
        local = relative(self.origin, pose)
        half = math.ceil(0.5 * math.hypot(grid.shape[0], grid.shape[1]) * grid.voxel / self.cell) + 1
        centre = to_world(labels.new_tensor(_middle(grid), dtype=torch.float32).expand(b, 2), local)
        reach = torch.arange(-half, half, device=labels.device)
        base = torch.floor(centre / self.cell).long()  # (b, 2)
        cells = torch.stack(
            torch.broadcast_tensors((base[:, :1] + reach)[:, :, None], (base[:, 1:] + reach)[:, None, :]),
            dim=-1,
        )  # (b, w, w, 2)
        index, stamp = self._locate(cells)
        index = index + torch.arange(b, device=labels.device)[:, None, None] * side * side
        row, i, j = torch.nonzero(self.stamp.view(-1)[index] != stamp, as_tuple=True)
        points = to_frame((cells[row, i, j].float() + 0.5) * self.cell, local[row])
        lower = points.new_tensor(grid.lower[:2])
        voxel = torch.floor((points - lower) / grid.voxel).long()
        size = torch.tensor(grid.shape[:2], device=labels.device)
        shown = ((voxel >= 0) & (voxel < size)).all(dim=-1)
        row, i, j, voxel = row[shown], i[shown], j[shown], voxel[shown]
        columns = labels[row, voxel[:, 0], voxel[:, 1]]
        known = (columns != UNSEEN).all(dim=-1)
        where, stamps = index[row, i, j][known], stamp[row, i, j][known]
        new_labels, new_stamp = self.labels.clone(), self.stamp.clone()
        new_labels.view(-1, grid.shape[2])[where] = columns[known]
        new_stamp.view(-1)[where] = stamps
        return replace(self, labels=new_labels, stamp=new_stamp)


def _middle(grid: Grid) -> list[float]:
    """The middle of the grid's ground plane in the ego frame [m]."""
    return [(low + high) / 2 for low, high in zip(grid.lower[:2], grid.upper[:2], strict=True)]
