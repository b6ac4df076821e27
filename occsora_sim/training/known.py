"""What is known of the future frames of windows: their history, compensated, and spoiled as models spoil it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from occsora_sim.geometry import relative
from occsora_sim.grid import FRAME_SECONDS, Grid
from occsora_sim.models.bodies import draw_bodies
from occsora_sim.models.columns import UNSEEN, ground_image, road_user_image, without_road_users
from occsora_sim.models.context import Context, build_context
from occsora_sim.models.motion import MotionEstimator, smooth_displacement
from occsora_sim.models.vehicle_motion import move_as_vehicles
from occsora_sim.models.walkers import stop_before, walk_on
from occsora_sim.models.warp import warp, warp_nearest
from occsora_sim.training.fraying import fray
from occsora_sim.training.windows import Windows

BLANK = 0.3
"""Share of the windows with forgotten ground in which all of it is; there alone a scene prompt decides everything."""


def aligned_images(labels: Tensor, poses: Tensor, grid: Grid, frames: int) -> Tensor:
    """Road-user images of the last `frames` frames, warped into the newest ego frame.

    labels (b, h, x, y, z), poses (b, h, 3) -> (b, frames, x, y, 2) uint8; older frames that do not exist repeat the
    oldest one.
    """
    h = labels.shape[1]
    newest = poses[:, -1:]
    images = []
    for k in range(frames):
        at = max(0, h - frames + k)
        image = road_user_image(labels[:, at])
        images.append(image if at == h - 1 else warp(image, poses[:, at], newest, grid, fill=0)[:, 0])
    return torch.stack(images, dim=1)


def window_context(
    windows: Windows,
    motion: MotionEstimator,
    grid: Grid,
    future: Sequence[int],
    *,
    generator: torch.Generator,
    route_dropout: float = 0.3,
    corruption: float = 0.0,
    fraying: float = 0.0,
) -> Context:
    """The context of the future frames `future` (0-based) of each window, from its history alone.

    `corruption` and `fraying` are the shares of windows whose known ground `forget` and `fray` spoil.
    """
    h = windows.history
    labels, poses = windows.labels[:, :h], windows.poses[:, :h]
    target = windows.poses[:, [h + k for k in future]]
    with torch.no_grad():
        images = aligned_images(labels, poses, grid, motion.frames)
        displacement = smooth_displacement(
            motion(images, ground_image(labels[:, -1], grid)).float(), images[:, -1]
        )
        own = road_user_image(labels[:, -motion.frames :])  # each in its own ego frame
        nowhere = torch.zeros(*own.shape[:4], 2, device=own.device)
        displacement, offset = walk_on(displacement, own, nowhere, poses[:, -motion.frames :], grid)
        after = relative(poses[:, -1:], windows.poses[:, h:])
        displacement = stop_before(displacement, images[:, -1], after, grid)
        displacement = move_as_vehicles(displacement, images[:, -1], grid, ego=after)[:, list(future)]
        bodies = draw_bodies(labels[:, -1], displacement, offset, poses[:, -1], target, grid)
        # As the record answers that a world begins with: of as near columns, the newest frame's. (What a resampler
        # would put right at edges is left as it is: it may be trained after the rest.)
        everywhere = torch.ones(*labels.shape[:4], dtype=torch.bool, device=labels.device)
        static = warp_nearest(without_road_users(labels).flip(1), everywhere, poses.flip(1), target, grid)
        forgotten = None
        if corruption > 0:
            forgotten, nobody = forget(len(labels), corruption, grid, generator)
            forgotten, nobody = (mask.to(labels.device) for mask in (forgotten, nobody))
            static = static.masked_fill(forgotten[:, None, :, :, None], UNSEEN)
        if fraying > 0:
            static = fray(static, target, fraying, grid, generator)
        route = windows.route.clone()
        dropped = torch.rand(len(route), generator=generator) < route_dropout
        route[dropped.to(route.device)] = math.nan
        known = build_context(
            static=static,
            last=bodies.rest,
            last_pose=poses[:, -1],
            last_image=warp(images[:, -1], poses[:, -1], target, grid, fill=0),
            displacement=displacement,
            target_pose=target,
            seconds=torch.tensor([(k + 1) * FRAME_SECONDS for k in future], device=labels.device),
            route=route,
            grid=grid,
            drawn=(bodies.labels, bodies.way),
        )
        return known if forgotten is None else without_known(known, forgotten & nobody)


def forget(count: int, share: float, grid: Grid, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """What to make unseen in a `share` of `count` windows, so that the models learn to draw much more than the thin
    strip that one chunk uncovers: everything beyond a random straight line, or everything at all (a start from
    nothing), in all frames alike.

    Returns:
        (count, x, y) bool, the forgotten columns; and (count, 1, 1) bool, whether nobody is remembered there either: in
        half of these windows, and wherever everything is forgotten. New ground has road users of its own, and a model
        that was always shown them would draw none.

    """
    nx, ny, _ = grid.shape
    chance = torch.rand(count, generator=generator)
    angle = torch.rand(count, generator=generator) * 2 * math.pi
    offset = torch.rand(count, generator=generator) * 1.2 - 0.2  # in half views
    nobody = torch.rand(count, generator=generator) < 0.5
    grid_x, grid_y = torch.meshgrid(torch.linspace(-1, 1, nx), torch.linspace(-1, 1, ny), indexing="ij")
    beyond = grid_x * angle.cos()[:, None, None] + grid_y * angle.sin()[:, None, None] > offset[:, None, None]
    blank = chance < share * BLANK
    beyond = (beyond | blank[:, None, None]) & (chance < share)[:, None, None]
    return beyond, (nobody | blank)[:, None, None]


def without_known(known: Context, columns: Tensor) -> Context:
    """`known` without road users in `columns` (b, x, y), which are unseen, of every frame; its route stays."""
    columns = columns[:, None]
    auxiliary = known.auxiliary.clone()
    auxiliary[:, :, :4] = auxiliary[:, :, :4].masked_fill(columns[:, :, None], 0.0)
    prior = known.prior.masked_fill(columns[..., None], UNSEEN)
    return replace(known, prior=prior, auxiliary=auxiliary)
