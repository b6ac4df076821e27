"""Crops of drawn ground, and of recorded ground at the same places, for a classifier to tell apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from torch import Tensor

from occsora_sim.errors import ConfigurationError
from occsora_sim.geometry import to_world
from occsora_sim.grid import Grid
from occsora_sim.scoring.ground_views import KINDS, Views

SIDE = 64
"""Columns along a crop: 25.6 m at 0.4 m."""

APART = 12.8
"""Least distance between the middles of two crops of one rollout [m]."""


@dataclass(frozen=True, kw_only=True)
class Crops:
    """m crops of SIDE by SIDE columns, in the ego frame of the instant that they were looked at.

    Attributes:
        ground: (m, x, y) uint8 kinds without road users.
        shown: (m, x, y) uint8 kinds with them.
        seconds: (m,) float64 since the start [s].
        town: (m,) int64.

    """

    ground: Tensor
    shown: Tensor
    seconds: Tensor
    town: Tensor

    def select(self, rows: Tensor) -> Crops:
        """The crops `rows`: indices, or a bool for each."""
        return Crops(**{entry.name: getattr(self, entry.name)[rows] for entry in fields(Crops)})


def take_crops(drawn: Views, recorded: Views, grid: Grid) -> tuple[Crops, Crops, int]:
    """Crops of both sides at the same places, chosen by where the ego was alone.

    All their columns were out of view at the start, and their middles are APART or more. A place where a column of
    either side is empty is left out on both, so that no hole gives a side away.

    Args:
        drawn: looks at rollouts.
        recorded: looks at the recording from the same poses, in the same order.
        grid: the voxels of the looks.

    Returns:
        Crops of the drawn ground, crops of the recorded ground, and how many places were left out for drawn holes.

    Raises:
        ConfigurationError: the looks do not belong together, or their view is smaller than a crop.

    """
    alike = drawn.pose.shape == recorded.pose.shape and torch.allclose(drawn.pose, recorded.pose, atol=1e-2)
    if not alike or min(grid.shape[:2]) < SIDE:
        raise ConfigurationError(
            f"crops: {len(drawn.pose)} drawn and {len(recorded.pose)} recorded looks must be from the same poses, "
            f"their view {SIDE} columns wide or wider"
        )
    firsts = _firsts(grid)
    middles = (firsts + SIDE / 2) * grid.voxel + torch.tensor(grid.lower[:2])
    new = _all_within(drawn.new, firsts)
    whole = _all_within(recorded.ground > 0, firsts)
    filled = _all_within(drawn.ground > 0, firsts)
    taken: dict[int, Tensor] = {}
    rows, holes = [], 0
    for look in drawn.seconds.argsort(stable=True).tolist():
        number = int(drawn.rollout[look])
        places = to_world(middles.double(), drawn.pose[look])
        for k in (new[look] & whole[look]).nonzero()[:, 0].tolist():
            before = taken.get(number, places[:0])
            if not bool(((before - places[k]).norm(dim=-1) >= APART).all()):
                continue
            taken[number] = torch.cat((before, places[k : k + 1]))
            if filled[look, k]:
                rows.append((look, *firsts[k].tolist()))
            else:
                holes += 1
    return _cut(drawn, rows), _cut(recorded, rows), holes


def commonest(kinds: Tensor, factor: int) -> Tensor:
    """The commonest kind of cells of `factor` by `factor` columns, of equals the first: (m, x, y) uint8 -> uint8."""
    if factor == 1:
        return kinds
    votes = F.avg_pool2d(F.one_hot(kinds.long(), len(KINDS)).permute(0, 3, 1, 2).float(), factor)
    return votes.argmax(dim=1).to(torch.uint8)


def _firsts(grid: Grid) -> Tensor:
    """First columns (k, 2) of the crops that a view is cut into; half a crop from one to the next."""
    axes = [torch.arange((n - SIDE) % (SIDE // 2) // 2, n - SIDE + 1, SIDE // 2) for n in grid.shape[:2]]
    return torch.cartesian_prod(*axes)


def _all_within(mask: Tensor, firsts: Tensor) -> Tensor:
    """Whether (n, k) all columns of the crops that begin at `firsts` (k, 2) hold in `mask` (n, x, y) bool."""
    total = F.pad((~mask).long().cumsum(1).cumsum(2), (1, 0, 1, 0))
    x, y = firsts.unbind(1)
    count = total[:, x + SIDE, y + SIDE] - total[:, x, y + SIDE] - total[:, x + SIDE, y] + total[:, x, y]
    return count == 0


def _cut(views: Views, rows: Sequence[tuple[int, int, int]]) -> Crops:
    """The crops of `views` at (look, first column along x, along y)."""
    look = torch.tensor([row[0] for row in rows], dtype=torch.long)

    def cut(images: Tensor) -> Tensor:
        parts = [images[n, x : x + SIDE, y : y + SIDE] for n, x, y in rows]
        return torch.stack(parts) if parts else images.new_zeros(0, SIDE, SIDE)

    return Crops(
        ground=cut(views.ground), shown=cut(views.shown), seconds=views.seconds[look], town=views.town[look]
    )
