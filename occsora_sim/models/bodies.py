"""Small road users as bodies: a pedestrian is a disc, a bicycle or motorcycle a box, each at its own place.

A person fills one to four columns, and which ones hangs on centimetres: carried column by column, the outline of one
instant is right at no other. So where a small road user will be (`walkers`, finer than a voxel) a body of its class's
size is drawn anew, by the rule that fills voxels everywhere: every column whose centre it holds, and always the one
that holds its own centre.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from occsora_sim.geometry import relative, rotate, to_world
from occsora_sim.grid import BICYCLE, FREE, MOTORCYCLE, PEDESTRIAN, SMALL, Grid
from occsora_sim.models.columns import is_dynamic
from occsora_sim.models.motion import small_labels
from occsora_sim.models.patches import connected, mean_of, rectangles

_SIZE = {BICYCLE: (1.8, 0.6), MOTORCYCLE: (2.2, 0.8), PEDESTRIAN: (0.7, 0.7)}
"""Length and width, or diameter [m]. The means of the training towns are 1.76 x 0.60, 2.25 x 0.81, and 0.59 x 0.61 m, a
square of the disc's area."""

_MOST = {BICYCLE: 13, MOTORCYCLE: 22, PEDESTRIAN: 4}
"""More columns than these are several in one."""

_HEADS = 0.5
"""Who goes further than this until the last instant heads where it goes [m]; others as their columns lie."""

_REACH = 4
"""How many columns a body reaches from the one that holds its centre."""


@dataclass(frozen=True, kw_only=True)
class Bodies:
    """Small road users drawn into f future frames of b worlds.

    Attributes:
        labels: (b, f, x, y, z) uint8 of them alone, FREE elsewhere.
        way: (b, f, x, y, 2) float32 [m], how far they have come, in the axes of each frame.
        offset: (b, f, x, y, 2) float32 [m], how far the middle of all its columns is from where each one really is.
        rest: (b, x, y, z) uint8, the frame that they were drawn from, without them.

    """

    labels: Tensor
    way: Tensor
    offset: Tensor
    rest: Tensor


def draw_bodies(
    labels: Tensor, displacement: Tensor, offset: Tensor, pose: Tensor, target_pose: Tensor, grid: Grid
) -> Bodies:
    """Draw the small road users of a frame where they will be.

    Those that the edge of the view cuts, or that are several in one, are left in `Bodies.rest`.

    Args:
        labels: (b, x, y, z) uint8, the newest frame.
        displacement: (b, f, x, y, 2) [m] until each future instant, in its axes.
        offset: (b, x, y, 2) [m], how far off the middles of their columns the frame's small road users are.
        pose: (b, 3) its world pose.
        target_pose: (b, f, 3) world poses of the ego at the future instants.
        grid: the voxel grid.

    """
    (b, f), (nx, ny, nz) = target_pose.shape[:2], grid.shape
    out = torch.full((b, f, nx, ny, nz), FREE, dtype=torch.uint8, device=labels.device)
    way, off = (torch.zeros(b, f, nx, ny, 2, device=labels.device) for _ in range(2))
    image = (labels * is_dynamic(labels)).amax(dim=-1)
    image = image * (image[..., None] == small_labels(image.device)).any(-1)
    cells, patch, _ = connected(image)
    roots, number = patch.unique(return_inverse=True)
    count = torch.bincount(number, minlength=len(roots))
    kind = image[tuple(cells[roots].unbind(1))]  # (m,)
    rim = cells.new_tensor((nx - 1, ny - 1))
    cut = mean_of(((cells[:, 1:] == 0) | (cells[:, 1:] == rim)).any(dim=1).float(), number, count) > 0
    most = torch.zeros(256, dtype=torch.long, device=labels.device)
    most[list(SMALL)] = most.new_tensor([_MOST[label] for label in SMALL])
    whole = ~cut & (count <= most[kind.int()])  # (m,)
    mine = cells[whole[number]]
    if not len(mine):
        return Bodies(labels=out, way=way, offset=off, rest=labels)
    rest = labels.clone()
    columns = rest[tuple(mine.unbind(1))]
    rest[tuple(mine.unbind(1))] = torch.where(is_dynamic(columns), FREE, columns)

    number = (whole.cumsum(0) - 1)[number[whole[number]]]
    count, kind = count[whole], kind[whole]
    row, i, j = mine.unbind(1)
    place = grid.centres_xy(labels.device)[i, j]
    middle = mean_of(place + offset[row, i, j].float(), number, count)  # (m, 2)
    shift = mean_of(displacement[row, :, i, j], number, count)  # (m, f, 2)
    _, _, axis = rectangles(place.double(), number, count, grid.voxel)
    heading = _heading(shift, axis.float())
    body = _column(columns, number, count, kind)  # (m, z)
    world = cells[roots][whole][:, 0]
    here = relative(target_pose, pose[:, None])[world]  # (m, f, 3): the frame seen from the targets
    centre = to_world(middle[:, None] + shift, here)  # (m, f, 2)
    which, frame, x, y = _filled(centre, heading + here[..., 2], kind, grid)
    at = (world[which], frame, x, y)
    last = torch.full((b, f, nx, ny), -1, dtype=torch.long, device=labels.device)
    last.view(-1).scatter_reduce_(0, _flat(at, last.shape), which, reduce="amax")
    won = last[at] == which  # where two meet, the later one is drawn, whatever the order of writing
    which, frame, x, y = (part[won] for part in (which, frame, x, y))
    at = (world[which], frame, x, y)
    out[at] = body[which]
    way[at] = rotate(shift, here[..., 2])[which, frame]
    owner = which * f + frame
    many = torch.bincount(owner, minlength=len(middle) * f)
    filled = mean_of(grid.centres_xy(labels.device)[x, y], owner, many.clamp(min=1))
    off[at] = (centre.flatten(0, 1) - filled)[owner]
    return Bodies(labels=out, way=way, offset=off, rest=rest)


def _flat(at: tuple[Tensor, ...], shape: torch.Size) -> Tensor:
    """Indices `at` (n,) along each axis as indices (n,) into the flattened tensor of a shape."""
    flat = torch.zeros_like(at[0])
    for index, side in zip(at, shape, strict=True):
        flat = flat * side + index
    return flat


def _heading(shift: Tensor, axis: Tensor) -> Tensor:
    """Where bodies head at each instant, (m, f) [rad]: where they go (`shift` (m, f, 2)), or along `axis` (m,)."""
    before = torch.cat((torch.zeros_like(shift[:, :1]), shift[:, :-1]), dim=1)
    step = shift - before
    goes = (shift[:, -1].norm(dim=-1) > _HEADS)[:, None] & (step.norm(dim=-1) > 0)
    return torch.where(goes, torch.atan2(step[..., 1], step[..., 0]), axis[:, None])


def _column(columns: Tensor, number: Tensor, count: Tensor, kind: Tensor) -> Tensor:
    """The column (m, z) uint8 of each body: the voxels that at least half of its `columns` (k, z) fill."""
    share = mean_of(is_dynamic(columns).float(), number, count)
    return torch.where(share >= 0.5, kind[:, None], torch.full_like(kind, FREE)[:, None])


def _filled(centre: Tensor, heading: Tensor, kind: Tensor, grid: Grid) -> tuple[Tensor, ...]:
    """Columns that bodies with their centres at (m, f, 2) [m] and `heading` (m, f) fill: the body, the frame, x, y."""
    size = centre.new_ones(256, 2)
    for label, sides in _SIZE.items():
        size[label] = centre.new_tensor(sides)
    half = size[kind.int()][:, None, None, None] / 2  # (m, 1, 1, 1, 2)
    own = torch.floor((centre - centre.new_tensor(grid.lower[:2])) / grid.voxel).long()
    reach = torch.arange(-_REACH, _REACH + 1, device=centre.device)
    x, y = own[..., :1] + reach, own[..., 1:] + reach  # (m, f, w)
    dx = ((x + 0.5) * grid.voxel + grid.lower[0] - centre[..., :1])[..., :, None]
    dy = ((y + 0.5) * grid.voxel + grid.lower[1] - centre[..., 1:])[..., None, :]
    c, s = torch.cos(heading)[..., None, None], torch.sin(heading)[..., None, None]
    along, across = c * dx + s * dy, c * dy - s * dx
    box = (along.abs() < half[..., 0]) & (across.abs() < half[..., 1])
    inside = torch.where((kind == PEDESTRIAN)[:, None, None, None], dx**2 + dy**2 < half[..., 0] ** 2, box)
    inside[..., _REACH, _REACH] = True
    inside &= ((x >= 0) & (x < grid.shape[0]))[..., :, None] & ((y >= 0) & (y < grid.shape[1]))[..., None, :]
    which, frame, i, j = inside.nonzero().unbind(1)
    return which, frame, x[which, frame, i], y[which, frame, j]
