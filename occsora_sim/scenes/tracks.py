"""The tracks of recorded scenes on a device: where each is at any time, and the road users around an ego as a value."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from occsora_sim.grid import FRAME_SECONDS, Grid
from occsora_sim.road_users import RoadUsers
from occsora_sim.scenes.scene import Scene
from occsora_sim.voxels.cover import piece_counts

REACH = 64.0
"""Road users this near to an ego are handed over, those beyond its voxels too [m]."""

_BLOCK = 8.0
"""Side of the squares by which road users are counted [m]."""


def real_type(device: torch.device) -> torch.dtype:
    """What world coordinates are computed in: float64, so that places far from the origin stay sharp."""
    return torch.float32 if device.type == "mps" else torch.float64


class Tracks:
    """The tracks of some scenes, behind one another in one table.

    Attributes:
        slots: road users that can be within reach of one ego at once, at most; known when this is made.
        pieces: pieces (`voxels.cover`) of those that can be in view at once, at most.

    """

    def __init__(self, scenes: Sequence[Scene], grid: Grid, device: torch.device) -> None:
        """Keep the tracks of `scenes` on `device`, to be seen in `grid`."""
        self._device, self._real = device, real_type(device)
        prepared = [_prepare(scene) for scene in scenes]
        count = [scene.track_valid.shape[0] for scene in scenes]
        states = [scene.track_valid.size for scene in scenes]
        self._most = max(*count, 1)

        def table(values: Sequence[float], dtype: torch.dtype = torch.int64) -> Tensor:
            return torch.tensor(values, dtype=dtype, device=device)

        def join(parts: Sequence[np.ndarray], dtype: torch.dtype) -> Tensor:
            # One row more, of a track that never is there: what a scene without tracks points to.
            rows = np.concatenate((*parts, np.zeros((1, *parts[0].shape[1:]), parts[0].dtype)))
            return torch.from_numpy(rows).to(device, dtype)

        self._state = join([state.reshape(-1, 5) for state, _ in prepared], self._real)
        self._valid = join([valid.reshape(-1) for _, valid in prepared], torch.bool)
        self._size = join(
            [np.asarray(scene.track_size, np.float32).reshape(-1, 3) for scene in scenes], torch.float32
        )
        self._label = join([np.asarray(scene.track_class, np.uint8) for scene in scenes], torch.uint8)
        began = [valid.argmax(0) * scene.dt for scene, (_, valid) in zip(scenes, prepared, strict=True)]
        self._began = join(began, self._real)
        self._count = table(count)
        self._first = table([sum(count[:k]) for k in range(len(count))])
        self._first_state = table([sum(states[:k]) for k in range(len(states))])
        self._steps = table([scene.steps for scene in scenes])
        self._dt = table([scene.dt for scene in scenes], self._real)
        bounds = [_bounds(scene, grid) for scene in scenes]
        self.slots, self.pieces = (max(bound[k] for bound in bounds) for k in (0, 1))

    def end(self, place: Tensor) -> Tensor:
        """The times at which the scenes `place` (n,) end (n,) [s]."""
        return (self._steps[place] - 1) * self._dt[place]

    def at(
        self, place: Tensor, pose: Tensor, time: Tensor, exclude: Tensor, history: int = 1
    ) -> RoadUsers:  # fmt: skip
        """The road users around egos, with their past: id is the track, and slots are in the order of the tracks.

        Args:
            place: (n,) int64, the scene of each row.
            pose: (n, 3) world poses of the egos.
            time: (n,) since the scene's beginning [s]; after its end all stand where they were at its end.
            exclude: (n,) int64, the track left out, or -1.
            history: poses of each, FRAME_SECONDS apart.

        """
        count, track = self._count[place][:, None], torch.arange(self._most, device=self._device)
        state, valid = self.states(place, track.expand(len(place), -1), time)
        size = self._size[self._row(place, track)]
        away = torch.hypot(state[..., 0] - pose[:, None, 0], state[..., 1] - pose[:, None, 1])
        there = valid & (track < count) & (track != exclude[:, None])
        there &= away <= REACH + size[..., :2].norm(dim=-1) / 2
        # Those that are there, in their order, before all others.
        order = torch.where(there, track, self._most).sort(dim=1).values[:, : self.slots]
        used = order < self._most
        track = order.clamp(max=self._most - 1)
        poses: list[Tensor] = []
        present: list[Tensor] = []
        for ago in range(history):
            then = time - ago * FRAME_SECONDS
            state, valid = self.states(place, track, then)
            valid = valid & used & (then >= -1e-4)[:, None]
            # A pose that is not known repeats the nearest later one that is.
            known = state[..., :3] * used[..., None]
            poses.append(torch.where(valid[..., None], known, poses[-1]) if ago else known)
            present.append(valid)
            if not ago:
                velocity = state[..., 3:] * (valid & (then <= self.end(place) + 1e-4)[:, None])[..., None]
        row = self._row(place, track)
        lived = (
            torch.floor((time.minimum(self.end(place))[:, None] - self._began[row]) / FRAME_SECONDS + 1e-3)
            + 1
        )
        return RoadUsers(
            label=self._label[row] * used,
            size=self._size[row] * used[..., None],
            pose=torch.stack(poses[::-1], dim=2),
            present=torch.stack(present[::-1], dim=2),
            velocity=velocity.float(),
            id=torch.where(used, track, -1),
            age=(lived * used).int(),
        )

    def states(self, place: Tensor, track: Tensor, time: Tensor) -> tuple[Tensor, Tensor]:
        """States (n, m, 5) of tracks (n, m) of the scenes `place` (n,) at times (n,) [s]: x, y, unwrapped yaw,
        velocity; and which of them are there then (n, m). Before its beginning and after its end a scene stands still.
        """
        steps = self._steps[place]
        step = (time / self._dt[place]).clamp(min=0).minimum((steps - 1).to(time))
        before = torch.floor(step + 1e-4).long().minimum(steps - 1)
        weight = (step - before).clamp(min=0)
        weight = torch.where(weight < 1e-4, torch.zeros_like(weight), weight)
        after = (before + (weight > 0)).minimum(steps - 1)
        count, first = self._count[place], self._first_state[place]
        track = track.minimum((count - 1).clamp(min=0)[:, None])
        last = len(self._valid) - 1
        some = (count > 0)[:, None]
        rows = [
            torch.where(some, (first + moment * count)[:, None] + track, last) for moment in (before, after)
        ]
        valid = self._valid[rows[0]] & self._valid[rows[1]]
        return torch.lerp(self._state[rows[0]], self._state[rows[1]], weight[:, None, None]), valid

    def _row(self, place: Tensor, track: Tensor) -> Tensor:
        """Rows of the tables of tracks."""
        row = self._first[place][:, None] + track.minimum((self._count[place] - 1).clamp(min=0)[:, None])
        return row.clamp(max=len(self._label) - 1)


def _prepare(scene: Scene) -> tuple[np.ndarray, np.ndarray]:
    """States by time (T, k, 5) float64: x, y, unwrapped yaw, velocity x, y; validity (T, k)."""
    valid = np.asarray(scene.track_valid, dtype=bool)
    state = np.where(valid[..., None], scene.track_state, 0.0).astype(np.float64)  # (k, T, 5)
    state[..., 2] = np.unwrap(state[..., 2], axis=1)  # linear interpolation then takes the short way round
    return np.ascontiguousarray(state.transpose(1, 0, 2)), np.ascontiguousarray(valid.T)


def _bounds(scene: Scene, grid: Grid) -> tuple[int, int]:
    """Road users within REACH of any ego at any time, and their pieces in its view, at most; 1 at least.

    Counted by blocks: who is within reach of a place stands in a block whose middle is within reach and two half
    diagonals of the middle of the place's block.
    """
    valid, size = np.asarray(scene.track_valid, dtype=bool), torch.from_numpy(np.asarray(scene.track_size))
    if not valid.any():
        return 1, 1
    along, across = piece_counts(size.float().view(-1, 3), grid)
    pieces = (along * across).numpy().astype(np.float64)
    block = _BLOCK
    xy = np.where(valid[..., None], scene.track_state[..., :2], np.nan).astype(np.float64)
    low = np.floor(np.nanmin(xy, axis=(0, 1)) / block)
    cell = np.nan_to_num(np.floor(xy / block) - low, nan=-1).astype(np.int64)
    shape = cell.max(axis=(0, 1)) + 1
    half = float(np.linalg.norm(scene.track_size[:, :2], axis=1).max()) / 2
    # Between two steps a track is at most half its way from where it was at the nearer of them.
    way = np.linalg.norm(np.diff(xy, axis=1), axis=-1)
    slack = half + np.nanmax(way, initial=0.0) / 2 + block * math.sqrt(2)
    corners = [
        math.hypot(x, y) for x in (grid.lower[0], grid.upper[0]) for y in (grid.lower[1], grid.upper[1])
    ]
    view = max(corners) + 2 * math.sqrt(2) * grid.voxel
    most = []
    for reach, weight in ((REACH + slack, np.ones(len(pieces))), (view + slack, pieces)):
        span = math.ceil(reach / block)
        side = shape + 2 * span
        if side.prod() > 1 << 18:  # too wide a place to be counted by blocks
            most.append(int((valid * weight[:, None]).sum(0).max()))
            continue
        maps = np.zeros((valid.shape[1], *side))
        track, step = np.nonzero(valid)
        np.add.at(maps, (step, cell[track, step, 0], cell[track, step, 1]), weight[track])
        disc = np.zeros(side)
        i, j = np.meshgrid(np.arange(-span, span + 1), np.arange(-span, span + 1), indexing="ij")
        disc[i, j] = np.hypot(i, j) * block <= reach
        around = np.fft.irfft2(np.fft.rfft2(maps) * np.fft.rfft2(disc), s=tuple(side))
        most.append(int(np.floor(around.max() + 0.01)))
    return max(most[0], 1), max(most[1], 1)
