"""Road users counted in occupancy: connected patches of one class, seen from above."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from occsora_sim.grid import DYNAMIC
from occsora_sim.voxels.patches import connected


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
    cells, component, other = connected(image)
    labels = image[tuple(cells.unbind(1))].long()
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
