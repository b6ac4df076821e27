"""Worlds whose rows stand by themselves: picking and putting rows, and drawing the scenes of all in one call."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from occsora_sim.errors import ActionError, ConfigurationError
from occsora_sim.grid import Grid
from occsora_sim.road_users import RoadUsers, stack
from occsora_sim.scenes.raster import rasterise
from occsora_sim.scenes.recorded import Recorded
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


class Rows(Protocol):
    """A memory of b worlds that stand by themselves."""

    def select(self, rows: Sequence[int]) -> Rows:
        """The worlds `rows`, which may repeat."""
        ...

    def join(self, other: Any) -> Rows:
        """These worlds, and those of `other` of the same kind behind them."""
        ...


def select_rows(state: WorldState, rows: Sequence[int]) -> WorldState:
    """The state of the worlds `rows` alone; rows may repeat."""
    index = list(rows)
    return WorldState(
        occupancy=state.occupancy[index],
        ego_pose=state.ego_pose[index],
        memory=state.memory.select(index),
        users=None if state.users is None else state.users.select(index),
    )


def replace_rows(state: WorldState, rows: Sequence[int], other: WorldState) -> WorldState:
    """`state` with the worlds `rows` taken from `other`, in order.

    Where the two hold chunks of unlike length, the result holds the newest frame of each.
    """
    same = state.occupancy.shape[1] == other.occupancy.shape[1]
    last = slice(None) if same else slice(-1, None)
    order = list(range(len(state.occupancy)))
    for index, row in enumerate(rows):
        order[row] = len(state.occupancy) + index
    users = None
    if state.users is not None and other.users is not None:
        users = stack([state.users, other.users]).select(order)
    return WorldState(
        occupancy=torch.cat((state.occupancy[:, last], other.occupancy[:, last]))[order],
        ego_pose=torch.cat((state.ego_pose[:, last], other.ego_pose[:, last]))[order],
        memory=state.memory.join(other.memory).select(order),
        users=users,
    )


class Places:
    """Draws the scenes of many worlds in one call.

    The rasters and tracks of the scenes last used lie in one atlas on the device. Voxel sequences, which are read from
    files, are drawn one frame after another.

    Args:
        grid: the voxels around the ego.
        device: where the frames are made.
        kept: scenes of either kind that are kept, at least.

    """

    def __init__(self, grid: Grid, device: torch.device, kept: int = 8) -> None:
        self.grid, self.device, self.kept = grid, device, kept
        self._sequences: OrderedDict[int, VoxelFrames] = OrderedDict()
        self._used: OrderedDict[int, Scene] = (
            OrderedDict()
        )  # its reference keeps a scene, hence its id, alive
        self._number: dict[int, int] = {}
        self._voxeliser: Voxeliser | None = None

    def atlas(self, scenes: Sequence[Scene]) -> tuple[Voxeliser, Tensor]:
        """What draws `scenes`, one for each world, and the number of each in it (b,) int64."""
        for scene in scenes:
            self._used[id(scene)] = scene
            self._used.move_to_end(id(scene))
        if self._voxeliser is None or any(id(scene) not in self._number for scene in scenes):
            old = (
                {}
                if self._voxeliser is None
                else dict(zip(self._number, self._voxeliser.rasters, strict=True))
            )
            while len(self._used) > max(self.kept, len({id(scene) for scene in scenes})):
                self._used.popitem(last=False)
            rasters = [old.get(key) or rasterise(scene, self.grid) for key, scene in self._used.items()]
            self._voxeliser = Voxeliser(tuple(self._used.values()), self.grid, self.device, rasters=rasters)
            self._number = {key: number for number, key in enumerate(self._used)}
        numbers = [self._number[id(scene)] for scene in scenes]
        return self._voxeliser, torch.tensor(numbers, device=self.device)

    def frames(self, scenes: Sequence[Recorded], pose: Tensor, time: Tensor, exclude: Tensor) -> Tensor:
        """Frames (b, f, x, y, z) uint8 of b worlds.

        Args:
            scenes: one for each world.
            pose: (b, f, 3) float64 world poses of the egos.
            time: (b, f) float64 since the scenes' beginnings [s]; after its end a scene stands still.
            exclude: (b,) int64, the track left out, or -1.

        """
        b, f = time.shape
        out = torch.empty((b, f, *self.grid.shape), dtype=torch.uint8, device=self.device)
        end = torch.tensor(
            [(scene.steps - 1) * scene.dt for scene in scenes], dtype=time.dtype, device=time.device
        )
        time = time.minimum(end[:, None])
        rows = [row for row, scene in enumerate(scenes) if isinstance(scene, Scene)]
        if rows:
            voxeliser, place = self.atlas([scene for scene in scenes if isinstance(scene, Scene)])
            each = slice(None) if len(rows) == b else rows
            asked = (pose[each].flatten(0, 1), time[each].flatten())
            more = [value[:, None].expand(-1, f).flatten() for value in (exclude[each], place)]
            out[each] = voxeliser.frames(*asked, *more).view(len(rows), f, *self.grid.shape)
        for row, scene in enumerate(scenes):
            if isinstance(scene, VoxelScene):
                out[row] = self._sequence(scene).frames(pose[row], time[row])
        return out

    def road_users(
        self, scenes: Sequence[Recorded], pose: Tensor, time: Tensor, exclude: Tensor, history: int
    ) -> RoadUsers | None:
        """The road users around egos at `pose` (b, 3) and `time` (b,), with their past; None where a scene is a voxel
        sequence, which has no tracks. Other arguments as of `frames`.
        """
        vector = [scene for scene in scenes if isinstance(scene, Scene)]
        if len(vector) < len(scenes):
            return None
        voxeliser, place = self.atlas(vector)
        return voxeliser.tracks.at(place, pose, time, exclude, history)

    def _sequence(self, scene: VoxelScene) -> VoxelFrames:
        """What draws a voxel sequence, made once while it is among the last used."""
        found = self._sequences.pop(id(scene), None) or VoxelFrames(scene, self.grid, self.device)
        self._sequences[id(scene)] = found  # which keeps the scene, hence the id, alive
        if len(self._sequences) > self.kept:
            self._sequences.popitem(last=False)
        return found
