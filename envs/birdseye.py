"""The bird's-eye observation: the occupancy from above as an image of classes, channels first."""

from __future__ import annotations

import torch
from torch import Tensor

from occsora_sim.constants import constant
from occsora_sim.geometry import relative, to_world
from occsora_sim.grid import DRIVEABLE, NUM_CLASSES, Grid
from occsora_sim.scoring.driving import OFF_ROAD
from occsora_sim.scoring.footprint import ROAD_USERS, STATIC, obstacle_layers

CHANNELS: tuple[str, ...] = ("drivable", "off_road", "road_user", "static")
"""What each frame shows, a channel each; after those of all frames comes one of the route."""

ROUTE_HALF_WIDTH = 1.0
"""How far from the points of the route ahead its channel is set [m]; the points are 2 m apart."""

PIXEL = 0.8
"""Edge of a pixel of the aligned image [m], where whole voxels make one up."""

_DRIVABLE, _OFF_ROAD, _ROAD_USER, _STATIC = _BITS = (1, 2, 4, 8)


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
        now = relative(poses[:, :-1].double(), poses[:, -1:].double()).float()  # (b, f - 1, 3)
        points = to_world(grid.centres_xy(frames.device), now[:, :, None, None])  # (b, f - 1, x, y, 2)
        cell = ((points - constant(grid.lower[:2], frames.device)) / grid.voxel).floor().int()
        size = constant(grid.shape[:2], frames.device, torch.int32)
        inside = ((cell >= 0) & (cell < size)).all(dim=-1)
        at = (cell[..., 0] * grid.shape[1] + cell[..., 1]).masked_fill(~inside, 0).flatten(2).long()
        older = kinds[:, :-1].flatten(2).gather(2, at).view(inside.shape) * inside
        kinds = torch.cat((older, kinds[:, -1:]), dim=1)
    way = _route_mask(route, grid)
    if pool > 1:
        kinds = _any_of_squares(kinds, pool)
        way = _any_of_squares(way.to(torch.uint8), pool) > 0
    return _image(kinds, way)


def _kinds(frames: Tensor, grid: Grid) -> Tensor:
    """What each column (b, f, x, y) of frames shows: uint8, the sum of _BITS."""
    ground, tall = (
        constant(
            tuple(one * (label in ones) + two * (label in twos) for label in range(NUM_CLASSES + 1)),
            frames.device,
            torch.uint8,
        )
        for one, ones, two, twos in (
            (_DRIVABLE, (DRIVEABLE,), _OFF_ROAD, OFF_ROAD),
            (_ROAD_USER, ROAD_USERS, _STATIC, STATIC),
        )
    )
    kinds = ground[frames[..., grid.ground].long()]
    for layer in tall[frames[..., obstacle_layers(grid)].long()].unbind(-1):
        kinds = kinds | layer
    return kinds


def _any_of_squares(bits: Tensor, pool: int) -> Tensor:
    """(..., x, y) -> (..., x / pool, y / pool) uint8: the bits of all in each square."""
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
    centres = grid.centres_xy(route.device).to(route.dtype)
    x, y = centres[:, 0, 0], centres[0, :, 1]
    half = max(ROUTE_HALF_WIDTH, grid.voxel)
    near_x = (x[None, None] - route[..., :1]).abs() <= half  # (b, r, x)
    near_y = (y[None, None] - route[..., 1:]).abs() <= half  # (b, r, y)
    return torch.einsum("brx,bry->bxy", near_x.float(), near_y.float()) > 0
