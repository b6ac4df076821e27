"""What a generated world knows about its next frames before any of it is drawn."""

from __future__ import annotations

import torch
from torch import Tensor

from occsora_sim.geometry import relative
from occsora_sim.grid import FRAME_SECONDS
from occsora_sim.models.anchor import draw_standing, hold_still
from occsora_sim.models.bodies import draw_bodies
from occsora_sim.models.columns import ground_image, is_dynamic, road_user_image
from occsora_sim.models.context import Context, build_context
from occsora_sim.models.motion import smooth_displacement
from occsora_sim.models.vehicle_motion import move_as_vehicles
from occsora_sim.models.walkers import landed, stop_before, walk_on
from occsora_sim.models.warp import warp
from occsora_sim.models.world_model import WorldModel
from occsora_sim.vehicle import Vehicle
from occsora_sim.worlds.memory import DiffusionMemory

GAP = 1.2
"""What vehicles of a drawn future keep from the one ahead, beside a voxel [m]: chunk after chunk, those that come to
touch would grow into one. Real ones keep 2 m and more in a queue."""


def foresee(
    model: WorldModel,
    memory: DiffusionMemory,
    poses: Tensor,
    generators: list[torch.Generator] | None,
    follow_route: bool,
    vehicle: Vehicle | None = None,
) -> tuple[Context, Tensor]:
    """What is known about the frames at `poses` (b, f, 3), and the offsets (b, f, x, y, 2) [m] of their small road
    users; who stands may set off where there are `generators` to draw it, and all mind the ego `vehicle`
    (None: the recording car).
    """
    grid, now = model.config.grid, memory.poses[:, -1]
    older = [
        warp(memory.images[:, k], memory.poses[:, k], now[:, None], grid, fill=0)[:, 0]
        for k in range(memory.images.shape[1] - 1)
    ]
    images = torch.stack([*older, memory.images[:, -1]], dim=1)
    levels = model.motion.levels(images, ground_image(memory.last, grid))
    displacement = model.motion.foretell(levels, images)
    displacement = smooth_displacement(displacement, images[:, -1])
    displacement, offset = walk_on(displacement, memory.images, memory.offsets, memory.poses, grid)
    if generators is not None and model.departures is not None:
        displacement = model.departures.draw(displacement, images[:, -1], levels, grid, generators)
    ego = relative(now[:, None], poses)
    displacement = stop_before(displacement, images[:, -1], ego, grid, vehicle)
    gap = 0.0 if generators is None else GAP
    displacement = move_as_vehicles(displacement, images[:, -1], grid, ego=ego, gap=gap, car=vehicle)
    displacement = hold_still(displacement)
    standing, others = draw_standing(memory.anchor, memory.last, now, displacement, poses, grid)
    bodies = draw_bodies(others, displacement, offset, now, poses, grid)
    stands = is_dynamic(standing)
    known = build_context(
        static=model.read(memory.record, poses),
        last=bodies.rest,
        last_pose=now,
        last_image=warp(memory.images[:, -1], now, poses, grid, fill=0),
        displacement=displacement,
        target_pose=poses,
        seconds=FRAME_SECONDS * torch.arange(1, poses.shape[1] + 1, device=poses.device),
        route=memory.route if follow_route else None,
        grid=grid,
        drawn=(torch.where(stands, standing, bodies.labels), bodies.way * ~stands.any(-1, keepdim=True)),
        offset=offset,
    )
    offsets = landed(road_user_image(bodies.rest), displacement + offset[:, None], now, poses, grid)
    return known, torch.where(is_dynamic(bodies.labels).any(-1, keepdim=True), bodies.offset, offsets)
