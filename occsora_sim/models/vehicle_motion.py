"""Vehicles move as one piece each, and not into one another.

The motion estimator foretells each column for itself. A vehicle (a connected patch of vehicle columns, or of bicycles
and motorcycles) moves rigidly: by the rigid motion nearest to its columns' (least squares; Kabsch 1976 in the plane).
Where two would come to overlap, the one that runs into the other brakes; so does one whose front half would run into
the ego, which no frame shows.
"""

from __future__ import annotations

import torch
from torch import Tensor

from occsora_sim.geometry import to_frame
from occsora_sim.grid import BICYCLE, MOTORCYCLE, Grid
from occsora_sim.models.patches import connected, is_vehicle
from occsora_sim.vehicle import Vehicle

_TURNS = 24
"""Columns from which a patch may turn; of fewer the direction is noise."""

_RADIUS = 5.0
"""Nobody turns on the spot: the tightest turn of a vehicle's middle [m]."""

_BRAKES = (0.75, 0.5, 0.25, 0.0)
"""Shares of the foretold way that are tried in turn where two would overlap."""

_CREEPS = 0.1
"""Who goes less far than this in a chunk keeps no gap [m]."""

_CLEARANCE = (0.7, 0.3)
"""What others keep from the ego, before and behind it and at its sides, to the middle of their nearest column [m]."""


def move_as_vehicles(
    displacement: Tensor, image: Tensor, grid: Grid, ego: Tensor | None = None, gap: float = 0.0,
    car: Vehicle | None = None,
) -> Tensor:  # fmt: skip
    """Displacements of road users with the vehicles' made rigid and free of collisions.

    Args:
        displacement: (b, f, x, y, 2) [m] until each instant, in the frame's axes.
        image: (b, x, y, 2) uint8, `road_user_image` of that frame.
        grid: the voxel grid.
        ego: (b, f, 3) where the ego will be at each instant, in the frame's axes; None: nobody minds it.
        gap: what a vehicle keeps from another ahead of it, beside a voxel [m].
        car: the ego's size; None: the recording car.

    Returns:
        (b, f, x, y, 2) [m]; pedestrians keep theirs.

    """
    labels = image[..., 0]
    two_wheels = (labels == BICYCLE) | (labels == MOTORCYCLE)
    cells, patch, _ = connected(is_vehicle(labels).byte() + 2 * two_wheels.byte())
    if not len(cells):
        return displacement
    _, vehicle = patch.unique(return_inverse=True)  # (k,) numbers 0 to m - 1
    row, i, j = cells.unbind(1)
    way = displacement[row, :, i, j]  # (k, f, 2)
    place = grid.centres_xy(displacement.device)[i, j]  # (k, 2)
    middle, shift, turn = _rigid(place, way, vehicle)
    share = _give_way(
        place, middle, shift, turn, vehicle, row, grid, None if ego is None else ego[row], gap, car
    )
    out = displacement.clone()
    out[row, :, i, j] = _ends(place, middle, shift, turn, vehicle, share) - place[:, None]
    return out


def _rigid(place: Tensor, way: Tensor, vehicle: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Middle (m, 2), its shift (m, f, 2) and the turn about it (m, f) [rad] of m vehicles whose k columns at `place`
    (k, 2) go `way` (k, f, 2).
    """
    m = int(vehicle.max()) + 1
    count = torch.bincount(vehicle, minlength=m)

    def mean(values: Tensor) -> Tensor:
        total = values.new_zeros(m, *values.shape[1:]).index_add_(0, vehicle, values)
        return total / count.view(-1, *[1] * (values.ndim - 1))

    middle, shift = mean(place), mean(way)
    arm = (place - middle[vehicle])[:, None]  # (k, 1, 2)
    later = arm + way - shift[vehicle]  # (k, f, 2)
    sine = mean(arm[..., 0] * later[..., 1] - arm[..., 1] * later[..., 0])
    turn = torch.atan2(sine, mean((arm * later).sum(-1)))
    most = shift.norm(dim=-1) / _RADIUS
    return middle, shift, turn.clamp(-most, most) * (count >= _TURNS)[:, None]


def _ends(
    place: Tensor, middle: Tensor, shift: Tensor, turn: Tensor, vehicle: Tensor, share: Tensor
) -> Tensor:
    """Where columns (k, 2) end up, (k, f, 2), if each vehicle goes its `share` (m,) of shift and turn."""
    arm = place - middle[vehicle]
    angle = (turn * share[:, None])[vehicle]
    c, s = torch.cos(angle), torch.sin(angle)
    turned = torch.stack((c * arm[:, :1] - s * arm[:, 1:], s * arm[:, :1] + c * arm[:, 1:]), dim=-1)
    return (middle[:, None] + shift * share[:, None, None])[vehicle] + turned


def _give_way(
    place: Tensor, middle: Tensor, shift: Tensor, turn: Tensor, vehicle: Tensor, row: Tensor, grid: Grid,
    ego: Tensor | None, gap: float, car: Vehicle | None,
) -> Tensor:  # fmt: skip
    """The share (m,) of its way that each vehicle goes: less than 1 where it would come within a voxel of another
    towards which it moves faster than that one towards it, or within `gap` of one ahead, or run into the ego, which is
    at `ego` (k, f, 3) for each column.
    """
    m, f = len(middle), shift.shape[1]
    level = torch.zeros(m, dtype=torch.long, device=row.device)
    brakes = place.new_tensor((1.0, *_BRAKES))
    x, y = (side + 2 for side in grid.shape[:2])
    instant = torch.arange(f, device=row.device)
    lower = place.new_tensor(grid.lower[:2])
    around = torch.tensor([a * y + b for a in (-1, 0, 1) for b in (-1, 0, 1)], device=row.device)

    def cells(points: Tensor) -> tuple[Tensor, Tensor]:
        """Numbers of the padded raster's cells that hold points (k, f, 2), of those inside; and which are."""
        voxel = torch.floor((points - lower) / grid.voxel).long() + 1
        inside = (
            (voxel[..., 0] >= 1) & (voxel[..., 1] >= 1) & (voxel[..., 0] < x - 1) & (voxel[..., 1] < y - 1)
        )
        number = ((row[:, None] * f + instant) * x + voxel[..., 0]) * y + voxel[..., 1]
        return number[inside], inside

    for _ in range(2 * len(_BRAKES)):
        share = brakes[level]
        ends = _ends(place, middle, shift, turn, vehicle, share)  # (k, f, 2)
        cell, inside = cells(ends)
        owner = vehicle[:, None].expand(-1, f)
        top = torch.full(((int(row.max()) + 1) * f * x * y,), -1, dtype=torch.long, device=row.device)
        top.scatter_reduce_(0, cell, owner[inside], reduce="amax")
        near, asks = top[cell[:, None] + around], owner[inside]  # (k', 9)
        if gap > 0:
            ahead, inside = cells(ends + gap * _heading(shift, share)[vehicle][:, None])
            near = torch.cat((near, top[ahead[:, None] + around]))
            asks = torch.cat((asks, owner[inside]))
        pair = (near >= 0) & (near != asks[:, None])
        one, two = asks[:, None].expand_as(near)[pair], near[pair]
        towards = middle[two] - middle[one]
        gone = shift[:, -1] * share[:, None]
        first, second = (gone[one] * towards).sum(-1), -(gone[two] * towards).sum(-1)
        blamed = torch.where(first >= second, one, two)
        blamed = blamed[torch.where(first >= second, first, second) > 0]
        if ego is not None:
            blamed = torch.cat((blamed, _into_ego(place, middle, shift, turn, vehicle, share, ego, car)))
        blamed = blamed[level[blamed] < len(_BRAKES)]
        if not len(blamed):
            break
        level[blamed.unique()] += 1
    return brakes[level]


def _heading(shift: Tensor, share: Tensor) -> Tensor:
    """Where vehicles move to that go a share (m,) of their shift (m, f, 2): (m, 2), unit vectors, 0 if they stand."""
    length = shift[:, -1].norm(dim=-1, keepdim=True)
    going = (length * share[:, None]) >= _CREEPS
    return torch.where(going, shift[:, -1] / length.clamp(min=1e-6), 0.0)


def _into_ego(
    place: Tensor, middle: Tensor, shift: Tensor, turn: Tensor, vehicle: Tensor, share: Tensor, ego: Tensor,
    car: Vehicle | None,
) -> Tensor:  # fmt: skip
    """Numbers of vehicles that come within _CLEARANCE of the ego at one of the f instants or halfway to it, and first
    do so with their front half: if the ego runs into their rear, they are not to blame.
    """
    m = len(middle)
    shift, turn, ego = (with_halfway(part) for part in (shift, turn, ego))
    ends = _ends(place, middle, shift, turn, vehicle, share)  # (k, 2 f, 2)
    close = near_ego(ends, ego, car=car)
    gone = (shift * share[:, None, None])[vehicle]
    ahead = ((ends - (middle[vehicle][:, None] + gone)) * shift[vehicle][:, -1:]).sum(-1)
    sign = ahead.sign() * close  # columns of the front half against those of the rear half
    front = sign.new_zeros(m, sign.shape[1]).index_add_(0, vehicle, sign)
    touched = sign.new_zeros(m, sign.shape[1]).index_add_(0, vehicle, close.to(sign)) > 0
    first = touched.byte().argmax(dim=1, keepdim=True)
    return (touched.any(dim=1) & (front.gather(1, first)[:, 0] > 0)).nonzero()[:, 0]


def ego_clearance(
    points: Tensor,
    ego: Tensor,
    clearance: tuple[float, float] = _CLEARANCE,
    car: Vehicle | None = None,
) -> Tensor:
    """How far `points` (..., 2) are from the ego's box at the poses `ego` (..., 3), all in one frame: (...) float, in
    parts of `clearance` (before and behind it, at its sides) [m]; below 1 is too near. `car` is the ego's size.
    """
    car = car or Vehicle()
    x, y = to_frame(points, ego).unbind(-1)
    before, beside = clearance
    along = torch.maximum(x - car.front, car.rear - x) / before
    return torch.maximum(along, (y.abs() - car.width / 2) / beside)


def near_ego(
    points: Tensor,
    ego: Tensor,
    clearance: tuple[float, float] = _CLEARANCE,
    car: Vehicle | None = None,
) -> Tensor:
    """Whether `points` (..., 2) are within `clearance` of the ego's box, as `ego_clearance` says: (...) bool."""
    return ego_clearance(points, ego, clearance, car) < 1


def with_halfway(values: Tensor) -> Tensor:
    """(n, f, ...) that begin at 0 -> (n, 2 f, ...): at half of each of the f steps and at its end."""
    before = torch.cat((torch.zeros_like(values[:, :1]), values[:, :-1]), dim=1)
    return torch.stack(((before + values) / 2, values), dim=2).flatten(1, 2)
