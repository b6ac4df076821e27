"""What decides who comes into view, as a coarse image from above in the ego frame."""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from occsora_sim.constants import constant, span
from occsora_sim.geometry import relative
from occsora_sim.grid import (
    BARRIER,
    DRIVEABLE,
    DYNAMIC,
    FLAT,
    FRAME_SECONDS,
    MANMADE,
    OTHER_FLAT,
    PEDESTRIAN,
    SIDEWALK,
    SMALL,
    TERRAIN,
    VEGETATION,
    Grid,
)
from occsora_sim.models.one_hot import one_hot
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


_RANKS = (UNSEEN, BARRIER, VEGETATION, MANMADE, *FLAT, BARRIER, VEGETATION, MANMADE)
"""What a column stands for, the highest rank that one of its voxels has: obstacles high up, the ground, obstacles that
are in the way."""


def ground_of(columns: Tensor, grid: Grid) -> Tensor:
    """What each column of labels (..., z) uint8 stands for in a ground image: (...) uint8.

    MANMADE, VEGETATION or BARRIER where one stands in the way, else the flat class, else an obstacle higher up; UNSEEN
    where there is none of them. For columns as codes: `ground_of(palette, grid)[codes]`.
    """
    high, flat = 1, 4 + len(FLAT)  # where in _RANKS obstacles high up begin, and where the ground ends
    low = slice(grid.ground + 1, grid.ground + 1 + _CLEARANCE)
    anywhere = _rank(columns, high, flat).amax(-1)
    in_the_way = _rank(columns[..., low], flat, len(_RANKS)).amax(-1)
    rank = torch.maximum(anywhere, in_the_way)
    return constant(_RANKS, columns.device, torch.uint8).index_select(0, rank.flatten()).view(rank.shape)


def _rank(columns: Tensor, first: int, end: int) -> Tensor:
    """Where voxels' labels stand in _RANKS between `first` and `end`, int32; 0: nowhere."""
    ranks = {_RANKS[rank]: rank for rank in range(first, end)}
    table = constant(tuple(ranks.get(label, 0) for label in range(256)), columns.device, torch.int32)
    return table.index_select(0, columns.int().flatten()).view(columns.shape)


_GROUP_OF = tuple(2 if label == PEDESTRIAN else int(label in SMALL) for label in range(256))
_KIND_OF = tuple(DYNAMIC.index(label) if label in DYNAMIC else 0 for label in range(256))


def group_of(label: Tensor) -> Tensor:
    """Index in GROUPS of road users' labels of any shape, int64; that of vehicles for what is none."""
    return constant(_GROUP_OF, label.device, torch.int64)[label.int()]


def kind_of(label: Tensor) -> Tensor:
    """Index in `grid.DYNAMIC` of labels of any shape, int64; 0 for others."""
    return constant(_KIND_OF, label.device, torch.int64)[label.int()]


def in_view(local: Tensor, grid: Grid) -> Tensor:
    """Whether points (..., 2 or more) [m] of the ego frame lie in the grid's square: (...) bool."""
    lower, upper = (constant(side[:2], local.device, local.dtype) for side in (grid.lower, grid.upper))
    return ((local[..., :2] >= lower) & (local[..., :2] < upper)).all(-1)


def vehicles_in_view(users: RoadUsers, pose: Tensor, grid: Grid) -> Tensor:
    """How many vehicles have their centre in view from the world poses (b, 3): (b,) float32."""
    return vehicles_at(users, in_frame(users, pose), grid)


def in_frame(users: RoadUsers, pose: Tensor) -> Tensor:
    """Where road users are, seen from the world poses (b, 3): (b, n, 3) float32."""
    return relative(pose.double()[:, None], users.now).float()


def expected(users: RoadUsers, frames: int) -> Tensor:
    """Where road users are now and in the frames that follow, if all go straight on: (b, f, n, 3) float64."""
    ahead = span(frames, users.label.device) * FRAME_SECONDS
    return users.now[:, None] + F.pad(users.velocity[:, None] * ahead[:, None, None], (0, 1))


def vehicles_at(users: RoadUsers, local: Tensor, grid: Grid) -> Tensor:
    """`vehicles_in_view` of road users that are at `local` (`in_frame`)."""
    return (users.valid & (group_of(users.label) == 0) & in_view(local, grid)).sum(1).float()


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What of frames decides who comes into view, but for the road users: it is known as soon as the ego's way is. Its
    leading axes are b and f, or both as one (`rows`).

    Attributes:
        pose: (..., 3) world poses of the ego frames.
        speed: (...) of the ego [m/s].
        new: (..., x, y) bool, columns that were not in view a frame ago; all of them where nobody is known yet.
        share: (...) float32, of the columns, that are new.
        led: (...) float32, 1 where a route is in view.
        planes: (..., X, Y, c) float32, what shares of the image's cells are ground of each kind, new, on the route.

    """

    pose: Tensor
    speed: Tensor
    new: Tensor
    share: Tensor
    led: Tensor
    planes: Tensor

    @staticmethod
    def of(
        ground: Tensor, pose: Tensor, speed: Tensor, new: Tensor, route: Tensor | None, margin: int
    ) -> Setting:
        """From the ground image (..., x, y) uint8 (`ground_of`), the columns on the route (..., x, y), not 0 there, or
        None, and so many cells around the view, in which road users alone are shown.
        """
        # Three bits for each plane count its columns in a cell: there are at most 4.
        planes = len(GROUND) + 1
        table = constant(_PLANE_BITS, ground.device, torch.int32)
        counts = table.index_select(0, ground.int().flatten()).view(ground.shape)
        counts = torch.add(counts, new, alpha=1 << 3 * planes)
        share = new.flatten(-2).float().mean(-1)
        led = torch.zeros_like(share)
        if route is not None:
            on = route > 0
            counts = torch.add(counts, on, alpha=1 << 3 * (planes + 1))
            led = on.flatten(-2).any(-1).float()
        x, y = ground.shape[-2:]
        counts = counts.view(*ground.shape[:-2], x // POOL, POOL, y // POOL, POOL, 1)
        counts = counts.sum((-4, -2), dtype=torch.int32)
        shift = constant(tuple(range(0, 3 * (planes + 2), 3)), ground.device, torch.int32)
        shares = F.pad((counts >> shift & 7).float() / POOL**2, (0, 0, *(margin,) * 4))
        return Setting(pose=pose, speed=speed, new=new, share=share, led=led, planes=shares)

    def rows(self) -> Setting:
        """The f frames of b worlds as those of b f worlds."""
        return Setting(**{entry.name: getattr(self, entry.name).flatten(0, 1) for entry in fields(self)})


def view_image(
    users: RoadUsers, setting: Setting, grid: Grid, margin: int, local: Tensor | None = None
) -> Tensor:
    """The network's input.

    Args:
        users: b worlds' road users.
        setting: of b frames.
        grid: the voxels around the ego.
        margin: of the setting.
        local: where road users are (`in_frame`), if it is known.

    Returns:
        (b, CHANNELS, x / POOL + 2 margin, y / POOL + 2 margin) float32.

    """
    pose, b = setting.pose, len(setting.pose)
    around = _who(users, in_frame(users, pose) if local is None else local, pose, grid, margin)
    place = _places(grid, margin, pose.device).expand(b, -1, -1, -1)
    # In memory the channels of a cell lie side by side: convolutions want them so.
    return torch.cat((setting.planes, place, around), dim=-1).permute(0, 3, 1, 2)


_PLANE_BITS = tuple(
    1 << 3 * (*GROUND, UNSEEN).index(label) if label in (*GROUND, UNSEEN) else 0 for label in range(256)
)


@lru_cache(maxsize=16)
def _places(grid: Grid, margin: int, device: torch.device) -> Tensor:
    """Distance inside the edge of the view and x, y of the cells: (X, Y, 3)."""
    step = POOL * grid.voxel
    axes = [
        (torch.arange(n // POOL + 2 * margin, device=device) - margin + 0.5) * step + low
        for n, low in zip(grid.shape[:2], grid.lower[:2], strict=True)
    ]
    x, y = torch.meshgrid(*axes, indexing="ij")
    low, up = grid.lower, grid.upper
    inside = torch.stack((x - low[0], up[0] - x, y - low[1], up[1] - y)).amin(0)
    return torch.stack(((inside / _EDGE).clamp(-1, 1), x / up[0], y / up[1]), dim=-1)


@lru_cache(maxsize=16)
def _points(device: torch.device) -> tuple[Tensor, Tensor]:
    """Points of a box along and across it, (points,) each, as shares of its length and width from its middle."""
    along, across = ((torch.arange(n, device=device) + 0.5) / n - 0.5 for n in (_ALONG, _ACROSS))
    return along[:, None].expand(-1, _ACROSS).flatten(), across.repeat(_ALONG)


def _who(users: RoadUsers, local: Tensor, pose: Tensor, grid: Grid, margin: int) -> Tensor:
    """Road users from above: group, velocity, cosine and sine of the heading: (b, X, Y, len(GROUPS) + 4)."""
    (b, n), device = users.label.shape, local.device
    sides = tuple(side // POOL + 2 * margin for side in grid.shape[:2])
    cells = sides[0] * sides[1]
    yaw = local[..., 2]
    cos, sin = yaw.cos(), yaw.sin()
    along, across = _points(device)
    a, c = along * users.size[..., :1], across * users.size[..., 1:2]  # (b, n, points)
    x = local[..., :1] + cos[..., None] * a - sin[..., None] * c
    y = local[..., 1:2] + sin[..., None] * a + cos[..., None] * c
    lower = constant(grid.lower[:2], device)
    at = torch.floor((torch.stack((x, y), dim=-1) - lower) / (POOL * grid.voxel)).int() + margin
    inside = ((at >= 0) & (at < constant(sides, device, torch.int32))).all(-1) & users.valid[..., None]
    cell = torch.where(inside, at[..., 0] * sides[1] + at[..., 1], cells).long()
    slot = span(n, device, first=1)[:, None].expand_as(cell)
    # The last slot wins a cell: a sum over the ones that share it would depend on the order of a GPU's additions.
    image = torch.zeros(b, cells + 1, dtype=torch.long, device=device)
    image = image.scatter_reduce(1, cell.flatten(1), slot.flatten(1), "amax")[:, :-1]
    turned = pose[:, 2].float()[:, None]
    vx, vy = users.velocity.unbind(-1)
    tcos, tsin = turned.cos(), turned.sin()
    numbers = ((tcos * vx + tsin * vy) / _SPEED, (tcos * vy - tsin * vx) / _SPEED, cos, sin)
    marks = torch.cat((one_hot(group_of(users.label), len(GROUPS)), torch.stack(numbers, dim=-1)), dim=-1)
    marks = F.pad(marks, (0, 0, 1, 0)).flatten(0, 1)  # slot 0 is nobody
    image = image + torch.arange(0, len(marks), n + 1, device=device)[:, None]
    return marks.index_select(0, image.flatten()).view(b, *sides, -1)
