"""Connected patches of columns, seen from above, and what is asked of vehicles: that each is in one piece."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from occsora_sim.grid import BICYCLE, DRIVEABLE, FREE, MOTORCYCLE, PEDESTRIAN
from occsora_sim.models.columns import is_dynamic
from occsora_sim.voxels.patches import connected, mean_of, rectangles

__all__ = ["connected", "mean_of", "rectangles"]  # as others of these modules ask for them here

SMALLEST = 36
"""Columns below which no vehicle is whole; at 0.4 m a small car fills about 40."""

_TWO_WHEELS = 3
"""Columns below which a bicycle or motorcycle is no longer one; whole ones have four and more."""

_LONGEST, _WIDEST, _NARROWEST = 46.0, 9.0, 3.0
"""Sides of the rectangles that pass for vehicles [columns]: 18.4, 3.6 and 1.2 m."""

_FILLED = 0.75
"""Share of its rectangle that a vehicle fills; a ragged one 0.9, an L or a V about a half."""


def at_edge(cells: Tensor, image: Tensor) -> Tensor:
    """Whether cells (k, 3) of an image (n, x, y, ...) lie at its edge, where the view cuts: (k,) bool."""
    last = cells.new_tensor(image.shape[1:3]) - 1
    return ((cells[:, 1:] == 0) | (cells[:, 1:] == last)).any(dim=1)


def grown(mask: Tensor, by: int = 1) -> Tensor:
    """(n, x, y) bool with all that is up to `by` cells from what is true, along both axes."""
    return F.max_pool2d(mask.float()[:, None], 2 * by + 1, 1, by)[:, 0] > 0


def is_vehicle(labels: Tensor) -> Tensor:
    """True where a uint8 label of any shape is a road user's of far more than a few columns: all but pedestrians,
    bicycles and motorcycles.
    """
    return is_dynamic(labels) & ~((labels == PEDESTRIAN) | (labels == BICYCLE) | (labels == MOTORCYCLE))


def whole_vehicles(labels: Tensor) -> Tensor:
    """Frames (n, x, y, z) uint8 whose vehicles are in one piece, of one class and without spikes.

    Spikes of a column's width are cut off at their foot, notches filled. Then a patch of one class smaller than
    SMALLEST takes the class of the largest patch that it is connected with; and what is smaller than half of SMALLEST
    with all that it is connected with vanishes, unless the edge of the view cuts it.
    """
    labels = _evened(labels)
    vehicle = is_vehicle(labels)
    image = (labels * vehicle).amax(dim=-1)  # (n, x, y); no vehicle has the label 0
    cells, patch, _ = connected(image)
    if not len(cells):
        return labels
    _, blob, _ = connected((image > 0).byte())
    own = image[tuple(cells.unbind(1))]
    size = torch.bincount(patch, minlength=len(cells))  # at each patch's last cell
    # The largest patch of each blob, found as the largest (size, index) in one number.
    rank = size[patch] * len(cells) + patch
    largest = rank.new_zeros(len(cells)).scatter_reduce_(0, blob, rank, reduce="amax")[blob]
    total = torch.bincount(blob, minlength=len(cells))[blob]
    edge = at_edge(cells, image)
    cut = edge.new_zeros(len(cells)).index_put((blob[edge],), edge[edge])[blob]
    want = torch.where(size[patch] < SMALLEST, own[largest % len(cells)], own)
    want = torch.where((total < SMALLEST // 2) & ~cut, torch.full_like(want, FREE), want)
    changed = want != own
    at = tuple(cells[changed].unbind(1))
    out = labels.clone()
    out[at] = torch.where(vehicle[at], want[changed][:, None], out[at])
    return out


def without_shapeless(labels: Tensor, new: Tensor) -> Tensor:
    """Frames (n, x, y, z) uint8 without what was drawn on the road as a vehicle and has not the shape of one.

    A patch of vehicle columns is held against the rectangle of the same second moments: longer or wider than any
    vehicle, a sliver, or less of it filled than _FILLED, it goes. Only patches at `new` (n, x, y) bool columns are
    looked at, whole ones in view, standing mostly on the road: what was seen is left as it is, and so are rows of
    parked cars.
    """
    cells, patch, _ = connected(is_vehicle(labels).any(-1).byte())
    if not len(cells):
        return labels
    _, number = patch.unique(return_inverse=True)
    row, i, j = cells.unbind(1)
    count = torch.bincount(number)
    _, sides, _ = rectangles(cells[:, 1:].double(), number, count)
    length, width = sides.unbind(1)
    shapeless = (length > _LONGEST) | (width > _WIDEST) | (width < _NARROWEST)
    shapeless |= count < _FILLED * length * width
    edge = at_edge(cells, labels)
    near = grown(new, 2)
    road = (labels == DRIVEABLE).any(-1)
    about = torch.stack((near[row, i, j], edge, road[row, i, j]), dim=1).double()
    fresh, cut, on_road = mean_of(about, number, count).unbind(1)
    shapeless &= (fresh > 0) & (cut == 0) & (on_road > 0.5)
    gone = shapeless[number]
    out = labels.clone()
    columns = out[row[gone], i[gone], j[gone]]
    out[row[gone], i[gone], j[gone]] = torch.where(is_vehicle(columns), FREE, columns)
    return out


def without_crumbs(labels: Tensor) -> Tensor:
    """Frames (n, x, y, z) uint8 without what is left of vehicles, bicycles and motorcycles: patches of fewer columns
    than half of SMALLEST, or than _TWO_WHEELS, that the edge of the view does not cut.
    """
    rides = is_vehicle(labels) | (labels == BICYCLE) | (labels == MOTORCYCLE)
    image = (labels * rides).amax(dim=-1)
    vehicle = is_vehicle(image)
    cells, patch, _ = connected((image > 0).byte() + vehicle.byte())
    edge = at_edge(cells, image)
    cut = torch.zeros_like(edge).index_put((patch[edge],), edge[edge])[patch]
    at = tuple(cells.unbind(1))
    whole = torch.where(vehicle[at], SMALLEST // 2, _TWO_WHEELS)
    gone = (torch.bincount(patch, minlength=len(cells))[patch] < whole) & ~cut
    at = tuple(cells[gone].unbind(1))
    out = labels.clone()
    out[at] = torch.where(rides[at], FREE, labels[at])
    return out


def count_vehicles(labels: Tensor) -> Tensor:
    """Vehicles in each frame (n, x, y, z) uint8: (n,) float32; connected patches of a third of SMALLEST and more."""
    cells, blob, _ = connected(is_vehicle(labels).any(dim=-1).byte())
    _, index, columns = blob.unique(return_inverse=True, return_counts=True)
    frame = torch.zeros(len(columns), dtype=torch.long, device=labels.device).index_put((index,), cells[:, 0])
    return torch.bincount(frame[columns >= SMALLEST // 3], minlength=len(labels)).float()


def _evened(labels: Tensor) -> Tensor:
    """Frames (n, x, y, z) uint8 in which a column keeps its vehicle if four of the nine columns around have one, and
    gets its neighbours' where it has none and five have. Straight edges, in any direction, and corners stay.
    """
    vehicle = is_vehicle(labels)
    there = vehicle.any(dim=-1)  # (n, x, y)
    spike = there & (_around(there) < 3.5)
    out = labels.clone()
    out[spike] = torch.where(vehicle[spike], FREE, out[spike])
    vehicle, there = vehicle & ~spike[..., None], there & ~spike
    frame, i, j = (~there & (_around(there) > 4.5)).nonzero().unbind(1)
    best = torch.zeros(len(frame), labels.shape[-1], dtype=torch.uint8, device=labels.device)
    for a, b in ((-1, 0), (1, 0), (0, -1), (0, 1)):
        at = (frame, (i + a).clamp(0, labels.shape[1] - 1), (j + b).clamp(0, labels.shape[2] - 1))
        best = torch.maximum(best, torch.where(vehicle[at], labels[at], 0))
    out[frame, i, j] = torch.where(best > 0, best, out[frame, i, j])
    return out


def _around(there: Tensor) -> Tensor:
    """How many of the nine columns around each are true: (n, x, y) bool -> (n, x, y) float32."""
    return F.avg_pool2d(there.float()[:, None], 3, 1, 1)[:, 0] * 9
