"""A plan of the ground: what covers most of each cell of 1.6 m, four cells to a token of 3.2 m."""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional as F

from outpainting.ground_palette import GROUPS, group_of

PLAN_CODES = 512
"""Patterns of four cells that a plan knows; others are taken for the nearest of them."""

_CELL = 4
"""Columns along the edge of a cell."""


def groups_of_cells(kinds: Tensor, palette: Tensor) -> Tensor:
    """Kinds (b, x, y) uint8 of columns -> the commonest group (b, x / 4, y / 4) int64 of each cell of 1.6 m."""
    groups = group_of(palette).to(torch.uint8)[kinds.int()]
    cells = rearrange(groups, "b (x p) (y q) -> b x y (p q)", p=_CELL, q=_CELL)
    counts = [(cells == group).sum(-1, dtype=torch.uint8) for group in range(len(GROUPS))]
    return torch.stack(counts, dim=-1).argmax(-1)


def patterns_of(groups: Tensor) -> Tensor:
    """Groups (b, x, y) of cells -> the number (b, x / 2, y / 2) int64 of the pattern of each four, below 8^4."""
    four = rearrange(groups, "b (x p) (y q) -> b x y (p q)", p=2, q=2)
    return (four * torch.tensor([1, 8, 64, 512], device=groups.device)).sum(-1)


def common_patterns(patterns: Tensor, codes: int = PLAN_CODES) -> Tensor:
    """The commonest `codes` of `patterns` (any shape), which make a plan's vocabulary: (codes,) int64."""
    counts = torch.bincount(patterns.flatten(), minlength=len(GROUPS) ** 4)
    return counts.argsort(descending=True, stable=True)[:codes]


def plan_table(vocabulary: Tensor) -> Tensor:
    """The nearest code (8^4,) int64 of every pattern: the one that has most of the four cells in common."""
    everything = pattern_features(torch.arange(len(GROUPS) ** 4, device=vocabulary.device))
    return (everything @ pattern_features(vocabulary).T).argmax(-1)


def pattern_features(patterns: Tensor) -> Tensor:
    """Which group is in which of the four cells: patterns (k,) -> (k, 32) float32 of ones and zeros."""
    steps = patterns[:, None] // torch.tensor([1, 8, 64, 512], device=patterns.device) % 8
    return F.one_hot(steps, len(GROUPS)).flatten(1).float()
