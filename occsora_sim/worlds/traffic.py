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

import numpy as np
import torch

from occsora_sim.errors import ConfigurationError
from occsora_sim.geometry import compose
from occsora_sim.grid import FRAME_SECONDS, OCC3D, Grid
from occsora_sim.scenes.live_town import LiveTown, town_of, write_town
from occsora_sim.scenes.scene import Scene
from occsora_sim.scenes.start import Start
from occsora_sim.scenes.sumo_pool import Journey, Pose, SumoPool, Users
from occsora_sim.vehicle import Vehicle
from occsora_sim.worlds.protocol import WorldState
from occsora_sim.worlds.rows import Voxelisers, check_starts, check_trajectories, replace_rows, select_rows
from occsora_sim.worlds.situation import Situation, live_scene, newcomers, recognise

_PAST = 3  # poses before the start that the ego's speed is told from
_TOWNS = 64  # kept on disk; one is rebuilt in a second


@dataclass(frozen=True, kw_only=True)
class TrafficRow:
    """One world, all of it plain values: how it began, the ego's poses since, who has come since."""

    situation: Situation
    driven: tuple[Pose, ...] = ()
    came: tuple[str, ...] = ()


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
        self.device = torch.device(device)
        self.vehicle = vehicle or Vehicle()
        self._voxelisers = Voxelisers(grid, self.device)
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
            town_of(start.source[0])
        towns = [self._town(start.source[0]) for start in starts]
        times = [
            town.warm_up + start.source[2] * start.source[0].dt
            for town, start in zip(towns, starts, strict=True)
        ]
        answers = self._own_pool().run(
            [
                Journey(options=town.options, events=town.events, time=time)
                for town, time in zip(towns, times, strict=True)
            ]
        )
        occupancy, poses, memory = [], [], []
        for start, town, time, (users, worker) in zip(starts, towns, times, answers, strict=True):
            scene, ego, step = start.source
            past = tuple(tuple(pose) for pose in start.ego_pose[-_PAST:].double().tolist())
            situation = recognise(scene, ego, step, time, past, users, town.sizes)
            occupancy.append(self._frames(situation, situation.known, [users], np.array(past[-1:]), town))
            poses.append(start.ego_pose[-1:].to(self.device, torch.float32))
            memory.append(TrafficRow(situation=situation))
            worker.owner = weakref.ref(memory[-1])
        return WorldState(occupancy=torch.stack(occupancy), ego_pose=torch.stack(poses), memory=tuple(memory))

    def step(self, state: WorldState, trajectories: torch.Tensor) -> WorldState:
        """Drive along `trajectories` (b, f, 3), f frames, among the others.

        Raises:
            ActionError: wrong shape, or not finite.
            SceneError: SUMO failed.

        """
        rows: tuple[TrafficRow, ...] = state.memory
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
        occupancy, memory = [], []
        answers = self._own_pool().run(journeys)
        for row, town, journey, (frames, worker) in zip(rows, towns, journeys, answers, strict=True):
            known = (*row.situation.known, *row.came)
            came = (*row.came, *newcomers(known, frames))
            names = (*row.situation.known, *came)
            occupancy.append(self._frames(row.situation, names, frames, np.array(journey.ahead), town))
            memory.append(
                TrafficRow(situation=row.situation, driven=journey.driven + journey.ahead, came=came)
            )
            worker.owner = weakref.ref(memory[-1])
        return WorldState(
            occupancy=torch.stack(occupancy),
            ego_pose=torch.stack(ahead).to(self.device, torch.float32),
            memory=tuple(memory),
        )

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

    def _frames(
        self,
        situation: Situation,
        names: Sequence[str],
        users: Sequence[Users],
        poses: np.ndarray,
        town: LiveTown,
    ) -> torch.Tensor:
        """Draw (f, x, y, z) what stands around the ego at `poses` (f, 3). Row by row: the floats of a world do not
        depend on its neighbours.
        """
        scene, exclude = live_scene(situation, names, users, town.sizes)
        time = FRAME_SECONDS * torch.arange(len(poses), dtype=torch.float64)
        voxeliser = self._voxelisers.of(situation.scene).with_tracks(scene)
        return voxeliser.frames(torch.from_numpy(poses), time, torch.full((len(poses),), exclude))

    def _town(self, scene: Scene) -> LiveTown:
        """The files of the scene's town, written when it is first driven in."""
        key = " ".join(scene.attributes.get(name, "") for name in ("seed", "config", "mix", "events"))
        self._own_pool()
        if key not in self._towns:
            folder = Path(tempfile.mkdtemp(dir=self._folder))
            self._towns[key] = write_town(scene, folder)
            if len(self._towns) > _TOWNS:
                self._towns.popitem(last=False)[1].remove()
        self._towns.move_to_end(key)
        return self._towns[key]


def _end(process: int, pool: SumoPool, folder: Path) -> None:
    """End a world's workers and remove its folder, in the process whose they are."""
    if process == os.getpid():
        pool.close()
        shutil.rmtree(folder, ignore_errors=True)
