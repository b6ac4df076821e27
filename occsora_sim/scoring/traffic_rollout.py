"""Rollouts along recorded egos: the same way through the same traffic, in a world and in the recording."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from occsora_sim.errors import SceneError
from occsora_sim.geometry import relative
from occsora_sim.grid import FRAME_SECONDS, Grid
from occsora_sim.road_users import HISTORY
from occsora_sim.scenes.recorded import Recorded
from occsora_sim.scenes.scene import Scene
from occsora_sim.scenes.start import ego_poses, make_start
from occsora_sim.scenes.voxeliser import Voxeliser
from occsora_sim.scoring.traffic_log import GroundMap, TrafficLog, logs_of_states
from occsora_sim.worlds.protocol import World, WorldState

SHORTEST = 8
"""Frames after the start that a way needs."""


@dataclass(frozen=True, kw_only=True)
class Way:
    """A recorded ego motion to be driven again.

    Attributes:
        scene: the scene.
        group: the number of the scene among those asked for.
        ego: index of the ego motion.
        step: time step of the start.
        frames: after the start.
        ground: of the scene.

    """

    scene: Scene
    group: int
    ego: int
    step: int
    frames: int
    ground: GroundMap


def recorded_ways(scenes: Sequence[Recorded], count: int, frames: int, grid: Grid) -> list[Way]:
    """`count` ways of up to `frames` frames: of each scene in turn the expert ego that is recorded longest (of equals
    the one that drives furthest), from the beginning of its recording; fewer where there are fewer.

    Raises:
        SceneError: no scene with tracks has an expert ego that is recorded for long enough.

    """
    queues = []
    for group, scene in enumerate(scenes):
        if not isinstance(scene, Scene):
            continue  # a voxel sequence says nothing about who is who
        stride, offers = FRAME_SECONDS / scene.dt, []
        for ego, kind in enumerate(scene.ego_kind):
            valid = np.flatnonzero(scene.ego_valid[ego])
            if kind != "expert" or not len(valid):
                continue
            step = int(valid[0] + np.ceil((HISTORY - 1) * stride - 1e-6))
            length = min(frames, int((valid[-1] - step) / stride + 1e-6))
            if length >= SHORTEST:
                path = scene.ego_pose[ego, valid, :2]
                metres = float(np.linalg.norm(np.diff(path, axis=0), axis=1).sum())
                offers.append((-length, -metres, ego, step))
        queues.append((group, scene, sorted(offers)))
    turns = max((len(offers) for _, _, offers in queues), default=0)
    chosen = [
        (group, scene, *offers[turn])
        for turn in range(turns)
        for group, scene, offers in queues
        if turn < len(offers)
    ][:count]
    if not chosen:
        raise SceneError(
            f"traffic: none of the {len(scenes)} scenes has tracks and an expert ego that is recorded for "
            f"{(SHORTEST + HISTORY - 1) * FRAME_SECONDS:g} s; use longer scenes, or vector scenes in place of voxels"
        )
    ground = {group: GroundMap(scene, grid) for group, scene, *_ in chosen[: len(queues)]}
    return [
        Way(scene=scene, group=group, ego=ego, step=step, frames=-length, ground=ground[group])
        for group, scene, length, _, ego, step in chosen
    ]


def roll_ways(
    world: World, ways: Sequence[Way], seeds: Sequence[int], on_chunk: Callable[[], None] | None = None
) -> list[TrafficLog]:
    """The logs of the ways driven in a world, in one batch; the first frame of each is its start.

    Args:
        world: any world whose states carry road users.
        ways: to drive.
        seeds: one for each.
        on_chunk: called after each chunk.

    Raises:
        ConfigurationError: the world's states carry no road users.

    """
    logs = logs_of_states(_states(world, ways, seeds, on_chunk), world.grid)
    return [log.first(way.frames + 1) for log, way in zip(logs, ways, strict=True)]


def _states(
    world: World, ways: Sequence[Way], seeds: Sequence[int], on_chunk: Callable[[], None] | None
) -> Iterator[WorldState]:
    """The states of a reset and of every step after it. An ego whose way is over stands still."""
    frames = max(way.frames for way in ways)
    poses = []
    for way in ways:
        ahead = FRAME_SECONDS * torch.arange(frames + 1, dtype=torch.float64).clamp(max=way.frames)
        poses.append(ego_poses(way.scene, way.ego, way.step * way.scene.dt + ahead))
    pose = torch.stack(poses)
    drawers = {way.group: Voxeliser(way.scene, world.grid) for way in ways}
    starts = [
        make_start(way.scene, way.ego, way.step, world.grid, HISTORY, drawers[way.group]) for way in ways
    ]
    del drawers
    state = world.reset(starts, seeds)
    yield state
    chunk = min(world.frames_per_chunk, HISTORY)
    for begin in range(0, frames, chunk):
        trajectory = relative(pose[:, begin, None], pose[:, begin + 1 : begin + chunk + 1])
        state = world.step(state, trajectory.float())
        yield state
        if on_chunk:
            on_chunk()
