"""Road users counted in occupancy: connected patches of one class, seen from above."""

from __future__ import annotations

import torch
from torch import Tensor

from occsora_sim.grid import DYNAMIC, NUM_CLASSES


def count_road_users(frames: Tensor) -> Tensor:
    """Road users in each frame and of each class.

    A column belongs to the largest label of a road user in it. Columns of one class that touch, corners included, are
    one road user: two cars bumper to bumper count once, a speck of a class counts as one. Counts of real and generated
    frames made this way are comparable.

    Args:
        frames: (n, x, y, z) uint8.

    Returns:
        (n, NUM_CLASSES) int64, zero for what is no road user.

    """
    n = len(frames)
    wanted = torch.zeros(256, dtype=torch.uint8, device=frames.device)
    wanted[list(DYNAMIC)] = torch.tensor(DYNAMIC, dtype=torch.uint8, device=frames.device)
    image = wanted[frames.int()].amax(dim=-1)  # (n, x, y); no road user has the label 0
    cells = image.nonzero()
    labels = image[tuple(cells.unbind(1))].long()
    component = _components(image, cells, labels)
    roots = component == torch.arange(len(cells), device=frames.device)
    key = cells[roots, 0] * NUM_CLASSES + labels[roots]
    return torch.bincount(key, minlength=n * NUM_CLASSES).view(n, NUM_CLASSES)


def _components(image: Tensor, cells: Tensor, labels: Tensor) -> Tensor:
    """For each of k cells (k, 3) of the image the index of its patch's last cell, (k,): labels spread to the neighbours
    and then jump to their own label's label, so that long patches take few rounds.
    """
    n, x, y = image.shape
    number = torch.full((n, x + 2, y + 2), -1, dtype=torch.long, device=image.device)
    own = torch.arange(len(cells), device=image.device)
    frame, i, j = cells.unbind(1)
    number[frame, i + 1, j + 1] = own
    around = torch.stack([number[frame, i + a, j + b] for a in range(3) for b in range(3)], dim=1)  # (k, 9)
    same = (around >= 0) & (labels[around.clamp(min=0)] == labels[:, None])
    around = torch.where(same, around, own[:, None])
    component = own
    while True:
        spread = component[around].amax(dim=1)
        spread = spread[spread]
        if torch.equal(spread, component):
            return component
        component = spread
