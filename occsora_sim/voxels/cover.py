"""Which columns road users cover: boxes cut into pieces of one size, so that all tensors have shapes known beforehand.

A box is as long as it is, but a piece of it fits into PIECE_COLUMNS x PIECE_COLUMNS columns however it is turned. The
data decide which piece belongs to which box, never how many there are: nothing waits for the device, and a batch takes
as many operations as a single world.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from occsora_sim.constants import constant, span
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
        code: (b * x * y,) (slot + 1) << layers | what the road user that has the column fills there: a bit for each
            layer above the ground, the lowest first. 0: no road user.
        layers: above the ground.

    """

    cells: Tensor
    code: Tensor
    layers: int


def piece_counts(size: Tensor, grid: Grid) -> tuple[Tensor, Tensor]:
    """Pieces along the lengths and the widths of boxes of `size` (..., 2 or 3) [m], (...) each, whole numbers."""
    side = PIECE * grid.voxel
    along, across = torch.ceil(size[..., :2] / side - 1e-4).clamp(min=1).unbind(-1)
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
        return Cover(cells=nobody[:0].long(), code=nobody, layers=layers)
    size, shaped = _looked_at(users, grid)
    centre, cos, sin, near = _boxes(users, pose, grid)
    # Later slots in the higher bits: the largest value is what the last of all has there.
    kind = torch.int32 if (n + 1) << layers < 1 << 31 else torch.int64
    rank = (span(n, device, first=1) << layers).to(kind)
    code = rank | _box_layers(users, grid).to(kind)

    # All worlds' slots in one row: a world with few road users leaves its pieces to the others.
    slot, live, (middle, share) = _pieces(
        size, near, b * default_pieces(n) if pieces is None else pieces, grid
    )
    boxes = torch.stack((*centre.unbind(-1), cos, sin, *(size / 2).unbind(-1))).flatten(1)  # (6, b n)
    at, ahead, half = boxes.index_select(1, slot).split(2)  # (2, p) each, from here on
    cos, sin = ahead
    across = torch.stack((-sin, cos))
    # The columns from the lowest corner of each piece on.
    (u, v), (part_l, part_w) = middle * half, share * half
    low = at + ahead * u + across * v - ahead.abs() * part_l - across.abs() * part_w
    lower, sides = (constant(side, device)[:, None] for side in (grid.lower[:2], (float(x), float(y))))
    first = torch.ceil((low - lower) / grid.voxel - 0.5 - _ROUNDING)
    cell = first[:, None] + span(PIECE_COLUMNS, device)[:, None]  # (2, d, p), whole numbers
    within = (cell >= 0) & (cell < sides[..., None])
    off = (cell + 0.5) * grid.voxel + lower[..., None] - at[:, None]
    # Along x, along y: loops run over the pieces, which are many.
    (i, j), (dx, dy) = (
        (part.long() for part in (cell[0, :, None], cell[1, None])),
        (off[0, :, None], off[1, None]),
    )
    inside = (within[0] & live)[:, None] & within[1]
    forward, left = cos * dx + sin * dy, cos * dy - sin * dx  # (d, d, p) in the box's own frame
    # Half-open faces: a box of a whole number of voxels fills that number, wherever it stands.
    held = ((forward + _EDGE).abs() < half[0]) & ((left + _EDGE).abs() < half[1])
    value = torch.where(inside & held, code.flatten()[slot], 0)
    if users.shape is not None and shaped is not None:
        bits = shape_bits(users.shape, slot, forward, left, grid).to(kind) & ((1 << layers) - 1)
        seen = torch.where(inside & (bits > 0), rank.expand(b, n).flatten()[slot] | bits, 0)
        value = torch.where(shaped.flatten()[slot], seen, value)
        near = near & ~shaped
    cells = (slot // n * x + i.clamp(0, x - 1)) * y + j.clamp(0, y - 1)

    # The column of a box's own centre.
    own = torch.floor((centre - lower[:, 0]) / grid.voxel)
    near = near & ((own >= 0) & (own < sides[:, 0])).all(-1)
    i, j = own.long().unbind(-1)
    worlds = span(b, device)[:, None]
    own = (worlds * x + i.clamp(0, x - 1)) * y + j.clamp(0, y - 1)
    cells = torch.cat((cells.flatten(), own.flatten()))
    value = torch.cat((value.flatten(), torch.where(near, code, 0).flatten()))
    won = torch.zeros(b * x * y, dtype=kind, device=device).scatter_reduce_(0, cells, value, "amax")
    return Cover(cells=cells, code=won, layers=layers)


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
    reach = reach[..., None]
    lower, upper = (constant(side[:2], now.device, now.dtype) for side in (grid.lower, grid.upper))
    near = users.valid & ((centre > lower - reach) & (centre < upper + reach)).all(-1)
    return centre.float(), torch.cos(yaw).float(), torch.sin(yaw).float(), near


def _pieces(
    size: Tensor, near: Tensor, count: int, grid: Grid
) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor]]:
    """Boxes of `size` (b, n, 2) cut into `count` = p pieces: the flat (b, n) index of the box of each (p,), which exist
    (p,), and their middles and half sizes, along and across (2, p), as shares of the box's half length and width.
    """
    sides = torch.stack(piece_counts(size, grid)).flatten(1)  # (2, b n)
    needed = (sides.prod(0) * near.flatten()).long()
    ends = needed.cumsum(0)
    number = span(count, size.device)
    slot = torch.searchsorted(ends, number, right=True)
    live = slot < len(ends)
    slot = slot.clamp(max=len(ends) - 1)
    which = number - (ends - needed)[slot]
    sides = sides.index_select(1, slot)
    row = torch.floor((which + 0.5) / sides[1])
    place = torch.stack((row, which - row * sides[1]))
    return slot, live, ((2 * place + 1) / sides - 1, 1 / sides)


def _box_layers(users: RoadUsers, grid: Grid) -> Tensor:
    """The layers above the ground that each box fills (b, n) int64, a bit each: at least one."""
    heights = grid.centres_z(users.label.device)[grid.ground + 1 :]
    layers = (heights < users.size[..., 2:] - _EDGE).sum(-1).clamp(min=1)
    return (1 << layers) - 1
