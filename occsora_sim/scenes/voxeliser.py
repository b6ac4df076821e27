"""From a vector scene to occupancy: any ego pose, any time, in batches, on any device.

`OMP_NUM_THREADS=1 python -m occsora_sim.scenes.voxeliser traffic:0` prints how fast this is on one core.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import itemgetter
from time import perf_counter, process_time

import numpy as np
import torch
from torch import Tensor

from occsora_sim.errors import SceneError
from occsora_sim.grid import OCC3D, Grid
from occsora_sim.road_users import HISTORY, RoadUsers
from occsora_sim.scenes.raster import rasterise
from occsora_sim.scenes.scene import Scene
from occsora_sim.scenes.tracks import Tracks, real_type
from occsora_sim.voxels.cover import pieces_in_view
from occsora_sim.voxels.paint import paint_road_users
from occsora_sim.voxels.raster import Atlas, Raster

_LATE = 1e-4
"""A time may lie outside the scene by this [s], for rounding."""

_SLICE = {"cpu": 8, "cuda": 256}
"""Frames voxelised at once: few on a CPU, where the caches decide; many on a GPU."""


class Voxeliser:
    """Draws the frames of one scene, or of several in one call.

    The static part is a raster of voxel columns, made once and gathered at the grid's column centres. The tracks,
    interpolated in time, are painted over it as boxes (`voxels.paint`); the later track wins a column.

    Attributes:
        scenes: the scenes; `place` picks one of them for each frame.

    """

    def __init__(
        self,
        scene: Scene | Sequence[Scene],
        grid: Grid = OCC3D,
        device: torch.device | str = "cpu",
        cell: float = 0.2,
        rasters: Sequence[Raster] | None = None,
    ) -> None:
        """Rasterise the scenes.

        Args:
            scene: the scene, or several.
            grid: the voxels around the ego.
            device: where the frames are made.
            cell: cell of the raster [m].
            rasters: those of the scenes, where they are at hand.

        Raises:
            SceneError: polygons that are not finite or spread over an impossible area.

        """
        self.scenes = (scene,) if isinstance(scene, Scene) else tuple(scene)
        self.grid, self.device = grid, torch.device(device)
        self._real = real_type(self.device)
        rasters = rasters or [rasterise(one, grid, cell) for one in self.scenes]
        self._atlas = Atlas(rasters, grid, self.device, self._real)
        self.tracks = Tracks(self.scenes, grid, self.device)

    @property
    def rasters(self) -> tuple[Raster, ...]:
        """The rasters of the scenes."""
        return self._atlas.rasters

    @property
    def scene(self) -> Scene:
        """The scene, or the first."""
        return self.scenes[0]

    def frames(
        self,
        ego_pose: Tensor,
        time: Tensor,
        exclude: Tensor | None = None,
        place: Tensor | None = None,
    ) -> Tensor:
        """Occupancy of n frames.

        Args:
            ego_pose: (n, 3) float: world x, y [m], yaw [rad] of the ego frame.
            time: (n,) float, seconds since the scene's beginning [s].
            exclude: (n,) long, the track left out of each frame (the ego's own), or -1; by default none.
            place: (n,) long, which of the scenes; by default the first.

        Returns:
            (n, x, y, z) uint8 labels on the voxeliser's device.

        Raises:
            SceneError: shapes that do not agree, values that are not finite, or a time outside the scene.

        """
        pose, time, exclude, place = self._check(ego_pose, time, exclude, place)
        return self.draw(
            self.tracks.at(place, pose, time, exclude), pose, place, len(pose) * self.tracks.pieces
        )

    def draw(self, users: RoadUsers, pose: Tensor, place: Tensor, pieces: int | None = None) -> Tensor:
        """Any road users on the ground of the scenes `place` (n,) around `pose` (n, 3): (n, x, y, z) uint8.

        `pieces` as for `voxels.paint.paint_road_users`; on a CPU, where a look at the data is free, they are counted.
        """
        out = torch.empty((len(pose), *self.grid.shape), dtype=torch.uint8, device=self.device)
        step, on_cpu = _SLICE.get(self.device.type, 8), self.device.type == "cpu"
        for at in range(0, len(pose), step):
            part = slice(at, at + step)
            here, frames = pose[part], out[part]
            those = users.map(itemgetter(part))
            self._atlas.gather(place[part], here, frames)
            count = None if pieces is None else -(-pieces * len(here) // len(pose))
            if on_cpu:
                count = int(pieces_in_view(those, here, self.grid).sum())
            paint_road_users(frames, those, here, self.grid, pieces=count, in_place=True)
        return out

    def road_users(
        self,
        ego_pose: Tensor,
        time: Tensor,
        exclude: Tensor | None = None,
        history: int = HISTORY,
        place: Tensor | None = None,
    ) -> RoadUsers:
        """The road users around n egos and their past: id is the track. Other arguments and errors as of `frames`."""
        pose, time, exclude, place = self._check(ego_pose, time, exclude, place)
        return self.tracks.at(place, pose, time, exclude, history)

    def _check(
        self, ego_pose: Tensor, time: Tensor, exclude: Tensor | None, place: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        pose = torch.as_tensor(ego_pose).to(self.device, self._real)
        time = torch.as_tensor(time).to(self.device, self._real)
        n = len(pose)
        exclude = torch.full((n,), -1, device=self.device) if exclude is None else torch.as_tensor(exclude)
        place = (
            torch.zeros(n, dtype=torch.int64, device=self.device) if place is None else torch.as_tensor(place)
        )
        exclude, place = exclude.to(self.device, torch.int64), place.to(self.device, torch.int64)
        if pose.shape != (n, 3) or not time.shape == exclude.shape == place.shape == (n,):
            raise SceneError(
                f"scene {self.scene.name}: ego_pose, time, exclude have shapes {tuple(pose.shape)}, "
                f"{tuple(time.shape)}, {tuple(exclude.shape)}; give (n, 3), (n,), (n,)"
            )
        end = self.tracks.end(place)
        inside = (time >= -_LATE) & (time <= end + _LATE)
        if n and not bool((pose.isfinite().all(1) & inside).all()):
            raise SceneError(
                f"scene {self.scene.name}: an ego_pose is not finite or a time lies outside 0 to "
                f"{float(end.max()):g} s; ask within the scene"
            )
        return pose, time, exclude, place


def frames_per_second(voxeliser: Voxeliser, batch: int = 16, repeats: int = 20, seed: int = 0) -> float:
    """Frames drawn in a second of CPU time (of wall time on other devices), each of another ego or time."""
    scene, rng = voxeliser.scene, np.random.default_rng(seed)
    ego, step = np.nonzero(scene.ego_valid)
    rows = rng.choice(len(ego), batch * repeats)
    ego, step = ego[rows], step[rows]
    pose, exclude = torch.from_numpy(scene.ego_pose[ego, step]), torch.from_numpy(scene.ego_track[ego])
    time = torch.from_numpy(step * scene.dt)
    clock = process_time if voxeliser.device.type == "cpu" else perf_counter
    parts = list(zip(pose.split(batch), time.split(batch), exclude.split(batch), strict=True))
    voxeliser.frames(*parts[0]).sum().item()
    begin = clock()
    for part in parts:
        frames = voxeliser.frames(*part)
    frames[-1].sum().item()  # waits for a GPU
    return batch * repeats / (clock() - begin)


if __name__ == "__main__":
    import sys

    from occsora_sim.scenes.source import open_scenes

    for opened in open_scenes((*sys.argv[1:], "traffic:0")[0]):
        if not isinstance(opened, Scene):
            continue  # a voxel sequence needs no voxeliser
        begun = process_time()
        made = Voxeliser(opened)
        raster_seconds = process_time() - begun
        rates = ", ".join(
            f"{frames_per_second(made, batch):.0f} in batches of {batch}" for batch in (1, 8, 64)
        )
        print(f"{opened.name}: raster {raster_seconds:.2f} s; frames a second: {rates}")
