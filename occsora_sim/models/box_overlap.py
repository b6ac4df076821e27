"""Whether boxes seen from above overlap, for all pairs at once."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from occsora_sim.constants import constant


class Boxes(NamedTuple):
    """n boxes in each of any number of groups.

    Attributes:
        centre: (..., n, 2) [m].
        ahead: (..., n, 2), the unit vector along each.
        half: (..., n, 2), half its length and half its width [m].

    """

    centre: Tensor
    ahead: Tensor
    half: Tensor

    @staticmethod
    def of(pose: Tensor, size: Tensor) -> Boxes:
        """Boxes with poses (..., n, 3) [m, m, rad] and sizes (..., n, 2 or more) [m]."""
        yaw = pose[..., 2].double()
        ahead = torch.stack((yaw.cos(), yaw.sin()), dim=-1).to(pose)
        return Boxes(centre=pose[..., :2], ahead=ahead, half=size[..., :2].to(pose) / 2)

    def grown(self, speed: Tensor, *, beside: float, ahead: float, seconds: float) -> Boxes:
        """With the room that road users keep.

        Args:
            speed: (..., n) [m/s].
            beside: added on either side [m].
            ahead: added in front and behind [m].
            seconds: how long a way at `speed` is added in front [s].

        """
        way = (speed.to(self.half) * (seconds / 2))[..., None]
        room = constant((ahead, beside), way.device, way.dtype)
        return Boxes(
            centre=self.centre + self.ahead * way,
            ahead=self.ahead,
            half=self.half + room + F.pad(way, (0, 1)),
        )

    def axes(self) -> Tensor:
        """The unit vectors along and across: (..., 2, n, 2)."""
        x, y = self.ahead.unbind(-1)
        return torch.stack((self.ahead, torch.stack((-y, x), dim=-1)), dim=-3)


def parted(mine: Boxes, theirs: Boxes) -> Tensor:
    """By how much an axis parts boxes (..., n) from others (..., m) at best: (..., n, m) [m]; 0 or less: they overlap.

    Two rectangles are apart if an axis of either parts them (the separating axis theorem). All that depends on a pair
    is a product of a few numbers of either, which is left to matrix products; these are exact to 0.1 mm where centres
    lie within some hundred metres of the origin.
    """
    axes, others = mine.axes(), theirs.axes()
    turn = (axes @ theirs.ahead[..., None, :, :].mT).abs_()  # |cos|, |sin| (..., 2, n, m)
    swapped = turn.flip(-3)

    def lines(axes: Tensor, at: Tensor) -> Tensor:
        """Numbers (..., 2, n, 3) whose product with (x, y, 1) is how far (x, y) lies along `axes` from `at`."""
        return torch.cat((axes, -(axes * at).sum(-1, keepdim=True)), dim=-1)

    def left(along: Tensor, own: Tensor, other: Tensor) -> Tensor:
        """What two boxes' extents leave of the way between their middles `along` both axes of one of them."""
        long, wide = other.split(1, dim=-3)
        return along.abs_().sub_(own).addcmul_(turn, long, value=-1).addcmul_(swapped, wide, value=-1)

    here, there = (boxes.centre[..., None, :, :] for boxes in (mine, theirs))
    rows = mine.half.mT.contiguous()[..., None]  # (..., 2, n, 1)
    columns = theirs.half.mT.contiguous()[..., None, :]  # (..., 2, 1, m)
    by_mine = left(lines(axes, here) @ F.pad(there, (0, 1), value=1.0).mT, rows, columns)
    by_theirs = left(F.pad(here, (0, 1), value=1.0) @ lines(others, there).mT, columns, rows)
    return torch.maximum(by_mine, by_theirs, out=by_mine).amax(-3)


def overlap(pose: Tensor, size: Tensor, other_pose: Tensor, other_size: Tensor) -> Tensor:
    """Whether boxes of poses (b, n, 3) and sizes (b, n, 2) overlap others (b, m, 3) and (b, m, 2): (b, n, m) bool."""
    origin = F.pad(pose[..., :1, :2], (0, 1))
    return parted(Boxes.of(pose - origin, size), Boxes.of(other_pose - origin, other_size)) <= 0
