"""A scene that is a sequence of recorded occupancy frames: seen from one car, read frame by frame when asked for."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

import numpy as np
import torch

from occsora_sim.errors import SceneError
from occsora_sim.geometry import compose, relative
from occsora_sim.grid import DYNAMIC, FREE, OCC3D, Grid, class_mask

CACHED_FRAMES = 24
"""Frames of a scene that are kept in memory; a frame of Occ3D takes 0.64 MB."""

NEIGHBOURS = 12
"""Frames before and after that say what stands where the frame of the moment does not reach."""

_SAME = 1e-3  # [m], [rad]: an ego this near to the recording car sees the frame as it was recorded


@dataclass(frozen=True, kw_only=True)
class VoxelFrame:
    """One recorded frame in its own ego frame, each (x, y, z).

    Attributes:
        labels: uint8.
        mask_lidar: bool, what a lidar beam reached; None where that was not kept.
        mask_camera: bool, what a camera saw; None where that was not kept.

    """

    labels: np.ndarray
    mask_lidar: np.ndarray | None
    mask_camera: np.ndarray | None


@dataclass(frozen=True, kw_only=True)
class VoxelScene:
    """A recorded sequence of frames. What a vector scene has under the same name means the same here.

    Attributes:
        name: unique, for reports ("scene-0061").
        dt: time between two steps [s].
        grid: the voxels of the frames.
        files: T paths, one a step; None where no frame was recorded.
        read: reads one of them; SceneError if it is missing or damaged.
        ego_pose: (e, T, 3) float32: x, y [m], yaw [rad] of the recording car; one motion for each run without a gap,
            none where the poses are not known.
        ego_valid: (e, T) bool.
        ego_track: (e,) int64, -1: the recording car is in none of its frames.
        ego_kind: e names, "expert".
        route_points: (r, 2) float32 [m], the route of each motion.
        route_offsets: (e + 1,) int64.
        attributes: where the scene comes from, its gaps in time, and what it lacks.
        missing: files that should be there and are not.

    """

    name: str
    dt: float
    grid: Grid
    files: tuple[Path | None, ...]
    read: Callable[[Path], VoxelFrame]
    ego_pose: np.ndarray
    ego_valid: np.ndarray
    ego_track: np.ndarray
    ego_kind: tuple[str, ...]
    route_points: np.ndarray
    route_offsets: np.ndarray
    attributes: dict[str, str] = field(default_factory=dict)
    missing: tuple[Path, ...] = ()

    @property
    def steps(self) -> int:
        """Number of time steps."""
        return len(self.files)

    def route(self, ego: int) -> np.ndarray:
        """The route of ego motion `ego`, shape (r, 2) [m]."""
        return self.route_points[self.route_offsets[ego] : self.route_offsets[ego + 1]]

    def frame(self, step: int) -> VoxelFrame:
        """The frame of a step, with its masks.

        Raises:
            SceneError: none was recorded, or its file is missing or damaged.

        """
        path = self.files[step] if 0 <= step < self.steps else None
        if path is None:
            raise SceneError(
                f"scene {self.name}: no frame was recorded at step {step}; see `scenes info` for its gaps"
            )
        return self.read(path)


class VoxelFrames:
    """Draws a voxel scene: its frames as they are from where they were recorded, moved over the plane from elsewhere.

    Beyond the edge of the moment's frame stands what the frames before and after saw stand there, the nearest in time
    first; what nobody saw is free. In another grid than the recording's, a voxel takes the label at its centre. In a
    gap of time the nearest frame stands still.
    """

    def __init__(self, scene: VoxelScene, grid: Grid = OCC3D, device: torch.device | str = "cpu") -> None:
        """Prepare to draw `scene` in `grid` on `device`; nothing is read yet."""
        self.scene, self.grid, self.device = scene, grid, torch.device(device)
        known = np.array([path is not None for path in scene.files])
        self._known = np.flatnonzero(known)
        self._pose = torch.zeros(scene.steps, 3, dtype=torch.float64)
        for pose, valid in zip(
            scene.ego_pose, scene.ego_valid, strict=True
        ):  # one is valid at a step, or none
            self._pose[valid] = torch.from_numpy(pose[valid].astype(np.float64))
        self._frames: OrderedDict[int, torch.Tensor] = OrderedDict()
        centres = (torch.arange(grid.shape[2]) + 0.5) * grid.voxel + grid.lower[2]
        layer = torch.floor((centres - scene.grid.lower[2]) / scene.grid.voxel + 1e-4).long()
        inside = (layer >= 0) & (layer < scene.grid.shape[2])
        self._layer = torch.where(inside, layer, torch.full_like(layer, scene.grid.shape[2])).to(self.device)

    def frames(
        self, ego_pose: torch.Tensor, time: torch.Tensor, exclude: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Occupancy of n frames; as `Voxeliser.frames`. `exclude` changes nothing: the ego was never recorded.

        Raises:
            SceneError: shapes that do not agree, values that are not finite, a time outside the scene, a frame whose
                file is missing or damaged, or a pose other than zero in a scene whose own poses are not known.

        """
        pose = torch.as_tensor(ego_pose).to("cpu", torch.float64)
        time = torch.as_tensor(time).to("cpu", torch.float64)
        n, end = len(pose), (self.scene.steps - 1) * self.scene.dt
        if pose.shape != (n, 3) or time.shape != (n,):
            raise SceneError(
                f"scene {self.scene.name}: ego_pose, time have shapes {tuple(pose.shape)}, {tuple(time.shape)}; "
                "give (n, 3), (n,)"
            )
        if n and not bool((pose.isfinite().all(1) & (time >= -1e-4) & (time <= end + 1e-4)).all()):
            raise SceneError(
                f"scene {self.scene.name}: an ego_pose is not finite or a time lies outside 0 to {end:g} s; "
                "ask within the scene"
            )
        if not len(self.scene.ego_kind) and bool((pose.abs() >= _SAME).any()):
            raise SceneError(
                f"scene {self.scene.name}: {self.scene.attributes.get('lacks', 'its poses are not known')}"
            )
        out = torch.empty((n, *self.grid.shape), dtype=torch.uint8, device=self.device)
        for row in range(n):
            out[row] = self._draw(pose[row], float(time[row]))
        return out

    def road_users(
        self, ego_pose: torch.Tensor, time: torch.Tensor, exclude: torch.Tensor | None = None
    ) -> NoReturn:
        """Always refused: voxels do not say who is who.

        Raises:
            SceneError: with what can be done instead.

        """
        raise SceneError(
            f"scene {self.scene.name}: a voxel sequence has no tracks of road users, which this training needs; train "
            "on vector scenes (traffic:A-B), or a preset that does without (paper)"
        )

    def _draw(self, pose: torch.Tensor, time: float) -> torch.Tensor:
        """One frame (x, y, z) from `pose` (3,)."""
        order = np.argsort(np.abs(self._known * self.scene.dt - time), kind="stable")
        nearest = self._known[order[: 1 + 2 * NEIGHBOURS]]
        now = int(nearest[0])
        offset = relative(self._pose[now], pose)
        if self.grid == self.scene.grid and bool((offset.abs() < _SAME).all()):
            return self._frame(now)
        made = torch.full(self.grid.shape, FREE, dtype=torch.uint8, device=self.device)
        unseen = torch.ones(self.grid.shape[:2], dtype=torch.bool, device=self.device)
        moves = class_mask(DYNAMIC, self.device)
        for step in map(int, nearest):
            cell, inside = self._cells(step, pose)
            new = inside & unseen
            if not bool(new.any()):
                continue
            # One free layer on top stands for all heights that the source does not have.
            frame = torch.nn.functional.pad(self._frame(step), (0, 1), value=FREE)
            columns = frame[cell[new][:, 0], cell[new][:, 1]][:, self._layer]
            made[new] = columns if step == now else columns.masked_fill(moves[columns.long()], FREE)
            unseen &= ~inside
            if not bool(unseen.any()):
                break
        return made

    def _cells(self, step: int, pose: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The cells (x, y, 2) of the frame of `step` under the grid around `pose` (3,), and which of them it has."""
        source = self.scene.grid
        centres = self.grid.centres_xy().double()
        to = relative(self._pose[step], pose)
        points = compose(to.expand(*centres.shape[:2], 3), torch.nn.functional.pad(centres, (0, 1)))[..., :2]
        cell = torch.floor((points - torch.tensor(source.lower[:2])) / source.voxel + 1e-4).long()
        inside = ((cell >= 0) & (cell < torch.tensor(source.shape[:2]))).all(-1)
        return cell.to(self.device), inside.to(self.device)

    def _frame(self, step: int) -> torch.Tensor:
        """The labels of a step as they were recorded, on the device; the last ones used stay in memory."""
        if step not in self._frames:
            self._frames[step] = torch.from_numpy(self.scene.frame(step).labels).to(self.device)
            if len(self._frames) > CACHED_FRAMES:
                self._frames.popitem(last=False)
        self._frames.move_to_end(step)
        return self._frames[step]
