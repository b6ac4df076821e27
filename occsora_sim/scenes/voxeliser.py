"""From a vector scene to occupancy: any ego pose, any time, in batches, on any device."""

from __future__ import annotations

import numpy as np
import torch

from occsora_sim.errors import SceneError
from occsora_sim.grid import OCC3D, Grid
from occsora_sim.scenes.raster import rasterise
from occsora_sim.scenes.scene import Scene

_BUCKETS = (2.6, 6.4)
"""Diagonals [m] that part small, medium and large boxes: each group is tested on a patch of its own size."""

_EDGE = 1e-4
"""Slack [m] at the faces of a box, against float32 noise at round sizes."""

_SLICE = {"cpu": 8, "cuda": 256}
"""Frames voxelised at once: few on a CPU, where the caches decide; many on a GPU."""


class Voxeliser:
    """Draws the frames of one scene.

    The static part is a raster of voxel columns, made once and gathered at the grid's column centres. The
    boxes of the tracks, interpolated in time, are painted over it: from the layer above the ground up to the
    height, every voxel whose centre they hold, and always the column that holds the box's centre (so that a
    pedestrian narrower than a voxel never vanishes). Where boxes overlap, the later track wins the column.
    """

    def __init__(
        self, scene: Scene, grid: Grid = OCC3D, device: torch.device | str = "cpu", cell: float = 0.2
    ) -> None:
        """Rasterise the scene.

        Args:
            scene: the scene.
            grid: the voxels around the ego.
            device: where the frames are made.
            cell: cell of the raster [m].

        Raises:
            SceneError: polygons that are not finite or spread over an impossible area.

        """
        self.scene, self.grid, self.device = scene, grid, torch.device(device)
        raster = rasterise(scene, grid, cell)
        self._cell, self._origin = cell, raster.origin
        self._columns = raster.columns.to(self.device)
        self._palette = raster.palette.to(self.device)
        self._words = self._palette.shape[1] % 8 == 0
        state, valid = _prepare_tracks(scene)
        self._state = torch.from_numpy(state).to(self.device)
        self._valid = torch.from_numpy(valid).to(self.device)
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
        self._size, self._bucket, self._top = (
            size.to(self.device),
            bucket.to(self.device),
            top.to(self.device),
        )
        self._class = torch.from_numpy(np.asarray(scene.track_class, dtype=np.uint8)).to(self.device)
        centres = grid.centres_xy(self.device)
        self._axis_x, self._axis_y = centres[:, 0, 0] / cell, centres[0, :, 1] / cell

    def frames(
        self, ego_pose: torch.Tensor, time: torch.Tensor, exclude: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Occupancy of n frames.

        Args:
            ego_pose: (n, 3) float: world x, y [m], yaw [rad] of the ego frame.
            time: (n,) float, seconds since the scene's beginning [s].
            exclude: (n,) long, the track left out of each frame (the ego's own), or -1; by default none.

        Returns:
            (n, x, y, z) uint8 labels on the voxeliser's device.

        Raises:
            SceneError: shapes that do not agree, values that are not finite, or a time outside the scene.

        """
        return self._draw(ego_pose, time, exclude, occupancy=True, motion=False)[0]

    def motion(
        self, ego_pose: torch.Tensor, time: torch.Tensor, exclude: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Velocity field of the road users, arguments as for `frames`.

        Returns:
            (n, x, y, 3) float32: velocity over the ground of the box that covers the column, along the
            ego frame's x and y [m/s], and its yaw rate [rad/s]; zero where no box stands.

        """
        return self._draw(ego_pose, time, exclude, occupancy=False, motion=True)[1]

    def frames_and_motion(
        self, ego_pose: torch.Tensor, time: torch.Tensor, exclude: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """`frames` and `motion` together, the boxes placed once."""
        return self._draw(ego_pose, time, exclude, occupancy=True, motion=True)

    def _draw(
        self,
        ego_pose: torch.Tensor,
        time: torch.Tensor,
        exclude: torch.Tensor | None,
        *,
        occupancy: bool,
        motion: bool,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        pose, time, exclude = self._check(ego_pose, time, exclude)
        n, (x, y, z) = len(pose), self.grid.shape
        occ = torch.empty((n if occupancy else 0, x, y, z), dtype=torch.uint8, device=self.device)
        flow = torch.zeros((n if motion else 0, x, y, 3), dtype=torch.float32, device=self.device)
        step = _SLICE.get(self.device.type, 8)
        for at in range(0, n, step):
            part = slice(at, at + step)
            if occupancy:
                self._gather_static(pose[part], occ[part])
            self._paint_boxes(
                pose[part],
                time[part],
                exclude[part],
                occ[part] if occupancy else None,
                flow[part] if motion else None,
            )
        return occ, flow

    def _check(
        self, ego_pose: torch.Tensor, time: torch.Tensor, exclude: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        pose = torch.as_tensor(ego_pose).to(self.device, torch.float64)
        time = torch.as_tensor(time).to(self.device, torch.float64)
        if exclude is None:
            exclude = torch.full((len(pose),), -1)
        exclude = torch.as_tensor(exclude).to(self.device, torch.int64)
        n = len(pose)
        if pose.shape != (n, 3) or time.shape != (n,) or exclude.shape != (n,):
            raise SceneError(
                f"scene {self.scene.name}: ego_pose, time, exclude have shapes {tuple(pose.shape)}, "
                f"{tuple(time.shape)}, {tuple(exclude.shape)}; give (n, 3), (n,), (n,)"
            )
        end = (self.scene.steps - 1) * self.scene.dt
        inside = (time >= -_EDGE) & (time <= end + _EDGE)
        if n and not bool((pose.isfinite().all(1) & inside).all()):
            raise SceneError(
                f"scene {self.scene.name}: an ego_pose is not finite or a time lies outside 0 to {end:g} s; "
                "ask within the scene"
            )
        return pose, time, exclude

    def _gather_static(self, pose: torch.Tensor, out: torch.Tensor) -> None:
        """Fill `out` (n, x, y, z) with the raster's columns at the grid's column centres."""
        width, height = self._columns.shape
        cos, sin = torch.cos(pose[:, 2]).float()[:, None], torch.sin(pose[:, 2]).float()[:, None]
        start_x = ((pose[:, 0] - self._origin[0]) / self._cell + 0.5).float()[:, None]
        start_y = ((pose[:, 1] - self._origin[1]) / self._cell + 0.5).float()[:, None]
        i = (cos * self._axis_x + start_x)[:, :, None] - (sin * self._axis_y)[:, None, :]
        j = (sin * self._axis_x + start_y)[:, :, None] + (cos * self._axis_y)[:, None, :]
        # clamp before the cast: truncation is then floor, and the border answers for what lies outside
        i, j = i.clamp_(0, width - 1).int(), j.clamp_(0, height - 1).int()
        cells = i.mul_(height).add_(j).flatten()
        ids = self._columns.view(-1).index_select(0, cells).int()
        if self._words:  # eight labels at a time
            rows = self._palette.view(torch.int64)
            torch.index_select(rows, 0, ids, out=out.view(torch.int64).view(-1, rows.shape[1]))
        else:
            torch.index_select(self._palette, 0, ids, out=out.view(-1, self._palette.shape[1]))

    def _paint_boxes(
        self,
        pose: torch.Tensor,
        time: torch.Tensor,
        exclude: torch.Tensor,
        occ: torch.Tensor | None,
        flow: torch.Tensor | None,
    ) -> None:
        """Paint the boxes into `occ` (n, x, y, z) and their motion into `flow` (n, x, y, 3), in place."""
        if not self._reach:
            return
        frame, track, box = self._boxes_near(pose, time, exclude)
        n, (x, y, z) = len(pose), self.grid.shape
        cells, owners = self._covered_columns(frame, track, box)
        # The latest track wins each column; the winners' columns are unique, so the order of writing is free.
        best = torch.full((n * x * y,), -1, dtype=torch.int32, device=self.device)
        owner_track = track[owners].int()
        best.scatter_reduce_(0, cells, owner_track, "amax")
        won = best[cells] == owner_track
        cells, owners = cells[won], owners[won]
        if flow is not None:
            flow.view(-1, 3)[cells] = box[owners, 3:]
        if occ is not None:
            layer = torch.arange(self.grid.ground + 1, z, device=self.device)
            filled = layer < self._top[track[owners], None]
            voxels = (cells[:, None] * z + layer)[filled]
            labels = self._class[track[owners]][:, None].expand_as(filled)[filled]
            occ.view(-1)[voxels] = labels

    def _boxes_near(
        self, pose: torch.Tensor, time: torch.Tensor, exclude: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The boxes that may touch the grid: frame (p,), track (p,) and box (p, 6) float32 in the ego frame:
        centre x, y [m], yaw [rad], velocity x, y [m/s], yaw rate [rad/s].
        """
        step = (time / self.scene.dt).clamp(0, self.scene.steps - 1)
        before = torch.floor(step + 1e-4).long().clamp(max=self.scene.steps - 1)
        weight = (step - before).clamp(min=0)
        weight = torch.where(weight < 1e-4, torch.zeros_like(weight), weight)
        after = (before + (weight > 0)).clamp(max=self.scene.steps - 1)
        valid = self._valid[before] & self._valid[after]
        state = torch.lerp(
            self._state[before], self._state[after], weight[:, None, None]
        )  # (n, k, 6) float64
        valid &= torch.arange(valid.shape[1], device=self.device) != exclude[:, None]
        offset = state[..., :2] - pose[:, None, :2]
        cos, sin = torch.cos(pose[:, 2])[:, None], torch.sin(pose[:, 2])[:, None]
        ahead = cos * offset[..., 0] + sin * offset[..., 1]
        left = cos * offset[..., 1] - sin * offset[..., 0]
        reach = self._size[:, :2].norm(dim=1) / 2 + self.grid.voxel
        low, up = self.grid.lower, self.grid.upper
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
        x, y, _ = self.grid.shape
        cells, owners = [], []
        for bucket, reach in self._reach:  # at most three
            rows = (self._bucket[track] == bucket).nonzero()[:, 0]
            around = torch.arange(-reach, reach + 1, device=self.device)
            centre, half = box[rows, :2], self._size[track[rows], :2, None, None] / 2
            cos, sin = torch.cos(box[rows, 2])[:, None, None], torch.sin(box[rows, 2])[:, None, None]
            i0 = torch.floor((centre[:, 0] - self.grid.lower[0]) / self.grid.voxel).long()
            j0 = torch.floor((centre[:, 1] - self.grid.lower[1]) / self.grid.voxel).long()
            i, j = i0[:, None] + around, j0[:, None] + around  # (p, d)
            dx = ((i + 0.5) * self.grid.voxel + self.grid.lower[0] - centre[:, :1])[:, :, None]
            dy = ((j + 0.5) * self.grid.voxel + self.grid.lower[1] - centre[:, 1:])[:, None, :]
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
