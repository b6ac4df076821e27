"""The bird's-eye observation: the occupancy from above as an image of classes, channels first."""

from __future__ import annotations

from functools import lru_cache, reduce

import torch
import torch.nn.functional as F
from torch import Tensor

from occsora_sim.constants import constant
from occsora_sim.geometry import relative
from occsora_sim.grid import DRIVEABLE, NUM_CLASSES, Grid
from occsora_sim.scoring.driving import OFF_ROAD
from occsora_sim.scoring.footprint import ROAD_USERS, STATIC, obstacle_layers

CHANNELS: tuple[str, ...] = ("drivable", "off_road", "road_user", "static")
"""What each frame shows, a channel each; after those of all frames comes one of the route."""

ROUTE_HALF_WIDTH = 1.0
"""How far from the points of the route ahead its channel is set [m]; the points are 2 m apart."""

PIXEL = 0.8
"""Edge of a pixel of the aligned image [m], where whole voxels make one up."""

_BITS = (1, 2, 4, 8)  # of CHANNELS, in one number


def birdseye_channels(frames: int) -> int:
    """Channels of the image of `frames` frames."""
    return len(CHANNELS) * frames + 1


def aligned_size(grid: Grid) -> tuple[int, int]:
    """Pixels of the aligned image along x and y."""
    pool = _pool(grid)
    return grid.shape[0] // pool, grid.shape[1] // pool


def birdseye_image(frames: Tensor, route: Tensor, grid: Grid) -> Tensor:
    """Draw what is on the ground, what stands at the height of a car, and where to go.

    A road user or static obstacle counts at the heights that a car can hit; the ground is that of the lowest layer
    that holds z = 0.

    Args:
        frames: (b, f, x, y, z) uint8 labels.
        route: (b, r, 2) the route ahead [m], in the newest frame.
        grid: where the voxels are.

    Returns:
        (b, 4 f + 1, x, y) uint8, 0 or 255: the CHANNELS of each frame, oldest first, then the route. Row 0 is
        furthest behind, column 0 furthest right.

    """
    return _image(_kinds(frames, grid), _route_mask(route, grid))


def aligned_image(frames: Tensor, poses: Tensor, route: Tensor, grid: Grid) -> Tensor:
    """As `birdseye_image`, all frames seen from the newest pose, a pixel PIXEL wide: what any of its voxels shows.

    Of older frames the voxel is taken that holds the centre of the newest frame's; what lies outside them is 0.

    Args:
        frames: (b, f, x, y, z) uint8 labels, each in its own ego frame.
        poses: (b, f, 3) their world poses.
        route: (b, r, 2) the route ahead [m], in the newest frame.
        grid: where the voxels are.

    Returns:
        (b, 4 f + 1, `aligned_size`) uint8, 0 or 255.

    """
    kinds, pool = _kinds(frames, grid), _pool(grid)
    if frames.shape[1] > 1:
        now = relative(poses[:, :-1].double(), poses[:, -1:].double())  # (b, f - 1, 3)
        kinds = torch.cat((_seen_from(now, kinds[:, :-1], grid), kinds[:, -1:]), dim=1)
    way = _route_mask(route, grid)
    if pool > 1:
        kinds, way = _any_of_squares(kinds, pool), _any_of_squares(way, pool)
    return _image(kinds, way)


def _kinds(frames: Tensor, grid: Grid) -> Tensor:
    """What each column (b, f, x, y) of frames shows: uint8, the sum of _BITS."""
    one = constant(1, frames.device, torch.int32)
    flat = tuple(1 * (label == DRIVEABLE) + 2 * (label in OFF_ROAD) for label in range(NUM_CLASSES + 1))
    kinds = constant(flat, frames.device, torch.uint8)[frames[..., grid.ground].long()]
    layers = frames[..., obstacle_layers(grid)].unbind(-1)
    tall = reduce(torch.bitwise_or, [torch.bitwise_left_shift(one, layer.int()) for layer in layers])
    for wanted, bit in ((ROAD_USERS, 4), (STATIC, 8)):  # each label is a bit of `tall`
        kinds = kinds.add((tall & sum(1 << label for label in wanted)) != 0, alpha=bit)
    return kinds


def _seen_from(now: Tensor, kinds: Tensor, grid: Grid) -> Tensor:
    """Columns (b, f, x, y) uint8 seen from poses (b, f, 3) in their frames: the one that holds the centre of each of
    the new columns, 0 where that lies outside.
    """
    x, y = grid.shape[:2]
    along, across = _axes(grid, now.device)
    cos, sin = now[..., 2:].cos(), now[..., 2:].sin()
    rows = (
        cos * along + now[..., :1] - grid.lower[0]
    ) / grid.voxel + 1  # of a canvas with a border of one column
    columns = (sin * along + now[..., 1:2] - grid.lower[1]) / grid.voxel + 1
    rows, aside = rows.float()[..., None], (sin * across / grid.voxel).float()[..., None, :]
    columns, ahead = columns.float()[..., None], (cos * across / grid.voxel).float()[..., None, :]
    at = (rows - aside).clamp(0, x + 1).long() * (y + 2) + (columns + ahead).clamp(0, y + 1).long()
    return F.pad(kinds, (1, 1, 1, 1)).flatten(2).gather(2, at.flatten(2)).view_as(kinds)


@lru_cache(maxsize=32)
def _axes(grid: Grid, device: torch.device) -> tuple[Tensor, Tensor]:
    """Centres of the columns along x and along y [m], float64. They are shared: nobody may write into them."""
    centres = grid.centres_xy().double()
    return centres[:, 0, 0].to(device), centres[0, :, 1].to(device)


def _any_of_squares(bits: Tensor, pool: int) -> Tensor:
    """(..., x, y) -> (..., x / pool, y / pool), whole numbers or truth values: the bits of all in each square."""
    out = bits[..., ::pool, ::pool]
    for k in range(1, pool * pool):
        out = out | bits[..., k // pool :: pool, k % pool :: pool]
    return out


def _image(kinds: Tensor, way: Tensor) -> Tensor:
    """Channels of 0 and 255 from what the columns (b, f, x, y) show, and from the way's mask (b, x, y)."""
    bits = constant(_BITS, kinds.device, torch.uint8).view(-1, 1, 1)
    shown = (kinds[:, :, None] & bits).flatten(1, 2) > 0
    return torch.cat((shown, way[:, None]), dim=1).to(torch.uint8) * 255


def _pool(grid: Grid) -> int:
    """Voxels along the edge of a pixel of the aligned image."""
    pool = max(1, round(PIXEL / grid.voxel))
    return pool if all(edge % pool == 0 for edge in grid.shape[:2]) else 1


def _route_mask(route: Tensor, grid: Grid) -> Tensor:
    """Voxel columns (b, x, y) bool within ROUTE_HALF_WIDTH of a point of `route` (b, r, 2), along each axis."""
    x, y = (axis.to(route.dtype) for axis in _axes(grid, route.device))
    half = max(ROUTE_HALF_WIDTH, grid.voxel)
    near_x = (x[None, None] - route[..., :1]).abs() <= half  # (b, r, x)
    near_y = (y[None, None] - route[..., 1:]).abs() <= half  # (b, r, y)
    return torch.einsum("brx,bry->bxy", near_x.float(), near_y.float()) > 0
