"""What is known of the future frames of windows: their history, compensated, and spoiled as models spoil it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from occsora_sim.grid import FRAME_SECONDS, Grid
from occsora_sim.models.columns import UNSEEN, without_road_users
from occsora_sim.models.context import Context, build_context
from occsora_sim.models.warp import warp_nearest
from occsora_sim.training.fraying import fray
from occsora_sim.training.windows import Windows

BLANK = 0.3
"""Share of the windows with forgotten ground in which all of it is; there alone a scene prompt decides everything."""


def window_context(
    windows: Windows,
    grid: Grid,
    future: Sequence[int],
    *,
    generator: torch.Generator,
    route_dropout: float = 0.3,
    corruption: float = 0.0,
    fraying: float = 0.0,
) -> Context:
    """The context of the future frames `future` (0-based) of each window: of the ground from its history alone; the
    road users are where they were recorded, as in a world they are where its traffic model has taken them.

    `corruption` and `fraying` are the shares of windows whose known ground `forget` and `fray` spoil.
    """
    h = windows.history
    labels, poses = windows.labels[:, :h], windows.poses[:, :h]
    target = windows.poses[:, [h + k for k in future]]
    with torch.no_grad():
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
            users=windows.users,
            then=[windows.then[k] for k in future],
            pose=target,
            seconds=torch.tensor([(k + 1) * FRAME_SECONDS for k in future], device=labels.device),
            route=route,
            grid=grid,
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
