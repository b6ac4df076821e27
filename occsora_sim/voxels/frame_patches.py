"""Road users seen in one frame of voxels: patches of columns of one class, as rectangles."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from occsora_sim.grid import (
    BICYCLE,
    BUS,
    CAR,
    CONSTRUCTION_VEHICLE,
    DYNAMIC,
    MOTORCYCLE,
    PEDESTRIAN,
    SMALL,
    TRAILER,
    TRUCK,
    Grid,
    class_mask,
)
from occsora_sim.voxels.patches import connected, mean_of, rectangles

USUAL: dict[int, tuple[float, float]] = {
    BICYCLE: (1.8, 0.6),
    BUS: (11.0, 2.8),
    CAR: (4.5, 1.85),
    CONSTRUCTION_VEHICLE: (6.0, 2.6),
    MOTORCYCLE: (2.1, 0.8),
    PEDESTRIAN: (0.6, 0.6),
    TRAILER: (10.0, 2.5),
    TRUCK: (7.0, 2.5),
}
"""Length and width [m] of each class: the least of one that is cut by the edge of the view or seen in part."""

_LARGEST: dict[int, tuple[float, float]] = {
    BICYCLE: (2.6, 1.0),
    BUS: (20.0, 3.6),
    CAR: (6.6, 2.6),
    CONSTRUCTION_VEHICLE: (12.0, 4.0),
    MOTORCYCLE: (3.0, 1.2),
    PEDESTRIAN: (0.9, 0.9),
    TRAILER: (17.0, 3.6),
    TRUCK: (16.0, 3.6),
}
"""Length and width [m] beyond which a patch is several road users that touch."""

_FEWEST = 6
"""Columns of the smallest piece of a vehicle."""


@dataclass(frozen=True, kw_only=True)
class FramePatches:
    """The m patches of a frame.

    Attributes:
        label: (m,) uint8.
        box: (m, 5) in the ego frame: x, y, yaw of the long side, length, width [m, rad].
        height: (m,) [m].
        cut: (m,) bool, whether the edge of the view cuts them.

    """

    label: np.ndarray
    box: np.ndarray
    height: np.ndarray
    cut: np.ndarray


def patches_of(labels: Tensor, grid: Grid) -> FramePatches:
    """The patches of a frame (x, y, z)."""
    dynamic = class_mask(DYNAMIC)[labels.long().clamp(max=len(class_mask(())) - 1)]
    image = (labels * dynamic).amax(-1)  # (x, y); no road user has the label 0
    height = (dynamic * torch.arange(1, labels.shape[-1] + 1)).amax(-1)
    cells, number = _numbered(image, grid)
    if not len(cells):
        empty = np.zeros(0)
        return FramePatches(
            label=empty.astype(np.uint8), box=np.zeros((0, 5)), height=empty, cut=empty.astype(bool)
        )
    count = torch.bincount(number)
    lower = torch.tensor(grid.lower[:2], dtype=torch.float64)
    place = (cells.double() + 0.5) * grid.voxel + lower
    middle, sides, angle = rectangles(place, number, count, grid.voxel)
    first = torch.zeros(len(count), dtype=torch.long).scatter_(0, number, torch.arange(len(number)))
    top = torch.zeros(len(count), dtype=torch.long)
    top = top.scatter_reduce(0, number, height[tuple(cells.unbind(1))], "amax")
    last = torch.tensor(image.shape) - 1
    edge = ((cells == 0) | (cells == last)).any(1).double()
    return FramePatches(
        label=image[tuple(cells[first].unbind(1))].numpy(),
        box=torch.cat((middle, angle[:, None], sides), dim=1).numpy(),
        # Layers are filled up to their middles.
        height=((top.double() + 0.25) * grid.voxel + grid.lower[2]).clamp(min=grid.voxel).numpy(),
        cut=(mean_of(edge, number, count) > 0).numpy(),
    )


def _numbered(image: Tensor, grid: Grid) -> tuple[Tensor, Tensor]:
    """Cells (k, 2) of road users in a bird's-eye image (x, y) of labels, and the number of each one's patch (k,)."""
    cells, patch, _ = connected(image[None].int())
    _, apart, _ = connected(image[None].int(), corners=False)
    place = cells[:, 1:]
    if not len(place):
        return place, patch
    label = image[tuple(place.unbind(1))]
    vehicle = ~torch.isin(label, torch.tensor(SMALL, dtype=label.dtype))
    whole = _split(patch, _too_large(patch, place, label, grid), apart)
    whole = _split(whole, _too_large(whole, place, label, grid), None, place, label, grid)
    _, number, count = whole.unique(return_inverse=True, return_counts=True)
    keep = ~vehicle | (count[number] >= _FEWEST)
    return place[keep], number[keep].unique(return_inverse=True)[1]


def _too_large(patch: Tensor, place: Tensor, label: Tensor, grid: Grid) -> Tensor:
    """Of each cell (k,) whether its patch is longer or wider than one road user."""
    _, number, count = patch.unique(return_inverse=True, return_counts=True)
    _, sides, _ = rectangles(place.double() * grid.voxel, number, count, grid.voxel)
    largest = torch.tensor([_LARGEST.get(one, (1.0, 1.0)) for one in range(max(DYNAMIC) + 1)])
    # Half a column more on each side: small ones fill all columns that they touch.
    most = largest[label.long()].double() + grid.voxel
    return (sides[number] > most).any(1)


def _split(
    patch: Tensor, large: Tensor, apart: Tensor | None, place: Tensor | None = None, label: Tensor | None = None,
    grid: Grid | None = None,
) -> Tensor:  # fmt: skip
    """`patch` (k,) with the `large` ones parted as `apart` (k,) says; without it, across their long sides into as many
    as are usual for their length.
    """
    if apart is not None:
        return torch.where(large, apart + len(patch), patch)
    assert place is not None and label is not None and grid is not None
    out = patch.clone()
    for one in patch[large].unique():
        mine = patch == one
        here = place[mine].double() * grid.voxel
        number = torch.zeros(len(here), dtype=torch.long)
        middle, sides, angle = rectangles(here, number, torch.tensor([len(here)]), grid.voxel)
        usual = USUAL[int(label[mine][0])]
        # Rows of cars stand one behind another or side by side: the other side tells which.
        side = (
            usual[0] if abs(float(sides[0, 1]) - usual[1]) < abs(float(sides[0, 1]) - usual[0]) else usual[1]
        )
        pieces = max(1, round(float(sides[0, 0]) / (side + 0.3)))
        axis = torch.tensor([math.cos(float(angle[0])), math.sin(float(angle[0]))], dtype=torch.float64)
        along = ((here - middle) @ axis) / float(sides[0, 0]) + 0.5
        out[mine] = int(out.max()) + 1 + (along * pieces).floor().clamp(0, pieces - 1).long()
    return out
