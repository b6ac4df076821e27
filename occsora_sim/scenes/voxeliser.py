"""From a vector scene to occupancy: any ego pose, any time, in batches, on any device.

`OMP_NUM_THREADS=1 python -m occsora_sim.scenes.voxeliser traffic:0` prints how fast this is on one core.
"""

from __future__ import annotations

import copy
from time import perf_counter, process_time

import numpy as np
import torch

from occsora_sim.errors import SceneError
from occsora_sim.grid import OCC3D, Grid
from occsora_sim.scenes.boxes import Boxes, real_type
from occsora_sim.scenes.raster import rasterise
from occsora_sim.scenes.scene import Scene

_LATE = 1e-4
"""A time may lie outside the scene by this [s], for rounding."""

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
        self._real = real_type(self.device)
        self._cell, self._origin = cell, raster.origin
        self._columns = raster.columns.to(self.device)
        self._palette = raster.palette.to(self.device)
        # A whole column at a time where there is a type of its size: several times as fast.
        word = {8: torch.int64, 16: torch.complex128}.get(grid.shape[2])
        self._word = None if self.device.type == "mps" else word
        self._boxes = Boxes(scene, grid, self.device)
        centres = grid.centres_xy(self.device)
        self._axis_x, self._axis_y = centres[:, 0, 0] / cell, centres[0, :, 1] / cell

    def with_tracks(self, scene: Scene) -> Voxeliser:
        """The same map under the tracks of `scene`: the raster, which costs most, is shared."""
        other = copy.copy(self)
        other.scene, other._boxes = scene, Boxes(scene, self.grid, self.device)
        return other

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

    def displacement(
        self,
        ego_pose: torch.Tensor,
        time: torch.Tensor,
        seconds: torch.Tensor,
        exclude: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """How far the road users' columns will have moved after `seconds` (f,) [s], other arguments as for `frames`.

        Returns:
            (n, f, x, y, 2) float32 [m] along the ego frame's x and y, rigid turns included; zero where no box stands.

        """
        pose, time, exclude = self._check(ego_pose, time, exclude)
        return self._boxes.displace(pose, time, exclude, seconds.to(self.device, self._real))

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
            self._boxes.paint(
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
        pose = torch.as_tensor(ego_pose).to(self.device, self._real)
        time = torch.as_tensor(time).to(self.device, self._real)
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
        inside = (time >= -_LATE) & (time <= end + _LATE)
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
        if self._word is None:
            torch.index_select(self._palette, 0, ids, out=out.view(-1, self._palette.shape[1]))
        else:
            words = self._palette.view(self._word).view(-1)
            torch.index_select(words, 0, ids, out=out.view(self._word).view(-1))


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
