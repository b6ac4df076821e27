"""The World protocol: what an environment drives. Batched; the state is a value."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from occsora_sim.grid import Grid
from occsora_sim.road_users import RoadUsers
from occsora_sim.scenes.start import Start

__all__ = ["Start", "World", "WorldState"]


@dataclass(frozen=True, kw_only=True)
class WorldState:
    """The state of b worlds after a step.

    Attributes:
        occupancy: (b, t, x, y, z) uint8: the newest chunk (after reset: the last frame alone), each frame in the
            ego frame of its instant.
        ego_pose: (b, t, 3) float32: world pose of each frame.
        memory: what the world needs to go on; its own business.
        users: the road users at the newest frame, those beyond the voxels too, without the ego; their last poses are
            at least as many as a full chunk has frames and one more, so that they can be read off at each frame
            (`RoadUsers.instants`). Ids last as long as a road user does. None: this world does not tell road users
            apart.

    """

    occupancy: torch.Tensor
    ego_pose: torch.Tensor
    memory: Any
    users: RoadUsers | None = None


class World(Protocol):
    """A batch of worlds. `reset` and `step` return new states and leave the old ones as they are.

    A world that does not go on for ever has in addition `seconds_left(state)`: how long each row does, (b,) [s]. The
    environment ends an episode where less than a step is left.
    """

    grid: Grid
    frames_per_chunk: int

    def reset(self, starts: Sequence[Start], seeds: Sequence[int]) -> WorldState:
        """Begin len(starts) worlds, the randomness of each from its own seed."""
        ...

    def step(self, state: WorldState, trajectories: torch.Tensor) -> WorldState:
        """Roll every world on along `trajectories` (b, f, 3): the ego poses at the next f frames, relative to the
        ego's present pose; f may be from 1 to `frames_per_chunk`.
        """
        ...

    def select(self, state: WorldState, rows: Sequence[int]) -> WorldState:
        """The state of the worlds `rows` alone; rows may repeat, which branches a world."""
        ...

    def replace(self, state: WorldState, rows: Sequence[int], other: WorldState) -> WorldState:
        """`state` with the worlds `rows` taken from `other`, in order (used to reset some of a batch)."""
        ...
