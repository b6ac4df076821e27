"""Ground as tokens: squares of 4 x 4 columns, each the nearest of a book of the commonest squares that were recorded.

What stands still repeats itself: among 800,000 squares of towns there are 25,000 different ones, the 4,096 commonest
make up 96 % of them. So a book of real squares gives ground back better than a trained autoencoder did (99.3 % of
columns against 96.7 % after some minutes of training), at once, and always crisp: a wall is as straight as it was
recorded, and a code means the same whatever lies beside it.

Axes: b, x, y. A token is a square of `PATCH` columns along the canvas.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional as F

from occsora_sim.models.ground.palette import GROUPS, group_of

PATCH = 4
"""Edge of a token [columns]."""

_MULTIPLIER = 0x9E3779B97F4A7C15 - 2**64  # the golden ratio's bits, as a signed number


@dataclass(frozen=True)
class GroundTokenizer:
    """Columns to codes and back.

    Attributes:
        palette: (kinds, z) uint8, the column of each kind.
        book: (codes, 16) uint8, the kinds of each code's columns, row by row, the commonest code first.

    """

    palette: Tensor
    book: Tensor

    def encode(self, kinds: Tensor) -> Tensor:
        """Kinds (b, x, y) uint8 -> the codes (b, x / 4, y / 4) int64 that differ in the fewest columns, those in which
        a column is of another group (a road for a pavement) counted twice; of equally near ones the commonest. Waits
        for the device: a square that is in the book is looked up, only the others are compared with all of it.
        """
        squares = rearrange(kinds, "b (x p) (y q) -> b x y (p q)", p=PATCH, q=PATCH)
        flat = squares.reshape(-1, PATCH**2)
        wanted, (kept, order) = _key(flat), _key(self.book).sort(stable=True)
        at = torch.searchsorted(kept, wanted).clamp(max=len(kept) - 1)
        codes = order[at]
        strange = torch.nonzero(kept[at] != wanted)[:, 0]
        codes[strange] = self._nearest(flat[strange])
        return codes.view(squares.shape[:-1])

    def decode(self, codes: Tensor) -> Tensor:
        """Codes (b, x, y) int64 -> kinds (b, 4 x, 4 y) uint8."""
        return rearrange(self.book[codes], "b x y (p q) -> b (x p) (y q)", p=PATCH, q=PATCH)

    def _nearest(self, squares: Tensor) -> Tensor:
        """Squares (n, 16) uint8 -> codes (n,) int64."""
        # Whole numbers up to 32 are exact in bfloat16.
        book = self._features(self.book).bfloat16().T
        later = torch.arange(len(self.book), device=squares.device) / (2 * len(self.book))
        parts = [
            ((self._features(part).bfloat16() @ book).float() - later).argmax(-1)
            for part in squares.split(4096)
        ]
        return torch.cat(parts)

    def _features(self, squares: Tensor) -> Tensor:
        """Kinds and groups (n, 16) of columns as ones and zeros, (n, features)."""
        kinds = F.one_hot(squares.long(), len(self.palette))
        groups = F.one_hot(group_of(self.palette)[squares.long()], len(GROUPS))
        return torch.cat((kinds, groups), dim=-1).flatten(-2)


def _key(squares: Tensor) -> Tensor:
    """A number (n,) int64 for each of squares (n, 16) uint8, unlike for unlike ones (odds of a collision: 1e-12)."""
    first, second = squares.contiguous().view(torch.int64).unbind(-1)
    key = first * _MULTIPLIER
    key = (key ^ (key >> 32) ^ second) * _MULTIPLIER
    return key ^ (key >> 32)


def common_squares(kinds: Tensor, codes: int) -> Tensor:
    """A book of the commonest squares of crops `kinds` (n, x, y) uint8: (codes, 16) uint8, the commonest first."""
    squares = rearrange(kinds, "n (x p) (y q) -> (n x y) (p q)", p=PATCH, q=PATCH)
    unique, counts = torch.unique(squares, dim=0, return_counts=True)
    order = counts.argsort(descending=True, stable=True)[:codes]
    return unique[torch.cat((order, order[-1:].expand(codes - len(order))))]
