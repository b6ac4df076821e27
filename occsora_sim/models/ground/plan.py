"""A plan of the ground: what covers most of each cell of 4 x 4 columns, four cells to a token of the plan."""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional as F

from occsora_sim.models.ground.palette import GROUPS, group_of
from occsora_sim.models.ground.tokenizer import PATCH

CELLS = 4
"""Cells of a token, two by two."""

_PLACES = tuple(len(GROUPS) ** k for k in range(CELLS))


def groups_of_cells(kinds: Tensor, palette: Tensor) -> Tensor:
    """Kinds (b, x, y) uint8 of columns -> the commonest group (b, x / 4, y / 4) int64 of each cell."""
    groups = group_of(palette).to(torch.uint8)[kinds.int()]
    cells = rearrange(groups, "b (x p) (y q) -> b x y (p q)", p=PATCH, q=PATCH)
    counts = [(cells == group).sum(-1, dtype=torch.uint8) for group in range(len(GROUPS))]
    return torch.stack(counts, dim=-1).argmax(-1)


def patterns_of(groups: Tensor) -> Tensor:
    """Groups (b, x, y) of cells -> the number (b, x / 2, y / 2) int64 of the pattern of each four, below 8^4."""
    four = rearrange(groups, "b (x p) (y q) -> b x y (p q)", p=2, q=2)
    return (four * torch.tensor(_PLACES, device=groups.device)).sum(-1)


def cells_of(patterns: Tensor) -> Tensor:
    """The groups (k, CELLS) uint8 of the cells of patterns (k,) int64."""
    return (patterns[:, None] // torch.tensor(_PLACES, device=patterns.device) % len(GROUPS)).to(torch.uint8)


def common_patterns(patterns: Tensor, codes: int) -> Tensor:
    """The commonest `codes` of `patterns` (any shape), which make a plan's book: cells (codes, CELLS) uint8."""
    counts = torch.bincount(patterns.flatten(), minlength=len(GROUPS) ** CELLS)
    return cells_of(counts.argsort(descending=True, stable=True)[:codes])


def plan_table(book: Tensor) -> Tensor:
    """The nearest code (8^4,) int64 of every pattern: the one that has most of the four cells in common."""
    everything = cells_of(torch.arange(len(GROUPS) ** CELLS, device=book.device))
    ours, theirs = (F.one_hot(cells.long(), len(GROUPS)).flatten(1).float() for cells in (everything, book))
    return (ours @ theirs.T).argmax(-1)
