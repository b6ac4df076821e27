"""Residual block with axial attention: along t, along x, along y (VideoGPT, Yan et al. 2021)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F


class ChannelNorm(nn.LayerNorm):
    """Layer normalisation over the channels of each position of (b, c, t, x, y)."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(b, c, t, x, y) -> the same shape."""
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


class AxisAttention(nn.Module):
    """Multi-head self-attention along one axis of a channels-last tensor; the others are a batch."""

    def __init__(self, width: int, heads: int, axis: int) -> None:
        super().__init__()
        self.heads = heads
        self.axis = axis
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width)
        # Variance-preserving starts; the three axes are summed inside a residual branch that ends here.
        nn.init.normal_(self.qkv.weight, std=width**-0.5)
        nn.init.normal_(self.out.weight, std=width**-0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(b, t, x, y, c) -> the same shape."""
        rows = x.movedim(self.axis, -2)  # (b, ., ., n, c)
        lead, n, width = rows.shape[:-2], rows.shape[-2], rows.shape[-1]
        qkv = self.qkv(rows).reshape(-1, n, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # (rows, heads, n, c / heads) each
        attended = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(*lead, n, width)
        return self.out(attended).movedim(-2, self.axis)


class AxialResidualBlock(nn.Module):
    """Two convolutions through half the width, then the sum of three attentions, added to the input.

    Batch normalisation and ReLU stand ahead of each of the three, as in the reference. That ties the rows
    of a training batch together; in evaluation each row is on its own. With `norm` another normalisation stands there.
    """

    def __init__(self, width: int, heads: int, norm: Callable[[int], nn.Module] = nn.BatchNorm3d) -> None:
        super().__init__()
        half = width // 2
        self.convolutions = nn.Sequential(
            norm(width),
            nn.ReLU(),
            nn.Conv3d(width, half, 3, padding=1, bias=False),
            norm(half),
            nn.ReLU(),
            nn.Conv3d(half, width, 1, bias=False),
            norm(width),
            nn.ReLU(),
        )
        self.attentions = nn.ModuleList(AxisAttention(width, heads, axis) for axis in (1, 2, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(b, c, t, x, y) -> the same shape."""
        cells = self.convolutions(x).movedim(1, -1)
        mixed = sum(attention(cells) for attention in self.attentions)
        return x + mixed.movedim(-1, 1)
