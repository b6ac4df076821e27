"""Even edges on new ground: a drawn voxel that sticks out takes the label of those around it.

Each cell of the latent is drawn with noise of its own, and what the decoder makes of it frays at the edges: kerbs
wobble and walls have teeth. Sweeps of iterated conditional modes (Besag 1986) over the four neighbours in the plane
leave straight edges, corners and posts as they are, and take off teeth, notches and crumbs.
"""

from __future__ import annotations

import torch
from torch import Tensor

from occsora_sim.models.columns import is_dynamic

SWEEPS = 2
"""How long a tooth may be [voxels]."""


def evened(labels: Tensor, new: Tensor) -> Tensor:
    """Frames whose static voxels on new ground are even.

    Args:
        labels: (n, x, y, z) uint8.
        new: (n, x, y) bool, columns that may change; those at the border of the view do not.

    Returns:
        (n, x, y, z) uint8. A voxel that at most one of its four neighbours in the plane agrees with takes the label of
        the other three, where these agree. Road users neither change nor spread; what stands alone among its eight
        neighbours, a post, stays.

    """
    inner = new.clone()
    inner[:, [0, -1]] = False
    inner[:, :, [0, -1]] = False
    row, i, j = inner.nonzero().unbind(1)
    for _ in range(SWEEPS):
        own = labels[row, i, j]  # (k, z)
        beside = [labels[row, i + a, j + b] for a, b in ((1, 0), (-1, 0), (0, 1), (0, -1))]
        corners = [labels[row, i + a, j + b] for a in (-1, 1) for b in (-1, 1)]
        best = torch.where(beside[0] == own, beside[1], beside[0])  # at most one of the four is like this one
        others = torch.stack([one == best for one in beside]).sum(0)
        alone = ~torch.stack([one == own for one in (*beside, *corners)]).any(0)
        change = (best != own) & (others >= 3) & ~alone & ~is_dynamic(own) & ~is_dynamic(best)
        labels = labels.clone()
        labels[row, i, j] = torch.where(change, best, own)
    return labels
