"""A draw of codes without the freaks among them: what a token holds is drawn as the network says, how it lies in the
token from what is likely.

A network that is not sure spreads a little chance over thousands of codes: of a wall, over squares that continue none.
Cut off by their chance alone, as min-p does (Nguyen et al. 2024, arXiv 2407.01082), trees and hedges go too: each place
that one may have is as unlikely. But that there is one is not.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True, kw_only=True)
class Likely:
    """Which codes are drawn.

    Attributes:
        mixtures: (m, codes) float32, 1 where a code is of a mixture: those with the same parts, wherever these lie.
        least: mixtures with less than this share of the chance of the likeliest are not drawn; the others are as often
            as their chances say.
        shape: within a mixture, codes with less than this share of the likeliest are not drawn.

    """

    mixtures: Tensor
    least: float
    shape: float

    @staticmethod
    def of(contents: Tensor, least: float, shape: float) -> Likely:
        """Of codes that are made of `contents` (codes, parts) uint8."""
        held = F.one_hot(contents.long()).amax(1)
        number = torch.unique(held, dim=0, return_inverse=True)[1]
        return Likely(mixtures=F.one_hot(number).T.float(), least=least, shape=shape)

    def draw(self, p: Tensor, chance: Tensor) -> Tensor:
        """Codes (...) int64 of chances `p` (..., codes) float32 and uniform numbers `chance` (..., 1) in [0, 1)."""
        until = _cut(F.linear(p, self.mixtures), self.least).cumsum(-1)
        at = chance * until[..., -1:]
        mixture = _first_beyond(until, at)
        low, high = F.pad(until, (1, 0)).gather(-1, mixture), until.gather(-1, mixture)
        chance = ((at - low) / (high - low).clamp(min=1e-30)).clamp(
            0, 1 - 1e-6
        )  # how far in it: uniform again
        within = F.embedding(mixture[..., 0], self.mixtures)
        until = _cut(p * within, self.shape).cumsum(-1)
        return _first_beyond(until, chance * until[..., -1:])[..., 0]


def _cut(p: Tensor, least: float) -> Tensor:
    """Those at least so large a share of the largest."""
    return p * (p >= least * p.amax(-1, keepdim=True))


def _first_beyond(until: Tensor, at: Tensor) -> Tensor:
    """The first of rising numbers (..., n) that is more than `at` (..., 1): (..., 1) int64."""
    return (until <= at).sum(-1, keepdim=True).clamp_(max=until.shape[-1] - 1)
