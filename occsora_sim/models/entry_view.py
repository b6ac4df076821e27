"""What decides who comes into view, as a coarse image from above in the ego frame."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from occsora_sim.geometry import relative
from occsora_sim.grid import (
    BARRIER,
    DRIVEABLE,
    DYNAMIC,
    FLAT,
    MANMADE,
    OTHER_FLAT,
    PEDESTRIAN,
    SIDEWALK,
    SMALL,
    TERRAIN,
    VEGETATION,
    Grid,
)
from occsora_sim.road_users import RoadUsers

UNSEEN = 255
"""Label of a column that no frame has shown yet."""

GROUND = (DRIVEABLE, OTHER_FLAT, SIDEWALK, TERRAIN, MANMADE, VEGETATION, BARRIER)
"""Labels of a ground image, beside UNSEEN."""

GROUPS = ("vehicle", "two wheels", "pedestrian")
"""Road users that move alike."""

POOL = 2
"""Columns along the edge of an image's cell."""

CHANNELS = len(GROUND) + 1 + 1 + 3 + 1 + len(GROUPS) + 4
"""Ground and unseen, new, place (inside the edge, x, y), route, road users by group, their velocity and heading."""

_ALONG, _ACROSS = 24, 4
"""Points of a box that are drawn; 18 m long ones still have one in each cell."""

_CLEARANCE = 5
"""Layers above the ground that must be free of obstacles where one can pass: 2 m. Tree crowns begin above."""

_SPEED, _EDGE = 10.0, 8.0  # [m/s], [m]; what the numbers are divided by


def ground_of(columns: Tensor, grid: Grid) -> Tensor:
    """What each column of labels (..., z) uint8 stands for in a ground image: (...) uint8.

    MANMADE, VEGETATION or BARRIER where one stands in the way, else the flat class, else an obstacle higher up; UNSEEN
    where there is none of them. For columns as codes: `ground_of(palette, grid)[codes]`.
    """
    low = columns[..., grid.ground + 1 : grid.ground + 1 + _CLEARANCE]
    out = torch.full_like(columns[..., 0], UNSEEN)
    for label in (BARRIER, VEGETATION, MANMADE):
        out = torch.where((columns == label).any(-1), label, out)
    for label in FLAT:
        out = torch.where((columns == label).any(-1), label, out)
    for label in (BARRIER, VEGETATION, MANMADE):
        out = torch.where((low == label).any(-1), label, out)
    return out


def group_of(label: Tensor) -> Tensor:
    """Index in GROUPS of road users' labels of any shape, int64; that of vehicles for what is none."""
    small = (label == SMALL[1]) | (label == SMALL[2])
    return torch.where(label == PEDESTRIAN, 2, small.long())


def kind_of(label: Tensor) -> Tensor:
    """Index in `grid.DYNAMIC` of labels of any shape, int64; 0 for others."""
    table = torch.zeros(256, dtype=torch.long, device=label.device)
    table[list(DYNAMIC)] = torch.arange(len(DYNAMIC), device=label.device)
    return table[label.int()]


def in_view(local: Tensor, grid: Grid) -> Tensor:
    """Whether points (..., 2 or more) [m] of the ego frame lie in the grid's square: (...) bool."""
    lower, upper = local.new_tensor(grid.lower[:2]), local.new_tensor(grid.upper[:2])
    return ((local[..., :2] >= lower) & (local[..., :2] < upper)).all(-1)


def vehicles_in_view(users: RoadUsers, pose: Tensor, grid: Grid) -> Tensor:
    """How many vehicles have their centre in view from the world poses (b, 3): (b,) float32."""
    local = relative(pose.double()[:, None], users.now)
    counted = users.valid & (group_of(users.label) == 0) & in_view(local, grid)
    return counted.sum(1).float()


def view_image(
    users: RoadUsers, ground: Tensor, pose: Tensor, new: Tensor, route: Tensor | None, grid: Grid, margin: int
) -> Tensor:
    """The network's input.

    Args:
        users: b worlds' road users.
        ground: (b, x, y) uint8, see `ground_of`.
        pose: (b, 3) world poses of the ego frames.
        new: (b, x, y) bool, columns that were not in view a frame ago.
        route: (b, x, y), 1 on the route; or None.
        grid: the voxels around the ego.
        margin: cells around the view, in which road users alone are shown.

    Returns:
        (b, CHANNELS, x / POOL + 2 margin, y / POOL + 2 margin) float32.

    """
    planes = [(ground == label) for label in GROUND] + [ground == UNSEEN, new]
    planes.append(torch.zeros_like(new) if route is None else route > 0)
    pooled = F.avg_pool2d(torch.stack(planes, dim=1).float(), POOL)
    pooled = F.pad(pooled, (margin,) * 4)
    around, place = _who(users, pose, grid, margin), _places(grid, margin, pose.device)
    place = place.expand(len(pose), *place.shape)
    return torch.cat((pooled, place, around), dim=1)


def _places(grid: Grid, margin: int, device: torch.device) -> Tensor:
    """Distance inside the edge of the view and x, y of the cells: (3, X, Y)."""
    step = POOL * grid.voxel
    axes = [
        (torch.arange(n // POOL + 2 * margin, device=device) - margin + 0.5) * step + low
        for n, low in zip(grid.shape[:2], grid.lower[:2], strict=True)
    ]
    x, y = torch.meshgrid(*axes, indexing="ij")
    low, up = grid.lower, grid.upper
    inside = torch.stack((x - low[0], up[0] - x, y - low[1], up[1] - y)).amin(0)
    return torch.stack(((inside / _EDGE).clamp(-1, 1), x / up[0], y / up[1]))


def _who(users: RoadUsers, pose: Tensor, grid: Grid, margin: int) -> Tensor:
    """Road users from above: group, velocity, cosine and sine of the heading: (b, len(GROUPS) + 4, X, Y)."""
    b, n = users.label.shape
    step = POOL * grid.voxel
    sides = [side // POOL + 2 * margin for side in grid.shape[:2]]
    local = relative(pose.double()[:, None], users.now).float()
    yaw = local[..., 2]
    cos, sin = yaw.cos(), yaw.sin()
    device = yaw.device
    along = ((torch.arange(_ALONG, device=device) + 0.5) / _ALONG - 0.5).repeat_interleave(_ACROSS)
    across = ((torch.arange(_ACROSS, device=device) + 0.5) / _ACROSS - 0.5).repeat(_ALONG)
    a, c = along * users.size[..., :1], across * users.size[..., 1:2]  # (b, n, points)
    x = local[..., :1] + cos[..., None] * a - sin[..., None] * c
    y = local[..., 1:2] + sin[..., None] * a + cos[..., None] * c
    i = torch.floor((x - grid.lower[0]) / step).long() + margin
    j = torch.floor((y - grid.lower[1]) / step).long() + margin
    inside = (i >= 0) & (i < sides[0]) & (j >= 0) & (j < sides[1]) & users.valid[..., None]
    cell = torch.where(inside, i * sides[1] + j, sides[0] * sides[1])
    slot = torch.arange(1, n + 1, device=device)[:, None].expand_as(cell)
    # The last slot wins a cell: a sum over the ones that share it would depend on the order of a GPU's additions.
    image = torch.zeros(b, sides[0] * sides[1] + 1, dtype=torch.long, device=device)
    image = image.scatter_reduce(1, cell.flatten(1), slot.flatten(1).expand(b, -1), "amax")[:, :-1]
    turned = pose[:, 2].float()[:, None]
    vx, vy = users.velocity.unbind(-1)
    ahead, left = turned.cos() * vx + turned.sin() * vy, turned.cos() * vy - turned.sin() * vx
    group = F.one_hot(group_of(users.label), len(GROUPS)).float()
    marks = torch.cat((group, torch.stack((ahead / _SPEED, left / _SPEED, cos, sin), dim=-1)), dim=-1)
    marks = F.pad(marks, (0, 0, 1, 0))  # slot 0 is nobody
    marks = marks.gather(1, image[..., None].expand(-1, -1, marks.shape[-1]))
    return marks.transpose(1, 2).reshape(b, -1, *sides)
