"""Connected patches of columns, seen from above."""

from __future__ import annotations

import torch
from torch import Tensor


def connected(image: Tensor, *, corners: bool = True) -> tuple[Tensor, Tensor, Tensor]:
    """Patches of columns of one label that touch.

    Args:
        image: (n, x, y), any integer; 0 is nobody's.
        corners: whether columns touch at their corners, too.

    Returns:
        the k cells that are not 0, (k, 3) int64; for each the index of its patch's last cell, (k,) int64; and whether a
        neighbour has another label but 0, (k,) bool.

    Indices spread to the neighbours and then jump to their own index's index, so that long patches take few rounds.
    """
    n, x, y = image.shape
    cells = image.nonzero()
    labels = image[tuple(cells.unbind(1))]
    number = torch.full((n, x + 2, y + 2), -1, dtype=torch.long, device=image.device)
    own = torch.arange(len(cells), device=image.device)
    frame, i, j = cells.unbind(1)
    number[frame, i + 1, j + 1] = own
    steps = [(a, b) for a in range(3) for b in range(3) if corners or a == 1 or b == 1]
    around = torch.stack([number[frame, i + a, j + b] for a, b in steps], dim=1)  # (k, 9 or 5)
    same = (around >= 0) & (labels[around.clamp(min=0)] == labels[:, None])
    other = ((around >= 0) & ~same).any(dim=1)
    around = torch.where(same, around, own[:, None])
    component = own
    while True:
        spread = component[around].amax(dim=1)
        spread = spread[spread]
        if torch.equal(spread, component):
            return cells, component, other
        component = spread


def mean_of(values: Tensor, number: Tensor, count: Tensor) -> Tensor:
    """Means (m, ...) of `values` (k, ...) of the cells of patches: whose each is (k,), and how many each has (m,)."""
    total = values.new_zeros(len(count), *values.shape[1:]).index_add_(0, number, values)
    return total / count.view(-1, *[1] * (values.ndim - 1))


def rectangles(
    place: Tensor, number: Tensor, count: Tensor, edge: float = 1.0
) -> tuple[Tensor, Tensor, Tensor]:
    """The rectangles of the same second moments as patches of cells with `edge`, whose middles are at `place` (k, 2),
    with `number` and `count` as for `mean_of`: middles (m, 2), lengths and widths (m, 2), and the angles of their long
    sides (m,) [rad].
    """
    middle = mean_of(place, number, count)
    arm = place - middle[number]
    moments = torch.stack((arm[:, 0] ** 2, arm[:, 1] ** 2, arm.prod(dim=1)), dim=1)
    xx, yy, xy = mean_of(moments, number, count).unbind(1)
    half, root = (xx + yy) / 2 + edge**2 / 12, torch.sqrt(((xx - yy) / 2) ** 2 + xy**2)
    sides = torch.stack((half + root, (half - root).clamp(min=edge**2 / 12)), dim=1).mul(12).sqrt()
    return middle, sides, torch.atan2(2 * xy, xx - yy) / 2
