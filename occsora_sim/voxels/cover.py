"""Which columns road users cover: boxes cut into pieces of one size, so that all tensors have shapes known beforehand.

A box is as long as it is, but a piece of it fits into PIECE_COLUMNS x PIECE_COLUMNS columns however it is turned. The
data decide which piece belongs to which box, never how many there are: nothing waits for the device, and a batch takes
as many operations as a single world.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from occsora_sim.grid import Grid
from occsora_sim.road_users import RoadUsers
from occsora_sim.voxels.shape_cells import GROWN, shape_bits

PIECE = 3.5
"""Side of a piece at most [voxels]."""

PIECE_COLUMNS = 5
"""Columns along each axis that a turned piece can reach: floor(PIECE * sqrt(2)) + 1."""

_EDGE = 1e-4
"""Slack [m] at the faces of a box, against float32 noise at round sizes."""

_ROUNDING = 2e-3
"""Slack [voxels] of a piece's first column, more than _EDGE and noise."""


@dataclass(frozen=True, kw_only=True)
class Cover:
    """Columns that may be covered, and what won each.

    Attributes:
        cells: (c,) int64 flat (b, x, y) indices of the columns that were looked at; some repeat.
        world: (c,) int64, the world of each.
        code: (b * x * y,) (slot + 1) << layers | what the road user that has the column fills there: a bit for each
            layer above the ground, the lowest first. 0: no road user.
        layers: above the ground.

    """

    cells: Tensor
    world: Tensor
    code: Tensor
    layers: int


def piece_counts(size: Tensor, grid: Grid) -> tuple[Tensor, Tensor]:
    """Pieces along the lengths and the widths of boxes of `size` (..., 2 or 3) [m], (...) each, whole numbers."""
    side = PIECE * grid.voxel
    along, across = (torch.ceil(size[..., k] / side - 1e-4).clamp(min=1) for k in (0, 1))
    return along, across


def default_pieces(slots: int) -> int:
    """Pieces for so many road users where nobody says how many they need: 12 each, 64 more. A car has 8, a bus 18."""
    return 12 * slots + 64


def cover_columns(users: RoadUsers, pose: Tensor, grid: Grid, pieces: int | None = None) -> Cover:
    """The columns that road users cover, seen from ego poses; the later slot wins a column.

    A box covers the columns whose centres it holds, and always the column of its own centre. A road user with a shape
    covers the columns whose centres lie in cells that hold something.

    Args:
        users: of b worlds.
        pose: (b, 3) world poses of the egos.
        grid: the voxels around the ego.
        pieces: of all road users in view of all worlds together, at most (`piece_counts`); more are left out. None:
            `default_pieces` for each world.

    """
    (b, n), device = users.label.shape, users.label.device
    x, y, z = grid.shape
    layers = max(z - grid.ground - 1, 1)
    if not n:
        nobody = torch.zeros(b * x * y, dtype=torch.int32, device=device)
        return Cover(cells=nobody[:0].long(), world=nobody[:0].long(), code=nobody, layers=layers)
    size, shaped = _looked_at(users, grid)
    centre, cos, sin, near = _boxes(users, pose, grid)
    # Later slots in the higher bits: the largest value is what the last of all has there.
    kind = torch.int32 if (n + 1) << layers < 1 << 31 else torch.int64
    rank = (torch.arange(1, n + 1, device=device) << layers).to(kind)
    code = rank | _box_layers(users, grid).to(kind)

    # All worlds' slots in one row: a world with few road users leaves its pieces to the others.
    slot, live, place = _pieces(size, near, b * default_pieces(n) if pieces is None else pieces, grid)
    cx, cy, cos, sin, half_l, half_w = (
        value.flatten()[slot] for value in (*centre.unbind(-1), cos, sin, *(size / 2).unbind(-1))
    )
    # The columns from the lowest corner of each piece on.
    u, v, part_l, part_w = (share * half for share, half in zip(place, 2 * (half_l, half_w), strict=True))
    low_x = cx + cos * u - sin * v - cos.abs() * part_l - sin.abs() * part_w
    low_y = cy + sin * u + cos * v - sin.abs() * part_l - cos.abs() * part_w
    around = torch.arange(PIECE_COLUMNS, device=device)[:, None]
    i = torch.ceil((low_x - grid.lower[0]) / grid.voxel - 0.5 - _ROUNDING).long() + around
    j = torch.ceil((low_y - grid.lower[1]) / grid.voxel - 0.5 - _ROUNDING).long() + around
    i, j = i[:, None], j[None]  # (d, 1, p), (1, d, p): loops run over the pieces, which are many
    inside = ((i >= 0) & (i < x) & live) & ((j >= 0) & (j < y))
    dx = (i + 0.5) * grid.voxel + grid.lower[0] - cx
    dy = (j + 0.5) * grid.voxel + grid.lower[1] - cy
    forward, left = cos * dx + sin * dy, cos * dy - sin * dx  # (d, d, p) in the box's own frame
    # Half-open faces: a box of a whole number of voxels fills that number, wherever it stands.
    held = (forward >= -half_l - _EDGE) & (forward < half_l - _EDGE)
    held &= (left >= -half_w - _EDGE) & (left < half_w - _EDGE)
    value = torch.where(inside & held, code.flatten()[slot], 0)
    if users.shape is not None and shaped is not None:
        bits = shape_bits(users.shape, slot, forward, left, grid).to(kind) & ((1 << layers) - 1)
        seen = torch.where(inside & (bits > 0), rank.expand(b, n).flatten()[slot] | bits, 0)
        value = torch.where(shaped.flatten()[slot], seen, value)
        near = near & ~shaped
    of_slot = torch.arange(b, device=device)[:, None].expand(b, n)
    of_piece = of_slot.flatten()[slot]
    cells = (of_piece * x + i.clamp(0, x - 1)) * y + j.clamp(0, y - 1)

    # The column of a box's own centre.
    i, j = (torch.floor((centre[..., k] - grid.lower[k]) / grid.voxel).long() for k in (0, 1))
    near = near & (i >= 0) & (i < x) & (j >= 0) & (j < y)
    own = (of_slot * x + i.clamp(0, x - 1)) * y + j.clamp(0, y - 1)
    cells = torch.cat((cells.flatten(), own.flatten()))
    value = torch.cat((value.flatten(), torch.where(near, code, 0).flatten()))
    won = torch.zeros(b * x * y, dtype=kind, device=device).scatter_reduce_(0, cells, value, "amax")
    world = torch.cat((of_piece.expand(inside.shape).flatten(), of_slot.flatten()))
    return Cover(cells=cells, world=world, code=won, layers=layers)


def pieces_in_view(users: RoadUsers, pose: Tensor, grid: Grid) -> Tensor:
    """The pieces that each world needs, (b,) int64. Arguments as of `cover_columns`."""
    along, across = piece_counts(_looked_at(users, grid)[0], grid)
    return (along * across * _boxes(users, pose, grid)[3]).sum(1).long()


def column_owners(users: RoadUsers, pose: Tensor, grid: Grid, *, pieces: int | None = None) -> Tensor:
    """The slot of the road user that has each column, (b, x, y) int64; -1: none. Arguments as of `cover_columns`."""
    cover = cover_columns(users, pose, grid, pieces)
    return ((cover.code >> cover.layers).long() - 1).view(-1, *grid.shape[:2])


def _looked_at(users: RoadUsers, grid: Grid) -> tuple[Tensor, Tensor | None]:
    """Lengths and widths (b, n, 2) [m] within which road users cover columns, and which have a shape (b, n)."""
    if users.shape is None:
        return users.size[..., :2], None
    shaped = users.shape.ne(0).flatten(2).any(-1)
    return users.size[..., :2] + 2 * GROWN * grid.voxel * shaped[..., None], shaped


def _boxes(users: RoadUsers, pose: Tensor, grid: Grid) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Centres (b, n, 2) [m], cos and sin of the yaws in the ego frame, float32; and which boxes may touch the grid."""
    now = users.now
    pose = pose.to(now)[:, None]
    offset = now[..., :2] - pose[..., :2]
    cos, sin = torch.cos(pose[..., 2]), torch.sin(pose[..., 2])
    centre = torch.stack(
        (cos * offset[..., 0] + sin * offset[..., 1], cos * offset[..., 1] - sin * offset[..., 0]), dim=-1
    )
    yaw = (now[..., 2] - pose[..., 2]).float().to(now)
    reach = (users.size[..., :2].norm(dim=-1) / 2 + 2 * grid.voxel).to(now)
    near = users.valid
    for axis in (0, 1):
        near = near & (centre[..., axis] > grid.lower[axis] - reach)
        near = near & (centre[..., axis] < grid.upper[axis] + reach)
    return centre.float(), torch.cos(yaw).float(), torch.sin(yaw).float(), near


def _pieces(
    size: Tensor, near: Tensor, count: int, grid: Grid
) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Boxes of `size` (b, n, 2) cut into `count` = p pieces: the flat (b, n) index of the box of each (p,), which exist
    (p,), and their middles, forward and left, and half lengths and widths (p,) as shares of the box's half length and
    width.
    """
    along, across = (value.flatten() for value in piece_counts(size, grid))
    needed = (along * across * near.flatten()).long()
    ends = needed.cumsum(0)
    number = torch.arange(count, device=size.device)
    slot = torch.searchsorted(ends, number, right=True)
    live = slot < len(ends)
    slot = slot.clamp(max=len(ends) - 1)
    which = number - (ends - needed)[slot]
    along, across = along[slot], across[slot]
    row = torch.floor((which + 0.5) / across)
    column = which - row * across
    return slot, live, ((2 * row + 1) / along - 1, (2 * column + 1) / across - 1, 1 / along, 1 / across)


def _box_layers(users: RoadUsers, grid: Grid) -> Tensor:
    """The layers above the ground that each box fills (b, n) int64, a bit each: at least one."""
    heights = grid.centres_z(users.label.device)[grid.ground + 1 :]
    layers = (heights < users.size[..., 2:] - _EDGE).sum(-1).clamp(min=1)
    return (1 << layers) - 1
