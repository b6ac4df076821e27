"""Recorded scenes as the entries see them: the ground from above, and who is known and enters in each frame."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from occsora_sim.grid import DYNAMIC, FRAME_SECONDS, Grid
from occsora_sim.models.entry_view import ground_of, group_of, in_view
from occsora_sim.scenes.raster import rasterise
from occsora_sim.scenes.scene import Scene
from occsora_sim.scenes.start import place_of

REACH = 64.0
"""Road users further from the ego are let go [m]; those that come back enter again."""

RUN_UP = 8
"""Frames of an ego motion before those that are trained on: who was in view then is known."""


@dataclass(frozen=True, kw_only=True)
class Frame:
    """A frame of an ego motion.

    Attributes:
        ego: index of the ego motion.
        step: the time step.
        known: (k,) tracks that are known, the nearest first.
        seen: (s,) tracks in view.
        entered: (e,) those of them that came into view.
        known_vehicles: how many vehicles of the known ones are in view.
        vehicles: how many are in view.

    """

    ego: int
    step: int
    known: np.ndarray
    seen: np.ndarray
    entered: np.ndarray
    known_vehicles: int
    vehicles: int


class TownTracks:
    """A scene's ground from above and, for each frame of each ego motion, who is known and who enters."""

    def __init__(self, scene: Scene, grid: Grid) -> None:
        raster = rasterise(scene, grid, grid.voxel)
        self._ground = ground_of(raster.palette, grid)[raster.columns.int()]
        self._origin, self._cell, self._grid = raster.origin, raster.cell, grid
        stride = max(1, round(FRAME_SECONDS / scene.dt))
        tracks = np.isin(scene.track_class, DYNAMIC)
        state = np.where(scene.track_valid[..., None], scene.track_state, 0.0)
        self.state = state[tracks, ::stride].astype(np.float32)
        self.label, self.size = scene.track_class[tracks], scene.track_size[tracks].astype(np.float32)
        self.pose = scene.ego_pose[:, ::stride].astype(np.float64)
        self.place = float(place_of(scene).tensor()[0])
        self.routes = [torch.from_numpy(scene.route(ego)).float() for ego in range(len(self.pose))]
        self.lanes = lanes_of(scene)
        self._valid = scene.track_valid[tracks, ::stride]
        self.vehicle = group_of(torch.from_numpy(self.label)).numpy() == 0
        number = np.where(tracks, np.cumsum(tracks) - 1, -1)  # of each of the scene's tracks among these
        self.frames: list[Frame] = []
        self._last: list[int] = []
        for ego, valid in enumerate(scene.ego_valid[:, ::stride]):
            own = int(scene.ego_track[ego])
            self._follow(ego, np.flatnonzero(valid), int(number[own]) if own >= 0 else -1)

    def _follow(self, ego: int, steps: np.ndarray, own: int) -> None:
        """Go along an ego motion and note who is known and who enters in each of its frames."""
        x, y, yaw = self.pose[ego, steps].T[..., None]  # (t, 1)
        dx, dy = self.state[:, steps, 0].T - x, self.state[:, steps, 1].T - y  # (t, k)
        local = np.stack((np.cos(yaw) * dx + np.sin(yaw) * dy, np.cos(yaw) * dy - np.sin(yaw) * dx), axis=-1)
        there = self._valid[:, steps].T.copy()
        if own >= 0:
            there[:, own] = False
        seen = there & in_view(torch.from_numpy(local), self._grid).numpy()
        distance = np.hypot(dx, dy)
        held, known = there & (distance < REACH), np.zeros(len(self.label), dtype=bool)
        for t, step in enumerate(steps):
            kept = known & held[t]
            if t >= RUN_UP:
                mine = np.flatnonzero(kept)
                frame = Frame(
                    ego=ego,
                    step=int(step),
                    known=mine[np.argsort(distance[t, mine], kind="stable")].astype(np.int16),
                    seen=np.flatnonzero(seen[t]).astype(np.int16),
                    # A track that begins in the midst of the view was put there; nobody came.
                    entered=np.flatnonzero(seen[t] & ~known & there[t - 1]).astype(np.int16),
                    known_vehicles=int((kept & seen[t] & self.vehicle).sum()),
                    vehicles=int((seen[t] & self.vehicle).sum()),
                )
                self.frames.append(frame)
            known = kept | seen[t]
        self._last += [len(self.frames) - 1] * (len(self.frames) - len(self._last))

    def vehicles_later(self, number: int, ahead: int) -> int:
        """Vehicles in view `ahead` frames after the frame, or at the end of the ego motion."""
        return self.frames[min(number + ahead, self._last[number])].vehicles

    def ground_at(self, points: Tensor) -> Tensor:
        """The ground image (...) uint8 at world points (..., 2) [m]."""
        at = torch.floor((points - points.new_tensor(self._origin)) / self._cell + 0.5).long()
        width, height = self._ground.shape
        return self._ground[at[..., 0].clamp(0, width - 1), at[..., 1].clamp(0, height - 1)]


def lanes_of(scene: Scene, step: float = 1.0, beside: float = 0.1) -> Tensor:
    """Poses (k, 3) [m, m, rad] along the lanes, one each `step` [m], up to so much of a lane's width off its middle."""
    begin, end = scene.lane_points[:-1].astype(np.float64), scene.lane_points[1:].astype(np.float64)
    inside = np.ones(len(begin), bool)
    inside[scene.lane_offsets[1:-1] - 1] = False  # from one lane's end to the next one's beginning
    number = np.repeat(np.arange(len(scene.lane_width)), np.diff(scene.lane_offsets))[:-1]
    width, begin, way = scene.lane_width[number][inside], begin[inside], (end - begin)[inside]
    counts = np.ceil(np.linalg.norm(way, axis=-1) / step).astype(int)
    of = np.repeat(np.arange(len(way)), counts)
    along, off = np.random.default_rng(0).random((2, len(of)))
    yaw = np.arctan2(way[of, 1], way[of, 0])
    off = beside * (2 * off - 1) * width[of]
    xy = begin[of] + along[:, None] * way[of] + off[:, None] * np.stack((-np.sin(yaw), np.cos(yaw)), axis=-1)
    return torch.from_numpy(np.concatenate((xy, yaw[:, None]), axis=-1))
