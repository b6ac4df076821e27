"""One future for many plans: the world is rolled along the first plan, the others look at it from where they lead.

A generated world spends most of its time on how road users move; told once for all plans of an episode, dozens of plans
cost about as much as one. The price: nobody reacts to any plan but the first, as in NAVSIM's scoring of plans.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from occsora_sim.envs.state import DriveState
from occsora_sim.geometry import compose, relative, to_world
from occsora_sim.grid import Grid
from occsora_sim.scoring.footprint import columns_at
from occsora_sim.vehicle import Vehicle
from occsora_sim.worlds.protocol import Start, World, WorldState

REACH = 8.0
"""How far before and behind the car a plan's own frames show the world [m]: as far as a frame's motion sweeps."""

ASIDE = 2.0
"""And to each side of it [m]."""


@dataclass(frozen=True, kw_only=True)
class SharedMemory:
    """What n futures remember that k plans each look at.

    Attributes:
        lead: the state of the n worlds.
        pose: (n k, 3) float64, where the plans have led.
        steps: how many there were.

    """

    lead: WorldState
    pose: Tensor
    steps: int = 0


class SharedFuture:
    """A World of n k rows, k plans in each of n worlds. Its frames show the plan's car and what is just around it.

    Args:
        world: rolled along the first plan of each group.
        plans: k.
        vehicle: the car.
        until: after so many steps nobody moves any more; None: they go on.

    """

    def __init__(self, world: World, plans: int, vehicle: Vehicle, until: int | None = None) -> None:
        self.world, self.plans, self.until = world, plans, until
        self.frames_per_chunk = world.frames_per_chunk
        self.device = torch.device(getattr(world, "device", "cpu"))
        voxel, whole = world.grid.voxel, world.grid
        ahead = math.ceil((vehicle.front + REACH) / voxel)
        behind = math.ceil((REACH - vehicle.rear) / voxel)
        aside = math.ceil((vehicle.width / 2 + ASIDE) / voxel)
        self.grid = Grid(
            shape=(behind + ahead, 2 * aside, whole.shape[2]),
            voxel=voxel,
            lower=(-behind * voxel, -aside * voxel, whole.lower[2]),
        )

    def branch(self, state: DriveState) -> DriveState:
        """The n episodes of `state`, which are in the world of the lead, with k plans each."""
        each = torch.arange(len(state.frames), device=state.frames.device).repeat_interleave(self.plans)
        near = self._seen(state.frames[:, -1:], state.poses[:, -1:], state.poses[:, -1:, None])[each]
        pose = state.world.ego_pose[:, -1].double()[each]
        return replace(
            state,
            world=self._state(state.world, pose, near, pose[:, None]),
            episodes=replace(state.episodes, occupancy=near[:: self.plans, 0]).map(lambda value: value[each]),
            frames=near,
            poses=state.poses[each, -1:],
            seen=near,
            seen_poses=state.seen_poses[each, -1:],
            motion=state.motion[each],
            start=state.start[each],
            origin=state.origin[each],
        )

    def reset(self, starts: Sequence[Start], seeds: Sequence[int]) -> WorldState:
        """There is nothing to begin from but a state: see `branch`."""
        raise NotImplementedError("a shared future is branched off a state")

    def step(self, state: WorldState, trajectories: Tensor) -> WorldState:
        """Roll the worlds on along the first of each k of `trajectories` (n k, f, 3)."""
        memory: SharedMemory = state.memory
        if self.until is None or memory.steps < self.until:
            lead = self.world.step(memory.lead, trajectories[:: self.plans])
        else:
            lead = _standing(memory.lead, trajectories.shape[1])
        prompt = trajectories.to(memory.pose)
        pose = compose(memory.pose[:, None].expand_as(prompt), prompt)
        views = pose.unflatten(0, (-1, self.plans)).transpose(1, 2)  # (n, f, k, 3)
        seen = self._seen(lead.occupancy, lead.ego_pose, views)
        return self._state(lead, pose[:, -1], seen, pose, memory.steps + 1)

    def select(self, state: WorldState, rows: Sequence[int]) -> WorldState:
        """Plans of an episode stay together."""
        raise NotImplementedError("plans of a shared future stay together")

    def replace(self, state: WorldState, rows: Sequence[int], other: WorldState) -> WorldState:
        """Plans of an episode stay together."""
        raise NotImplementedError("plans of a shared future stay together")

    def _seen(self, frames: Tensor, poses: Tensor, views: Tensor) -> Tensor:
        """`frames` (n, f, x, y, z) uint8, seen from `poses` (n, f, 3), as they look from `views` (n, f, k, 3) of the
        world: (n k, f, ...) of this world's grid; a column shows what stands at its middle.
        """
        centres = self.grid.centres_xy(self.device).flatten(0, 1)  # (p, 2)
        offset = relative(poses[:, :, None].to(views), views).float()
        points = to_world(centres, offset[..., None, :])  # (n, f, k, p, 2)
        columns = columns_at(frames, self.world.grid, points.flatten(2, 3)).unflatten(2, points.shape[2:4])
        shown = columns.unflatten(3, self.grid.shape[:2])  # (n, f, k, x, y, z)
        return shown.transpose(1, 2).flatten(0, 1)

    def _state(
        self, lead: WorldState, here: Tensor, frames: Tensor, poses: Tensor, steps: int = 0
    ) -> WorldState:
        n = len(lead.occupancy)
        each = torch.arange(n, device=self.device).repeat_interleave(self.plans)
        return WorldState(
            occupancy=frames,
            ego_pose=poses.float(),
            memory=SharedMemory(lead=lead, pose=here, steps=steps),
            users=None if lead.users is None else lead.users.select(each),
        )


def _standing(state: WorldState, frames: int) -> WorldState:
    """So many frames later in a world in which nobody moves."""
    users = state.users
    if users is not None:
        pose, velocity = users.pose[:, :, -1:].expand_as(users.pose), torch.zeros_like(users.velocity)
        users = replace(users, pose=pose, velocity=velocity)
    return replace(
        state, occupancy=state.occupancy[:, -1:].expand(-1, frames, -1, -1, -1),
        ego_pose=state.ego_pose[:, -1:].expand(-1, frames, -1), users=users,
    )  # fmt: skip
