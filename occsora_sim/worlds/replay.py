"""ReplayWorld: a recorded scene, seen from wherever the ego drives. The others do not react to it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from occsora_sim.errors import ActionError, ConfigurationError
from occsora_sim.geometry import compose
from occsora_sim.grid import FRAME_SECONDS, OCC3D, Grid
from occsora_sim.scenes.scene import Scene
from occsora_sim.scenes.start import Start
from occsora_sim.scenes.voxeliser import Voxeliser
from occsora_sim.worlds.protocol import WorldState

CACHED_SCENES = 8
"""Voxelisers kept; each holds the raster of a whole scene."""


@dataclass(frozen=True, kw_only=True)
class ReplayRow:
    """One world: its recording, the track left out (the ego's own or -1), the time [s], the ego pose (3,)."""

    scene: Scene
    exclude: int
    time: float
    pose: torch.Tensor


class ReplayWorld:
    """Replays recorded scenes behind the World protocol. Past the recording's end time stands still.

    Args:
        grid: the voxels around the ego.
        frames_per_chunk: frames of a full step.
        device: where the frames are made.

    """

    def __init__(
        self, grid: Grid = OCC3D, frames_per_chunk: int = 2, device: torch.device | str = "cpu"
    ) -> None:
        if frames_per_chunk < 1:
            raise ConfigurationError(f"replay world: frames_per_chunk {frames_per_chunk} must be 1 or more")
        self.grid = grid
        self.frames_per_chunk = frames_per_chunk
        self.device = torch.device(device)
        self._voxelisers: OrderedDict[int, Voxeliser] = OrderedDict()

    def reset(self, starts: Sequence[Start], seeds: Sequence[int]) -> WorldState:
        """Begin at the recorded instants. `seeds` change nothing: a recording is what it is.

        Raises:
            ConfigurationError: a start was not made from a scene, or for another grid.

        """
        if not starts or len(starts) != len(seeds):
            raise ConfigurationError(
                f"replay world: {len(starts)} starts and {len(seeds)} seeds; give one seed per start"
            )
        rows = []
        for start in starts:
            if start.source is None:
                raise ConfigurationError(
                    f"start {start.name!r} holds no recorded scene, so it cannot be replayed; "
                    'make it with scenes.start.make_start, or use world="diffusion"'
                )
            if tuple(start.occupancy.shape[1:]) != self.grid.shape:
                raise ConfigurationError(
                    f"start {start.name!r}: its frames are {tuple(start.occupancy.shape[1:])}, the world's "
                    f"{self.grid.shape}; make it with this world's grid"
                )
            scene, ego, step = start.source
            exclude = int(scene.ego_track[ego]) if ego >= 0 else -1
            pose = start.ego_pose[-1].to(self.device, torch.float64)
            rows.append(ReplayRow(scene=scene, exclude=exclude, time=float(step) * scene.dt, pose=pose))
        return WorldState(
            occupancy=torch.stack([start.occupancy[-1:] for start in starts]).to(self.device),
            ego_pose=torch.stack([start.ego_pose[-1:] for start in starts]).to(self.device, torch.float32),
            memory=tuple(rows),
        )

    def step(self, state: WorldState, trajectories: torch.Tensor) -> WorldState:
        """Look at the recordings from the poses along `trajectories` (b, f, 3), f frames later.

        Raises:
            ActionError: wrong shape, or not finite.

        """
        rows: tuple[ReplayRow, ...] = state.memory
        shape = tuple(trajectories.shape)
        if (
            len(shape) != 3
            or shape[0] != len(rows)
            or shape[2] != 3
            or not 1 <= shape[1] <= self.frames_per_chunk
        ):
            raise ActionError(
                f"replay world: trajectories of shape {shape}, expected ({len(rows)}, 1 to "
                f"{self.frames_per_chunk}, 3)"
            )
        if not bool(torch.isfinite(trajectories).all()):
            raise ActionError("replay world: trajectories hold NaN or infinity; give finite poses")
        occupancy, poses, memory = [], [], []
        # Row by row: a world's floats then do not depend on its neighbours, bit for bit.
        for row, trajectory in zip(rows, trajectories.to(self.device, torch.float64), strict=True):
            pose = compose(row.pose.expand_as(trajectory), trajectory)
            times = row.time + FRAME_SECONDS * torch.arange(1, shape[1] + 1, dtype=torch.float64)
            times = times.clamp(max=(row.scene.steps - 1) * row.scene.dt)
            frames = self._voxeliser(row.scene).frames(pose, times, torch.full((shape[1],), row.exclude))
            occupancy.append(frames)
            poses.append(pose)
            memory.append(
                ReplayRow(scene=row.scene, exclude=row.exclude, time=float(times[-1]), pose=pose[-1])
            )
        return WorldState(
            occupancy=torch.stack(occupancy), ego_pose=torch.stack(poses).float(), memory=tuple(memory)
        )

    def select(self, state: WorldState, rows: Sequence[int]) -> WorldState:
        """The state of the worlds `rows` alone; rows may repeat, which branches a world."""
        index = list(rows)
        return WorldState(
            occupancy=state.occupancy[index],
            ego_pose=state.ego_pose[index],
            memory=tuple(state.memory[row] for row in index),
        )

    def replace(self, state: WorldState, rows: Sequence[int], other: WorldState) -> WorldState:
        """`state` with the worlds `rows` taken from `other`, in order.

        Where the two hold chunks of unlike length, the result holds the newest frame of each.
        """
        same = state.occupancy.shape[1] == other.occupancy.shape[1]
        last = slice(None) if same else slice(-1, None)
        occupancy, poses = state.occupancy[:, last].clone(), state.ego_pose[:, last].clone()
        memory = list(state.memory)
        for index, row in enumerate(rows):
            occupancy[row], poses[row] = other.occupancy[index, last], other.ego_pose[index, last]
            memory[row] = other.memory[index]
        return WorldState(occupancy=occupancy, ego_pose=poses, memory=tuple(memory))

    def _voxeliser(self, scene: Scene) -> Voxeliser:
        """The scene's voxeliser, made once while the scene is among the last used."""
        found = self._voxelisers.get(id(scene))  # its own reference keeps the scene, hence the id, alive
        if found is None:
            found = Voxeliser(scene, self.grid, self.device)
            self._voxelisers[id(scene)] = found
            if len(self._voxelisers) > CACHED_SCENES:
                self._voxelisers.popitem(last=False)
        self._voxelisers.move_to_end(id(scene))
        return found
