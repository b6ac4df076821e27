"""Scenes of both kinds and what draws them: whoever needs frames at poses and times need not know which it has."""

from __future__ import annotations

from typing import overload

import torch

from occsora_sim.grid import OCC3D, Grid
from occsora_sim.scenes.scene import Scene
from occsora_sim.scenes.voxel_scene import VoxelFrames, VoxelScene
from occsora_sim.scenes.voxeliser import Voxeliser

Recorded = Scene | VoxelScene
"""A scene of either kind. Both have name, dt, steps, attributes, the ego motions with their kinds, and `route`."""

Drawer = Voxeliser | VoxelFrames
"""What draws a scene: `frames(poses, times, exclude)`; and `displacement`, which a voxel sequence refuses."""


@overload
def drawer_of(scene: Scene, grid: Grid = ..., device: torch.device | str = ...) -> Voxeliser: ...


@overload
def drawer_of(scene: VoxelScene, grid: Grid = ..., device: torch.device | str = ...) -> VoxelFrames: ...


def drawer_of(scene: Recorded, grid: Grid = OCC3D, device: torch.device | str = "cpu") -> Drawer:
    """What draws `scene` in `grid` on `device`; making one costs a fraction of a second."""
    if isinstance(scene, VoxelScene):
        return VoxelFrames(scene, grid, device)
    return Voxeliser(scene, grid, device)
