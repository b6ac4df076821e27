"""ReplayWorld: a recorded scene, seen from wherever the ego drives. The others do not react to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from occsora_sim.device import check_device
from occsora_sim.errors import ConfigurationError
from occsora_sim.geometry import compose
from occsora_sim.grid import FRAME_SECONDS, OCC3D, Grid
from occsora_sim.scenes.recorded import Recorded
from occsora_sim.scenes.start import Start
from occsora_sim.worlds.protocol import WorldState
from occsora_sim.worlds.rows import Voxelisers, check_starts, check_trajectories, replace_rows, select_rows


@dataclass(frozen=True, kw_only=True)
class ReplayRow:
    """One world: its recording, the track left out (the ego's own or -1), the time [s], the ego pose (3,)."""

    scene: Recorded
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
        self.device = torch.device(check_device(str(device)))
        self._voxelisers = Voxelisers(grid, self.device)

    def reset(self, starts: Sequence[Start], seeds: Sequence[int]) -> WorldState:
        """Begin at the recorded instants. `seeds` change nothing: a recording is what it is.

        Raises:
            ConfigurationError: a start was not made from a scene, or for another grid.

        """
        check_starts(starts, seeds, self.grid, "replay")
        rows = []
        for start in starts:
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
        check_trajectories(trajectories, len(rows), self.frames_per_chunk, "replay")
        ahead = FRAME_SECONDS * torch.arange(1, trajectories.shape[1] + 1, dtype=torch.float64)
        occupancy, poses, memory = [], [], []
        # Row by row: a world's floats then do not depend on its neighbours, bit for bit.
        for row, trajectory in zip(rows, trajectories.to(self.device, torch.float64), strict=True):
            pose = compose(row.pose.expand_as(trajectory), trajectory)
            times = (row.time + ahead).clamp(max=(row.scene.steps - 1) * row.scene.dt)
            frames = self._voxelisers.of(row.scene).frames(
                pose, times, torch.full((len(times),), row.exclude)
            )
            occupancy.append(frames)
            poses.append(pose)
            memory.append(
                ReplayRow(scene=row.scene, exclude=row.exclude, time=float(times[-1]), pose=pose[-1])
            )
        return WorldState(
            occupancy=torch.stack(occupancy), ego_pose=torch.stack(poses).float(), memory=tuple(memory)
        )

    def seconds_left(self, state: WorldState) -> torch.Tensor:
        """How long each recording goes on, (b,) float64 [s]."""
        rows: tuple[ReplayRow, ...] = state.memory
        left = [(row.scene.steps - 1) * row.scene.dt - row.time for row in rows]
        return torch.tensor(left, dtype=torch.float64, device=self.device)

    def select(self, state: WorldState, rows: Sequence[int]) -> WorldState:
        """The state of the worlds `rows` alone; rows may repeat, which branches a world."""
        return select_rows(state, rows)

    def replace(self, state: WorldState, rows: Sequence[int], other: WorldState) -> WorldState:
        """`state` with the worlds `rows` taken from `other`, in order."""
        return replace_rows(state, rows, other)
