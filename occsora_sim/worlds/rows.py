"""Worlds whose rows stand by themselves: picking and putting rows, the voxelisers that they share."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import overload

import torch

from occsora_sim.errors import ActionError, ConfigurationError
from occsora_sim.grid import Grid
from occsora_sim.scenes.recorded import Drawer, Recorded, drawer_of
from occsora_sim.scenes.scene import Scene
from occsora_sim.scenes.start import Start
from occsora_sim.scenes.voxel_scene import VoxelFrames, VoxelScene
from occsora_sim.scenes.voxeliser import Voxeliser
from occsora_sim.worlds.protocol import WorldState


def check_starts(starts: Sequence[Start], seeds: Sequence[int], grid: Grid, world: str) -> None:
    """See that there is one seed for each start, and that each was made from a scene for this grid.

    Raises:
        ConfigurationError: it is not so.

    """
    if not starts or len(starts) != len(seeds):
        raise ConfigurationError(
            f"{world} world: {len(starts)} starts and {len(seeds)} seeds; give one seed per start"
        )
    for start in starts:
        if not len(start.occupancy):
            raise ConfigurationError(
                f"start {start.name!r} holds nothing that was seen, so the {world} world cannot begin there; "
                'use world="diffusion"'
            )
        if start.source is None:
            raise ConfigurationError(
                f"start {start.name!r} holds no recorded scene, so the {world} world cannot begin there; "
                'make it with scenes.start.make_start, or use world="diffusion"'
            )
        if tuple(start.occupancy.shape[1:]) != grid.shape:
            raise ConfigurationError(
                f"start {start.name!r}: its frames are {tuple(start.occupancy.shape[1:])}, the world's "
                f"{grid.shape}; make it with this world's grid"
            )


def check_trajectories(trajectories: torch.Tensor, rows: int, frames: int, world: str) -> None:
    """See that trajectories are (rows, 1 to `frames`, 3) and finite.

    Raises:
        ActionError: they are not.

    """
    shape = tuple(trajectories.shape)
    if len(shape) != 3 or shape[0] != rows or shape[2] != 3 or not 1 <= shape[1] <= frames:
        raise ActionError(
            f"{world} world: trajectories of shape {shape}, expected ({rows}, 1 to {frames}, 3)"
        )
    if not bool(torch.isfinite(trajectories).all()):
        raise ActionError(f"{world} world: trajectories hold NaN or infinity; give finite poses")


def select_rows(state: WorldState, rows: Sequence[int]) -> WorldState:
    """The state of the worlds `rows` alone, its memory a tuple with one entry a world; rows may repeat."""
    index = list(rows)
    return WorldState(
        occupancy=state.occupancy[index],
        ego_pose=state.ego_pose[index],
        memory=tuple(state.memory[row] for row in index),
    )


def replace_rows(state: WorldState, rows: Sequence[int], other: WorldState) -> WorldState:
    """`state` with the worlds `rows` taken from `other`, in order; memories are tuples.

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


class Voxelisers:
    """The voxelisers of the scenes last used; each holds the raster of a whole scene.

    Args:
        grid: the voxels around the ego.
        device: where the frames are made.
        kept: how many.

    """

    def __init__(self, grid: Grid, device: torch.device, kept: int = 8) -> None:
        self.grid, self.device, self.kept = grid, device, kept
        self._found: OrderedDict[int, Drawer] = OrderedDict()

    @overload
    def of(self, scene: Scene) -> Voxeliser: ...

    @overload
    def of(self, scene: VoxelScene) -> VoxelFrames: ...

    def of(self, scene: Recorded) -> Drawer:
        """The scene's voxeliser, made once while the scene is among the last used."""
        found = self._found.get(id(scene))  # its own reference keeps the scene, hence the id, alive
        if found is None:
            found = drawer_of(scene, self.grid, self.device)
            self._found[id(scene)] = found
            if len(self._found) > self.kept:
                self._found.popitem(last=False)
        self._found.move_to_end(id(scene))
        return found
