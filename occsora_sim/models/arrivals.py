"""Arrivals: road users who come into view, drawn from what `newcomers` expect.

Who is whole in view now and was not at the end of the chunk before arrives. That takes in new ground and known, those
who are driven up to and those who catch up: where somebody was before follows from where he is and how fast.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from occsora_sim.geometry import to_frame, to_world
from occsora_sim.grid import DRIVEABLE, DYNAMIC, FRAME_SECONDS, FREE, Grid
from occsora_sim.models.arrival import MARGIN, PACE, Arrival, against, draw_arrival
from occsora_sim.models.columns import is_dynamic, is_ground
from occsora_sim.models.newcomers import CELL, GROUPS, Newcomers, surroundings
from occsora_sim.models.patches import connected
from occsora_sim.models.vehicle_motion import near_ego

_RIM = 14.0
"""How far within the edge of what was in view it is asked who comes [m]; few get further in a chunk."""

_AHEAD = (8.0, 1.0)
"""What it keeps from the ego [m]."""

_MOST = 8.0
"""How many times as many vehicles as are expected may come where many are asked for."""

_ON_ROAD = 0.6
"""Share of a moving vehicle's columns that must lie on the road; who stands may be parked beside it."""


def without_uncarried(labels: Tensor, prior: Tensor) -> Tensor:
    """Drawn frames (n, x, y, z) uint8 with those road users alone that touch one whom the past lets expect (`prior`,
    the same shape): the rest is for `arrive`.
    """
    dynamic = is_dynamic(labels)
    cells, patch, _ = connected(dynamic.any(-1).byte())
    if not len(cells):
        return labels
    at = tuple(cells.unbind(1))
    told = is_dynamic(prior).any(-1)[at]
    whole = torch.zeros(len(cells), dtype=torch.bool, device=labels.device)
    whole[patch[told]] = True
    gone = torch.zeros(labels.shape[:3], dtype=torch.bool, device=labels.device)
    gone[at] = ~whole[patch]
    return torch.where(gone[..., None] & dynamic, FREE, labels)


@torch.no_grad()
def arrive(
    newcomers: Newcomers,
    labels: Tensor,
    route: Tensor,
    line: Tensor | None,
    before: Tensor,
    poses: Tensor,
    first: Tensor,
    vehicles: Tensor,
    generators: Sequence[torch.Generator],
    grid: Grid,
) -> tuple[Tensor, Tensor]:
    """A drawn chunk with those who have come into view.

    Args:
        newcomers: says who is expected.
        labels: (b, f, x, y, z) uint8, the chunk without them.
        route: (b, x, y) route mask of its last frame.
        line: (b, r, 2) the route itself, world points [m], NaN-padded: nobody comes towards the ego in its own lane;
            None: anybody may.
        before: (b, 3) world poses from which was seen who was there before.
        poses: (b, f, 3) world poses of the frames.
        first: (b,) bool, worlds of which nothing was seen before.
        vehicles: (b,) how many are asked for; NaN: open.
        generators: one a row.
        grid: the voxel grid.

    Returns:
        (b, f, x, y, z) uint8, and (b, f, x, y, 2) float32 [m], how far off the middles of their columns the small ones
        are.

    """
    last = labels[:, -1]
    hidden = _hidden(before, poses[:, -1], first, grid)
    around = surroundings(last, route)
    around = torch.cat((around[:, :-2], around[:, -2:] * ~hidden[:, None]), dim=1)
    expected = newcomers(around, hidden, vehicles)
    chance = expected.chance.sigmoid() * hidden[:, None]
    if not bool(vehicles.isnan().all()):
        chance = _as_asked(newcomers, chance, around, vehicles)
    out, offsets = labels.clone(), torch.zeros(*labels.shape[:4], 2, device=labels.device)
    centres = grid.centres_xy(labels.device)[None]
    # Each of a handful is looked at by itself: on the CPU, or a GPU would be asked for number after number.
    chance, expected, around = chance.cpu(), expected.cpu(), around.cpu()
    lanes = None if line is None else to_frame(line.cpu(), poses[:, -1:].cpu())
    seen_from, at, begins = before.cpu(), poses.cpu(), first.tolist()
    for row, generator in enumerate(generators):
        draw = torch.rand(chance.shape[1:], generator=generator, device=generator.device).cpu()
        hits = (draw < chance[row]).nonzero().tolist()
        if not hits:
            continue
        points = to_frame(to_world(centres, poses[row][:, None, None]), poses[row, -1])
        marks = torch.rand(len(hits), 6, generator=generator, device=generator.device).tolist()
        for (kind, i, j), mark in zip(hits, marks, strict=True):
            one = draw_arrival(newcomers, expected, around, row, (kind, i, j), mark, grid)
            if not begins[row] and _in_view_before(one, seen_from[row], at[row], grid):
                continue
            if lanes is not None and against(one, lanes[row]):
                continue
            for candidate in one.in_file():
                comes = _comes(candidate, seen_from[row], at[row], begins[row], grid)
                if comes and _paint(candidate, out[row], offsets[row], poses[row], points, grid):
                    break
    return out, offsets


def _as_asked(newcomers: Newcomers, chance: Tensor, around: Tensor, vehicles: Tensor) -> Tensor:
    """`chance` with that of vehicles raised or lowered so that, were nobody known yet, as many as are asked for would
    be expected in view.
    """
    nobody = torch.cat((around[:, :-2], torch.zeros_like(around[:, -2:])), dim=1)
    everywhere = torch.ones_like(around[:, 0], dtype=torch.bool)
    mine = newcomers.group == GROUPS.index("vehicle")
    total = newcomers(nobody, everywhere, vehicles).chance.sigmoid()[:, mine].sum((1, 2, 3))
    share = torch.where(vehicles.isnan(), 1.0, vehicles / total.clamp(min=0.1)).clamp(max=_MOST)
    return chance * torch.where(mine, share[:, None], 1.0)[:, :, None, None]


def _hidden(before: Tensor, now: Tensor, first: Tensor, grid: Grid) -> Tensor:
    """Cells (b, x / CELL, y / CELL) bool within _RIM of what was not in view before."""
    step = CELL * grid.voxel
    lower, upper = now.new_tensor(grid.lower[:2]), now.new_tensor(grid.upper[:2])
    nx, ny = (side // CELL for side in grid.shape[:2])
    x = lower[0] + step * (torch.arange(nx, device=now.device) + 0.5)
    y = lower[1] + step * (torch.arange(ny, device=now.device) + 0.5)
    points = torch.stack(torch.meshgrid(x, y, indexing="ij"), dim=-1)[None]
    points = to_frame(to_world(points, now[:, None, None]), before[:, None, None])
    new = ~((points >= lower) & (points < upper)).all(-1)
    reach = round(_RIM / step)
    # The rim of the view counts even where nothing is new: somebody may come from outside.
    new = F.pad(new[:, None].float(), (1, 1, 1, 1), value=1.0)
    near = F.max_pool2d(new, 2 * reach + 1, 1, reach)[:, 0, 1:-1, 1:-1] > 0
    return near | first[:, None, None]


def _in_view(points: Tensor, grid: Grid) -> bool:
    lower, upper = points.new_tensor(grid.lower[:2]), points.new_tensor(grid.upper[:2])
    return bool(((points >= lower) & (points < upper)).all())


def _in_view_before(one: Arrival, before: Tensor, poses: Tensor, grid: Grid) -> bool:
    """Whether it was whole in view when the chunk (poses (f, 3)) began, seen from `before` (3,)."""
    then = one.corners(len(poses) * FRAME_SECONDS)
    return _in_view(to_frame(to_world(then, poses[-1]), before), grid)


def _comes(one: Arrival, before: Tensor, poses: Tensor, first: bool, grid: Grid) -> bool:
    """Whether it is whole in view in the last frame, was not before, and stays clear of the ego."""
    f = len(poses)
    if not _in_view(one.corners(0.0), grid) or (not first and _in_view_before(one, before, poses, grid)):
        return False
    for k in range(f):
        points = to_world(one.corners((f - 1 - k) * FRAME_SECONDS), poses[-1])
        if near_ego(points, poses[k], _AHEAD).any():
            return False
    return True


def _paint(one: Arrival, labels: Tensor, offsets: Tensor, poses: Tensor, points: Tensor, grid: Grid) -> bool:
    """Put it into the frames (f, x, y, z) of a chunk, where it can be in all of them. `points` (f, x, y, 2) are the
    middles of their columns in the last frame. False: others leave it no room, and beside them there may be some;
    True: it is there, or walls or the ground forbid it.
    """
    f = len(poses)
    ago = FRAME_SECONDS * torch.arange(f - 1, -1, -1, device=poses.device)[:, None]
    places = one.place.to(poses) - ago * one.velocity.to(poses)
    columns = _columns(one, places, points, (0.0, 0.0))
    if one.small:
        _at_least_one(columns, to_frame(to_world(places, poses[-1:]), poses), grid)
    around = _columns(one, places, points, (PACE, PACE) if one.small else MARGIN)
    if (is_dynamic(labels).any(-1) & (around | columns)).any():
        return False
    frame, i, j = columns.nonzero().unbind(1)
    here = labels[frame, i, j]  # (n, z)
    ground = is_ground(here)
    level = int(ground.any(0).byte().argmax()) if bool(ground.any()) else grid.ground
    body = slice(level + 1, level + 1 + one.height)
    if (here[:, body] != FREE).any():
        return True
    moves = bool(one.velocity.any())
    if not one.small and moves and float((here == DRIVEABLE).any(-1).float().mean()) < _ON_ROAD:
        return True
    labels[frame, i, j, body] = DYNAMIC[one.kind]
    if one.small:
        middles = to_frame(to_world(places, poses[-1:]), poses)
        centres = grid.centres_xy(labels.device)
        for k in range(f):
            mine = columns[k]
            offsets[k][mine] = middles[k] - centres[mine].mean(0)
    return True


def _columns(one: Arrival, places: Tensor, points: Tensor, more: tuple[float, float]) -> Tensor:
    """Columns (f, x, y) bool whose middles `points` (f, x, y, 2) lie in its box at `places` (f, 2), each side longer by
    twice `more` [m].
    """
    c, s = math.cos(one.heading), math.sin(one.heading)
    dx, dy = (points - places[:, None, None]).unbind(-1)
    along, across = c * dx + s * dy, c * dy - s * dx
    return (along.abs() <= one.size[0] / 2 + more[0]) & (across.abs() <= one.size[1] / 2 + more[1])


def _at_least_one(columns: Tensor, middles: Tensor, grid: Grid) -> None:
    """Mark the column that holds each of `middles` (f, 2), where no column of its frame is marked."""
    cells = torch.floor((middles - middles.new_tensor(grid.lower[:2])) / grid.voxel).long().tolist()
    for frame, (i, j) in zip(columns, cells, strict=True):
        if 0 <= i < grid.shape[0] and 0 <= j < grid.shape[1] and not frame.any():
            frame[i, j] = True
