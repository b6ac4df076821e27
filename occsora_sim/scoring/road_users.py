"""Road users counted in occupancy: connected patches of one class, seen from above."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from occsora_sim.grid import DYNAMIC, NUM_CLASSES


@dataclass(frozen=True, kw_only=True)
class Patches:
    """m connected patches of columns of one class.

    Attributes:
        frame: (m,) int64, the frame that each lies in.
        label: (m,) int64.
        middle: (m, 2) float64, the mean of its columns' centres [columns], counted from the grid's corner.
        columns: (m,) int64, how many.
        touching: (m,) bool, whether it touches a patch of another class.

    """

    frame: Tensor
    label: Tensor
    middle: Tensor
    columns: Tensor
    touching: Tensor


def patches_of(frames: Tensor) -> Patches:
    """Road users as connected patches, seen from above.

    A column belongs to the largest label of a road user in it. Columns of one class that touch, corners included, are
    one road user: two cars bumper to bumper count once, a speck of a class counts as one. What real and generated
    frames show this way is comparable.

    Args:
        frames: (n, x, y, z) uint8.

    """
    wanted = torch.zeros(256, dtype=torch.uint8, device=frames.device)
    wanted[list(DYNAMIC)] = torch.tensor(DYNAMIC, dtype=torch.uint8, device=frames.device)
    image = wanted[frames.int()].amax(dim=-1)  # (n, x, y); no road user has the label 0
    cells = image.nonzero()
    labels = image[tuple(cells.unbind(1))].long()
    component, other = _components(image, cells, labels)
    roots, index = component.unique(return_inverse=True)
    m = len(roots)
    columns = torch.bincount(index, minlength=m)
    centre = cells[:, 1:].double() + 0.5
    middle = torch.stack([torch.bincount(index, weights=c, minlength=m) for c in centre.unbind(1)], dim=-1)
    return Patches(
        frame=cells[roots, 0],
        label=labels[roots],
        middle=middle / columns[:, None].clamp(min=1),
        columns=columns,
        touching=torch.bincount(index, weights=other.double(), minlength=m) > 0,
    )


def count_road_users(frames: Tensor) -> Tensor:
    """Road users (`patches_of`) in each frame and of each class: uint8 (n, x, y, z) -> (n, NUM_CLASSES) int64, zero for
    what is no road user.
    """
    found = patches_of(frames)
    key = found.frame * NUM_CLASSES + found.label
    return torch.bincount(key, minlength=len(frames) * NUM_CLASSES).view(-1, NUM_CLASSES)


def _components(image: Tensor, cells: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """For each of k cells (k, 3) of the image the index of its patch's last cell, (k,), and whether a neighbour is of
    another class, (k,) bool.

    Indices spread to the neighbours and then jump to their own index's index, so that long patches take few rounds.
    """
    n, x, y = image.shape
    number = torch.full((n, x + 2, y + 2), -1, dtype=torch.long, device=image.device)
    own = torch.arange(len(cells), device=image.device)
    frame, i, j = cells.unbind(1)
    number[frame, i + 1, j + 1] = own
    around = torch.stack([number[frame, i + a, j + b] for a in range(3) for b in range(3)], dim=1)  # (k, 9)
    same = (around >= 0) & (labels[around.clamp(min=0)] == labels[:, None])
    other = ((around >= 0) & ~same).any(dim=1)
    around = torch.where(same, around, own[:, None])
    component = own
    while True:
        spread = component[around].amax(dim=1)
        spread = spread[spread]
        if torch.equal(spread, component):
            return component, other
        component = spread
