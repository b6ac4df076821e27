"""The bird's-eye observation: the occupancy from above as an image of classes, channels first."""

from __future__ import annotations

import torch

from occsora_sim.grid import DRIVEABLE, Grid, class_mask
from occsora_sim.scoring.driving import OFF_ROAD
from occsora_sim.scoring.footprint import ROAD_USERS, STATIC, obstacle_layers

CHANNELS: tuple[str, ...] = ("drivable", "off_road", "road_user", "static")
"""What each frame shows, a channel each; after those of all frames comes one of the route."""

ROUTE_HALF_WIDTH = 1.0
"""How far from the points of the route ahead its channel is set [m]; the points are 2 m apart."""


def birdseye_channels(frames: int) -> int:
    """Channels of the image of `frames` frames."""
    return len(CHANNELS) * frames + 1


def birdseye_image(frames: torch.Tensor, route: torch.Tensor, grid: Grid) -> torch.Tensor:
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
    ground = frames[..., grid.ground].long()  # (b, f, x, y)
    tall = frames[..., obstacle_layers(grid)].long()
    device = frames.device
    parts = (
        class_mask((DRIVEABLE,), device)[ground],
        class_mask(OFF_ROAD, device)[ground],
        class_mask(ROAD_USERS, device)[tall].any(dim=-1),
        class_mask(STATIC, device)[tall].any(dim=-1),
    )
    image = torch.stack(parts, dim=2).flatten(1, 2)  # (b, f * 4, x, y)
    return torch.cat((image, _route_mask(route, grid)[:, None]), dim=1).to(torch.uint8) * 255


def _route_mask(route: torch.Tensor, grid: Grid) -> torch.Tensor:
    """Voxel columns (b, x, y) bool within ROUTE_HALF_WIDTH of a point of `route` (b, r, 2), along each axis."""
    centres = grid.centres_xy(route.device).to(route.dtype)
    x, y = centres[:, 0, 0], centres[0, :, 1]
    half = max(ROUTE_HALF_WIDTH, grid.voxel)
    near_x = (x[None, None] - route[..., :1]).abs() <= half  # (b, r, x)
    near_y = (y[None, None] - route[..., 1:]).abs() <= half  # (b, r, y)
    return torch.einsum("brx,bry->bxy", near_x.float(), near_y.float()) > 0
