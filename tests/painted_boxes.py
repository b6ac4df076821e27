"""Boxes painted one by one, with shapes that depend on the data: what the voxeliser must agree with."""

from __future__ import annotations

import numpy as np
import torch

from occsora_sim.grid import Grid
from occsora_sim.scenes.scene import Scene

_BUCKETS = (2.6, 6.4)
"""Diagonals [m] that part small, medium and large boxes: each group is tested on a patch of its own size."""

_EDGE = 1e-4
"""Slack [m] at the faces of a box, against float32 noise at round sizes."""


def real_type(device: torch.device) -> torch.dtype:
    """What world coordinates are computed in: float64, so that places far from the origin stay sharp."""
    return torch.float32 if device.type == "mps" else torch.float64


class Boxes:
    """Paints the boxes of a scene's tracks into frames, batched over frames and boxes.

    A box fills the voxels whose centres it holds, from the layer above the ground up to its height, and
    always the column that holds its own centre. Where boxes overlap, the later track wins the column.
    """

    def __init__(self, scene: Scene, grid: Grid, device: torch.device) -> None:
        """Keep the tracks of `scene` on `device`."""
        self._grid, self._device, self._dt, self._steps = grid, device, scene.dt, scene.steps
        state, valid = _prepare_tracks(scene)
        self._state = torch.from_numpy(state).to(self._device, real_type(self._device))
        self._valid = torch.from_numpy(valid).to(self._device)
        size = torch.from_numpy(np.asarray(scene.track_size, dtype=np.float32))
        diagonal = size[:, :2].norm(dim=1)
        bucket = torch.bucketize(diagonal, torch.tensor(_BUCKETS))
        # Columns on each side of the centre's own column that a box of the bucket can reach.
        self._reach = [
            (b, int((diagonal[bucket == b].max() / 2 / grid.voxel).ceil()))
            for b in range(len(_BUCKETS) + 1)
            if bool((bucket == b).any())
        ]
        heights = grid.centres_z()[None, grid.ground + 1 :]
        layers = (heights < size[:, 2:] - _EDGE).sum(1).clamp(min=1)  # at least one layer shows
        top = (grid.ground + 1 + layers).clamp(max=grid.shape[2])
        self._size, self._top = size.to(self._device), top.to(self._device)
        self._bucket = bucket.to(self._device)
        self._class = torch.from_numpy(np.asarray(scene.track_class, dtype=np.uint8)).to(self._device)

    def paint(
        self,
        pose: torch.Tensor,
        time: torch.Tensor,
        exclude: torch.Tensor,
        occ: torch.Tensor | None,
        flow: torch.Tensor | None,
    ) -> None:
        """Paint the boxes into `occ` (n, x, y, z) and their motion into `flow` (n, x, y, 3), in place."""
        if not self._reach:  # no tracks at all
            return
        frame, track, box = self._near(pose, time, exclude)
        n, z = len(pose), self._grid.shape[2]
        cells, owners = self._winning_columns(n, frame, track, box)
        if flow is not None:
            flow.view(-1, 3)[cells] = box[owners, 3:]
        if occ is not None:
            layer = torch.arange(self._grid.ground + 1, z, device=self._device)
            filled = layer < self._top[track[owners], None]
            voxels = (cells[:, None] * z + layer)[filled]
            labels = self._class[track[owners]][:, None].expand_as(filled)[filled]
            occ.view(-1)[voxels] = labels

    def _state_at(self, time: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """States (n, k, 6) of all tracks at times (n,) [s], and which of them exist then (n, k)."""
        step = (time / self._dt).clamp(0, self._steps - 1)
        before = torch.floor(step + 1e-4).long().clamp(max=self._steps - 1)
        weight = (step - before).clamp(min=0)
        weight = torch.where(weight < 1e-4, torch.zeros_like(weight), weight)
        after = (before + (weight > 0)).clamp(max=self._steps - 1)
        valid = self._valid[before] & self._valid[after]
        return torch.lerp(self._state[before], self._state[after], weight[:, None, None]), valid

    def _winning_columns(
        self, frames: int, frame: torch.Tensor, track: torch.Tensor, box: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """`_covered_columns`, each column once: the latest track wins it, so the order of writing is free."""
        cells, owners = self._covered_columns(frame, track, box)
        x, y, _ = self._grid.shape
        best = torch.full((frames * x * y,), -1, dtype=torch.int32, device=self._device)
        owner_track = track[owners].int()
        best.scatter_reduce_(0, cells, owner_track, "amax")
        won = best[cells] == owner_track
        return cells[won], owners[won]

    def _near(
        self, pose: torch.Tensor, time: torch.Tensor, exclude: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The boxes that may touch the grid: frame (p,), track (p,) and box (p, 6) float32 in the ego frame:
        centre x, y [m], yaw [rad], velocity x, y [m/s], yaw rate [rad/s].
        """
        state, valid = self._state_at(time)
        valid &= torch.arange(valid.shape[1], device=self._device) != exclude[:, None]
        offset = state[..., :2] - pose[:, None, :2]
        cos, sin = torch.cos(pose[:, 2])[:, None], torch.sin(pose[:, 2])[:, None]
        ahead = cos * offset[..., 0] + sin * offset[..., 1]
        left = cos * offset[..., 1] - sin * offset[..., 0]
        reach = self._size[:, :2].norm(dim=1) / 2 + self._grid.voxel
        low, up = self._grid.lower, self._grid.upper
        valid &= (ahead > low[0] - reach) & (ahead < up[0] + reach)
        valid &= (left > low[1] - reach) & (left < up[1] + reach)
        frame, track = valid.nonzero(as_tuple=True)
        state, cos, sin = state[frame, track], cos[frame, 0], sin[frame, 0]
        box = torch.stack(
            (
                ahead[frame, track],
                left[frame, track],
                state[:, 2] - pose[frame, 2],
                cos * state[:, 3] + sin * state[:, 4],
                cos * state[:, 4] - sin * state[:, 3],
                state[:, 5],
            ),
            dim=1,
        )
        return frame, track, box.float()

    def _covered_columns(
        self, frame: torch.Tensor, track: torch.Tensor, box: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Flat (n x y) indices of the columns that the boxes cover, and the row of `box` of each."""
        x, y, _ = self._grid.shape
        cells, owners = [], []
        for bucket, reach in self._reach:  # at most three
            rows = (self._bucket[track] == bucket).nonzero()[:, 0]
            around = torch.arange(-reach, reach + 1, device=self._device)
            centre, half = box[rows, :2], self._size[track[rows], :2, None, None] / 2
            cos, sin = torch.cos(box[rows, 2])[:, None, None], torch.sin(box[rows, 2])[:, None, None]
            i0 = torch.floor((centre[:, 0] - self._grid.lower[0]) / self._grid.voxel).long()
            j0 = torch.floor((centre[:, 1] - self._grid.lower[1]) / self._grid.voxel).long()
            i, j = i0[:, None] + around, j0[:, None] + around  # (p, d)
            dx = ((i + 0.5) * self._grid.voxel + self._grid.lower[0] - centre[:, :1])[:, :, None]
            dy = ((j + 0.5) * self._grid.voxel + self._grid.lower[1] - centre[:, 1:])[:, None, :]
            along, across = cos * dx + sin * dy, cos * dy - sin * dx  # (p, d, d) in the box's own frame
            # Half-open faces: a box of a whole number of voxels fills that number, wherever it stands.
            inside = (along >= -half[:, 0] - _EDGE) & (along < half[:, 0] - _EDGE)
            inside &= (across >= -half[:, 1] - _EDGE) & (across < half[:, 1] - _EDGE)
            inside[:, reach, reach] = True
            inside &= ((i >= 0) & (i < x))[:, :, None] & ((j >= 0) & (j < y))[:, None, :]
            which, di, dj = inside.nonzero(as_tuple=True)
            cells.append((frame[rows][which] * x + i[which, di]) * y + j[which, dj])
            owners.append(rows[which])
        return torch.cat(cells), torch.cat(owners)


def _prepare_tracks(scene: Scene) -> tuple[np.ndarray, np.ndarray]:
    """States by time (T, k, 6) float64: x, y, unwrapped yaw, velocity x, y, yaw rate; validity (T, k)."""
    valid = np.asarray(scene.track_valid, dtype=bool)
    state = np.where(valid[..., None], scene.track_state, 0.0).astype(np.float64)  # (k, T, 5)
    yaw = np.unwrap(state[..., 2], axis=1)  # linear interpolation then takes the short way round
    turn = np.diff(yaw, axis=1) / scene.dt
    both = valid[:, 1:] & valid[:, :-1]
    turn, both = np.where(both, turn, 0.0), both.astype(np.float64)
    pad = ((0, 0), (1, 1))
    turn, both = np.pad(turn, pad), np.pad(both, pad)
    # The mean of the turns before and after a step, over those that exist.
    rate = (turn[:, :-1] + turn[:, 1:]) / np.maximum(both[:, :-1] + both[:, 1:], 1.0)
    state = np.concatenate((state[..., :2], yaw[..., None], state[..., 3:], rate[..., None]), axis=-1)
    return np.ascontiguousarray(state.transpose(1, 0, 2)), np.ascontiguousarray(valid.T)
