"""ReplayWorld: a recorded scene, seen from wherever the ego drives. The others do not react to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from occsora_sim.device import check_device
from occsora_sim.errors import ConfigurationError
from occsora_sim.geometry import compose
from occsora_sim.grid import FRAME_SECONDS, OCC3D, Grid
from occsora_sim.road_users import HISTORY, RoadUsers
from occsora_sim.scenes.recorded import Recorded
from occsora_sim.scenes.start import Start
from occsora_sim.worlds.protocol import WorldState
from occsora_sim.worlds.rows import Places, check_starts, check_trajectories, replace_rows, select_rows


@dataclass(frozen=True, kw_only=True)
class ReplayMemory:
    """b worlds.

    Attributes:
        scenes: what each replays.
        exclude: (b,) int64, the tracks left out.
        time: (b,) float64 since the recordings' beginnings [s]; it goes on past their ends.
        pose: (b, 3) float64, the egos' world poses.

    """

    scenes: tuple[Recorded, ...]
    exclude: Tensor
    time: Tensor
    pose: Tensor

    def select(self, rows: Sequence[int]) -> ReplayMemory:
        """The worlds `rows`."""
        index = list(rows)
        return ReplayMemory(
            scenes=tuple(self.scenes[row] for row in index),
            exclude=self.exclude[index],
            time=self.time[index],
            pose=self.pose[index],
        )

    def join(self, other: ReplayMemory) -> ReplayMemory:
        """These worlds, and those of `other` behind them."""
        return ReplayMemory(
            scenes=self.scenes + other.scenes,
            exclude=torch.cat((self.exclude, other.exclude)),
            time=torch.cat((self.time, other.time)),
            pose=torch.cat((self.pose, other.pose)),
        )


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
        self._history = max(HISTORY, frames_per_chunk + 1)
        self._places = Places(grid, self.device)

    def reset(self, starts: Sequence[Start], seeds: Sequence[int]) -> WorldState:
        """Begin at the recorded instants. `seeds` change nothing: a recording is what it is.

        Raises:
            ConfigurationError: a start was not made from a scene, or for another grid.

        """
        check_starts(starts, seeds, self.grid, "replay")
        scenes, exclude, time = [], [], []
        for start in starts:
            scene, ego, step = start.source
            scenes.append(scene)
            exclude.append(int(scene.ego_track[ego]) if ego >= 0 else -1)
            time.append(float(step) * scene.dt)
        memory = ReplayMemory(
            scenes=tuple(scenes),
            exclude=torch.tensor(exclude, device=self.device),
            time=torch.tensor(time, dtype=torch.float64, device=self.device),
            pose=torch.stack([start.ego_pose[-1] for start in starts]).to(self.device, torch.float64),
        )
        return WorldState(
            occupancy=torch.stack([start.occupancy[-1:] for start in starts]).to(self.device),
            ego_pose=torch.stack([start.ego_pose[-1:] for start in starts]).to(self.device, torch.float32),
            memory=memory,
            users=self._users(memory),
        )

    def step(self, state: WorldState, trajectories: Tensor) -> WorldState:
        """Look at the recordings from the poses along `trajectories` (b, f, 3), f frames later.

        Raises:
            ActionError: wrong shape, or not finite.

        """
        memory: ReplayMemory = state.memory
        check_trajectories(trajectories, len(memory.scenes), self.frames_per_chunk, "replay")
        trajectories = trajectories.to(self.device, torch.float64)
        pose = compose(memory.pose[:, None].expand_as(trajectories), trajectories)
        ahead = torch.arange(1, trajectories.shape[1] + 1, dtype=torch.float64, device=self.device)
        time = memory.time[:, None] + FRAME_SECONDS * ahead
        after = replace(memory, time=time[:, -1], pose=pose[:, -1])
        return WorldState(
            occupancy=self._places.frames(memory.scenes, pose, time, memory.exclude),
            ego_pose=pose.float(),
            memory=after,
            users=self._users(after),
        )

    def seconds_left(self, state: WorldState) -> Tensor:
        """How long each recording goes on, (b,) float64 [s]."""
        memory: ReplayMemory = state.memory
        end = torch.tensor([(scene.steps - 1) * scene.dt for scene in memory.scenes], dtype=torch.float64)
        return (end.to(memory.time) - memory.time).clamp(min=0.0)

    def _users(self, memory: ReplayMemory) -> RoadUsers | None:
        return self._places.road_users(memory.scenes, memory.pose, memory.time, memory.exclude, self._history)

    def select(self, state: WorldState, rows: Sequence[int]) -> WorldState:
        """The state of the worlds `rows` alone; rows may repeat, which branches a world."""
        return select_rows(state, rows)

    def replace(self, state: WorldState, rows: Sequence[int], other: WorldState) -> WorldState:
        """`state` with the worlds `rows` taken from `other`, in order."""
        return replace_rows(state, rows, other)
