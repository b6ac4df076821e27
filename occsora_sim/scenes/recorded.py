"""Scenes of both kinds and what draws them: whoever needs frames at poses and times need not know which it has."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Literal, get_args, overload

import numpy as np
import torch

from occsora_sim.errors import SceneError
from occsora_sim.grid import OCC3D, Grid
from occsora_sim.scenes.scene import Scene
from occsora_sim.scenes.voxel_scene import VoxelFrames, VoxelScene
from occsora_sim.scenes.voxeliser import Voxeliser

Recorded = Scene | VoxelScene
"""A scene of either kind. Both have name, dt, steps, attributes, the ego motions with their kinds, and `route`."""

EgoChoice = Literal["any", "recorder"]
"""Whose motions to use: any vehicle's that drives long enough, or those of the one that recorded the scene alone."""

EGO_CHOICES: tuple[str, ...] = get_args(EgoChoice)

Drawer = Voxeliser | VoxelFrames
"""What draws a scene: `frames(poses, times, exclude)`; and `road_users`, which a voxel sequence refuses."""

GENERATED = "generated"
LIVE_TRAFFIC = "live traffic"
RECORDED_TOWN = "recorded town"
RECORDED_STREET = "recorded street"
"""What a world shows, in words: drawn by the model; SUMO that reacts; a recording of SUMO; a recording of a street."""


def recorded_words(scenes: Iterable[Recorded]) -> str:
    """What the recording of `scenes` is called: RECORDED_TOWN, RECORDED_STREET, or both."""
    towns = {scene.attributes.get("source") == "traffic" for scene in scenes}
    words = {True: RECORDED_TOWN, False: RECORDED_STREET}
    return " and ".join(words[is_town] for is_town in sorted(towns, reverse=True))


@overload
def drawer_of(scene: Scene, grid: Grid = ..., device: torch.device | str = ...) -> Voxeliser: ...


@overload
def drawer_of(scene: VoxelScene, grid: Grid = ..., device: torch.device | str = ...) -> VoxelFrames: ...


def drawer_of(scene: Recorded, grid: Grid = OCC3D, device: torch.device | str = "cpu") -> Drawer:
    """What draws `scene` in `grid` on `device`; making one costs a fraction of a second."""
    if isinstance(scene, VoxelScene):
        return VoxelFrames(scene, grid, device)
    return Voxeliser(scene, grid, device)


def with_egos(scene: Recorded, ego: EgoChoice) -> Recorded:
    """The scene with the ego motions that were chosen.

    Raises:
        SceneError: no vehicle recorded it.

    """
    if ego == "any" or isinstance(scene, VoxelScene):
        return scene
    if scene.attributes.get("source") != "scenarionet" or not len(scene.ego_kind):
        raise SceneError(
            f"scene {scene.name}: it was simulated, no vehicle recorded it; give logs, or take any vehicle as the ego"
        )
    route = scene.route(0)  # a log's recording car comes first
    return replace(
        scene,
        ego_pose=scene.ego_pose[:1],
        ego_valid=scene.ego_valid[:1],
        ego_track=scene.ego_track[:1],
        ego_kind=scene.ego_kind[:1],
        route_points=route,
        route_offsets=np.array([0, len(route)]),
    )


def drawers_of(
    scenes: Sequence[Recorded], grid: Grid = OCC3D, device: torch.device | str = "cpu", workers: int = 0
) -> list[Drawer]:
    """What draws each of `scenes`, made by so many processes (0: by this one); these want the CPU as `device`."""
    if not workers:
        return [drawer_of(scene, grid, device) for scene in scenes]
    before = torch.multiprocessing.get_sharing_strategy()
    torch.multiprocessing.set_sharing_strategy(
        "file_system"
    )  # the other way keeps a file open for each tensor
    try:
        context = torch.multiprocessing.get_context("fork")
        with ProcessPoolExecutor(workers, mp_context=context, initializer=_alone) as pool:
            return list(pool.map(partial(drawer_of, grid=grid, device=device), scenes))
    finally:
        torch.multiprocessing.set_sharing_strategy(before)


def _alone() -> None:
    """In a process beside others: one thread, and tensors handed on as the process that began it reads them."""
    torch.set_num_threads(1)
    torch.multiprocessing.set_sharing_strategy("file_system")
