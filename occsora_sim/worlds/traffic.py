"""TrafficWorld: live traffic around the ego. The ground truth: the others see the ego and react."""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from occsora_sim.device import check_device
from occsora_sim.errors import ConfigurationError
from occsora_sim.geometry import compose
from occsora_sim.grid import OCC3D, Grid
from occsora_sim.quantities import written
from occsora_sim.road_users import HISTORY, RoadUsers, stack
from occsora_sim.scenes.live_town import LiveTown, town_of, write_town
from occsora_sim.scenes.scene import Scene
from occsora_sim.scenes.start import EDITED, Start
from occsora_sim.scenes.sumo_pool import Journey, Pose, SumoPool
from occsora_sim.scenes.town_folder import temporary_files
from occsora_sim.vehicle import Vehicle
from occsora_sim.worlds.protocol import WorldState
from occsora_sim.worlds.rows import Places, check_starts, check_trajectories, replace_rows, select_rows
from occsora_sim.worlds.situation import Situation, live_users, newcomers, recognise, recorded_past

_PAST = 3  # poses before the start that the ego's speed is told from
_LARGEST_TOWN = {
    "extent": 5000.0, "fringe": 2000.0, "warm_up": 600.0, "duration": 3600.0, "vehicles_per_km": 1000.0,
    "bicycles_per_km": 1000.0, "pedestrians_per_km": 1000.0, "inflow": 1000.0, "egos": 1000,
}  # fmt: skip
_MOST_BLOCKS = 40
_TOWNS = 64  # kept on disk; one is rebuilt in a second


@dataclass(frozen=True, kw_only=True)
class TrafficRow:
    """One world, all of it plain values: how it began, the ego's poses since, who has come since."""

    situation: Situation
    driven: tuple[Pose, ...] = ()
    came: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class TrafficMemory:
    """b worlds."""

    rows: tuple[TrafficRow, ...]

    def select(self, rows: Sequence[int]) -> TrafficMemory:
        """The worlds `rows`."""
        return TrafficMemory(rows=tuple(self.rows[row] for row in rows))

    def join(self, other: TrafficMemory) -> TrafficMemory:
        """These worlds, and those of `other` behind them."""
        return TrafficMemory(rows=self.rows + other.rows)


class TrafficWorld:
    """SUMO towns, live under the ego's actions, behind the World protocol.

    At each start a simulation is brought to the recorded instant, the same voxel for voxel. From there on the ego is
    put every 0.1 s where its trajectory leads, and the others go on by themselves: they brake for it, wait for it,
    overtake it. They are drivers on lanes: the ego is in their way as long as it is on a lane, whole or in part, and
    not once it is beside all of them. Beyond the recording's end the town goes on, but nobody enters it any more.

    A state is a value: where no simulation stands at it any more, the town is run again from its seed along the
    ego's poses. Simulations live in worker processes, which start when needed; `close` ends them (as does the end of
    the world object), and a later step starts them anew. In a forked child the world begins with none: those of its
    parent answer the parent.

    Args:
        grid: the voxels around the ego.
        frames_per_chunk: frames of a full step.
        device: where the frames are made.
        vehicle: the ego as the others see it.
        workers: processes at most. With fewer than worlds, towns are run again and again.

    """

    def __init__(
        self,
        grid: Grid = OCC3D,
        frames_per_chunk: int = 2,
        device: torch.device | str = "cpu",
        vehicle: Vehicle | None = None,
        workers: int = 16,
    ) -> None:
        if frames_per_chunk < 1 or workers < 1:
            raise ConfigurationError(
                f"traffic world: frames_per_chunk {frames_per_chunk} and workers {workers} must be 1 or more"
            )
        self.grid, self.frames_per_chunk = grid, frames_per_chunk
        self.device = torch.device(check_device(str(device)))
        self.vehicle = vehicle or Vehicle()
        self._history = max(HISTORY, frames_per_chunk + 1)
        self._places = Places(grid, self.device)
        self._workers = workers
        self._settle()

    def close(self) -> None:
        """End the worker processes. The world can be used again; they then start anew."""
        self._own_pool().close()

    def processes(self) -> list[int]:
        """The ids of the worker processes."""
        return self._own_pool().processes()

    # ------------------------------------------------------------------ protocol
    def reset(self, starts: Sequence[Start], seeds: Sequence[int]) -> WorldState:
        """Run each town to its start. `seeds` change nothing: a town's own seed decides all that happens in it.

        Raises:
            ConfigurationError: a start was not made from a town, or for another grid.
            SceneError: the town does not run as it was recorded (another version of SUMO), or SUMO failed.
            MissingDependencyError: SUMO is not installed.

        """
        check_starts(starts, seeds, self.grid, "traffic")
        for start in starts:
            _check_town(start.source[0])
            if EDITED in start.source[0].attributes:
                raise ConfigurationError(
                    f"start {start.name!r}: its road users were edited, and live traffic has those of its town alone; "
                    'use world="replay" or world="diffusion"'
                )
        towns = [self._town(start.source[0]) for start in starts]
        times = [
            town.warm_up + start.source[2] * start.source[0].dt
            for town, start in zip(towns, starts, strict=True)
        ]
        answers = self._own_pool().run(
            [
                Journey(folder=str(town.folder), options=town.options, events=town.events, time=time)
                for town, time in zip(towns, times, strict=True)
            ]
        )
        users, memory = [], []
        for start, town, time, (found, worker) in zip(starts, towns, times, answers, strict=True):
            scene, ego, step = start.source
            past = tuple(tuple(pose) for pose in start.ego_pose[-_PAST:].double().tolist())
            situation = recognise(scene, ego, step, time, past, found, town.sizes)
            before = recorded_past(situation, step, self._history)
            users.append(live_users(situation, (), [found], town.sizes, before.earlier(1), self._history))
            memory.append(TrafficRow(situation=situation))
            worker.owner = weakref.ref(memory[-1])
        pose = torch.stack([start.ego_pose[-1:] for start in starts]).to(self.device, torch.float64)
        return self._state(memory, users, pose)

    def step(self, state: WorldState, trajectories: Tensor) -> WorldState:
        """Drive along `trajectories` (b, f, 3), f frames, among the others.

        Raises:
            ActionError: wrong shape, or not finite.
            SceneError: SUMO failed.

        """
        rows: tuple[TrafficRow, ...] = state.memory.rows
        check_trajectories(trajectories, len(rows), self.frames_per_chunk, "traffic")
        towns = [self._town(row.situation.scene) for row in rows]
        ahead = []
        for row, trajectory in zip(rows, trajectories.detach().to("cpu", torch.float64), strict=True):
            here = torch.tensor((row.driven or row.situation.past)[-1], dtype=torch.float64)
            ahead.append(compose(here.expand_as(trajectory), trajectory))
        journeys = [
            self._journey(row, town, tuple(tuple(pose) for pose in poses.tolist()))
            for row, town, poses in zip(rows, towns, ahead, strict=True)
        ]
        users, memory = [], []
        answers = self._own_pool().run(journeys)
        before = state.users if state.users is not None else RoadUsers.empty(len(rows), 0, self._history)
        for number, (row, town, journey, (frames, worker)) in enumerate(
            zip(rows, towns, journeys, answers, strict=True)
        ):
            came = (*row.came, *newcomers((*row.situation.known, *row.came), frames))
            past = before.select([number])
            users.append(live_users(row.situation, came, frames, town.sizes, past, self._history))
            memory.append(
                TrafficRow(situation=row.situation, driven=journey.driven + journey.ahead, came=came)
            )
            worker.owner = weakref.ref(memory[-1])
        return self._state(memory, users, torch.stack(ahead).to(self.device))

    def select(self, state: WorldState, rows: Sequence[int]) -> WorldState:
        """The state of the worlds `rows` alone; rows may repeat, which branches a world."""
        return select_rows(state, rows)

    def replace(self, state: WorldState, rows: Sequence[int], other: WorldState) -> WorldState:
        """`state` with the worlds `rows` taken from `other`, in order."""
        return replace_rows(state, rows, other)

    # ------------------------------------------------------------------ parts
    def _settle(self) -> None:
        """Begin with no worker and an empty folder for towns, both this process's own."""
        self._process, self._pool = os.getpid(), SumoPool(self._workers)
        self._towns: OrderedDict[str, LiveTown] = OrderedDict()
        with temporary_files():
            self._folder = Path(tempfile.mkdtemp(prefix="occsora-live-"))
        self._end = weakref.finalize(self, _end, self._process, self._pool, self._folder)

    def _own_pool(self) -> SumoPool:
        """The pool of this process."""
        if self._process != os.getpid():  # this is a forked child
            self._settle()
        return self._pool

    def _journey(self, row: TrafficRow, town: LiveTown, ahead: tuple[Pose, ...]) -> Journey:
        vehicle = self.vehicle
        return Journey(
            folder=str(town.folder),
            options=town.options,
            events=town.events,
            time=row.situation.time,
            ego=row.situation.ego,
            size=(vehicle.length, vehicle.width, 1.6),
            front=vehicle.length - vehicle.rear_overhang,
            past=row.situation.past,
            driven=row.driven,
            ahead=ahead,
        )

    def _state(self, rows: Sequence[TrafficRow], users: Sequence[RoadUsers], pose: Tensor) -> WorldState:
        """What stands around the egos at `pose` (b, f, 3) float64, drawn in one call, and who is still there."""
        f = pose.shape[1]
        voxeliser, place = self._places.atlas([row.situation.scene for row in rows])
        together = stack(users).map(lambda value: value.to(self.device))
        occupancy = voxeliser.draw(
            together.instants(f), pose.flatten(0, 1), place[:, None].expand(-1, f).flatten()
        )
        return WorldState(
            occupancy=occupancy.view(len(rows), f, *self.grid.shape),
            ego_pose=pose.float(),
            memory=TrafficMemory(rows=tuple(rows)),
            users=together.where(together.valid),
        )

    def _town(self, scene: Scene) -> LiveTown:
        """The files of the scene's town, written when it is first driven in."""
        key = " ".join(scene.attributes.get(name, "") for name in ("seed", "config", "mix", "events"))
        self._own_pool()
        if key not in self._towns:
            with temporary_files():
                folder = Path(tempfile.mkdtemp(dir=self._folder))
            self._towns[key] = write_town(scene, folder)
            if len(self._towns) > _TOWNS:
                self._towns.popitem(last=False)[1].remove()
        self._towns.move_to_end(key)
        return self._towns[key]


def _check_town(scene: Scene) -> None:
    """See that a scene's town takes no longer to run than towns do: a file may say anything of it.

    Raises:
        ConfigurationError: it takes longer, or as `town_of`.

    """
    _, config = town_of(scene)
    for name, most in _LARGEST_TOWN.items():
        if not getattr(config, name) <= most:
            raise ConfigurationError(
                f"scene {scene.name}: its town's {name} is {written(getattr(config, name))}, more than {most:g}; make "
                "the town again"
            )
    if config.extent / config.block > _MOST_BLOCKS:
        raise ConfigurationError(f"scene {scene.name}: its town has more than {_MOST_BLOCKS} blocks a side")


def _end(process: int, pool: SumoPool, folder: Path) -> None:
    """End a world's workers and remove its folder, in the process whose they are."""
    if process == os.getpid():
        pool.close()
        shutil.rmtree(folder, ignore_errors=True)
