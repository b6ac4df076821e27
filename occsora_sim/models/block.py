"""A block of the diffusion transformer: attention and an MLP under a condition (adaLN-Zero, Peebles & Xie 2023)."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F


class Attention(nn.Module):
    """Multi-head self-attention over all tokens, with one fused projection for query, key and value."""

    def __init__(self, hidden: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(hidden, 3 * hidden)
        self.out = nn.Linear(hidden, hidden)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(b, n, hidden) -> (b, n, hidden)."""
        b, n, width = x.shape
        q, k, v = self.qkv(x).view(b, n, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4).unbind(0)
        attended = F.scaled_dot_product_attention(q, k, v)  # (b, heads, n, hidden / heads)
        return self.out(attended.transpose(1, 2).reshape(b, n, width))


class MixingMLP(nn.Module):
    """Two linear layers with a depthwise convolution over (h, w) between them, added to what it reads (Mix-FFN, Xie
    et al. 2021, SegFormer, section 3.1): local continuation, which costs attention many examples to learn.
    """

    def __init__(self, hidden: int, inner: int, edge: int) -> None:
        super().__init__()
        self.expand = nn.Linear(hidden, inner)
        self.mix = nn.Conv2d(inner, inner, edge, padding=edge // 2, groups=inner)
        self.reduce = nn.Linear(inner, hidden)

    def forward(self, x: torch.Tensor, grid: tuple[int, int, int]) -> torch.Tensor:
        """Tokens x (b, t h w, hidden) of a grid (t, h, w) -> same shape."""
        _, h, w = grid
        x = self.expand(x)
        image = x.view(-1, h, w, x.shape[-1]).permute(
            0, 3, 1, 2
        )  # (b t, inner, h, w), channels last in memory
        mixed = self.mix(image).permute(0, 2, 3, 1).reshape(x.shape)
        return self.reduce(F.gelu(x + mixed, approximate="tanh"))


class Block(nn.Module):
    """Attention and MLP, each shifted, scaled and gated by the condition (adaLN-Zero)."""

    def __init__(self, hidden: int, heads: int, mlp_ratio: float, mixing: int = 0) -> None:
        super().__init__()
        inner = int(hidden * mlp_ratio)
        # No affine parameters: the condition supplies shift and scale.
        self.norm1 = nn.LayerNorm(hidden, elementwise_affine=False, eps=1e-6)
        self.attention = Attention(hidden, heads)
        self.norm2 = nn.LayerNorm(hidden, elementwise_affine=False, eps=1e-6)
        self.mlp: nn.Module
        if mixing:
            self.mlp = MixingMLP(hidden, inner, mixing)
        else:
            self.mlp = nn.Sequential(
                nn.Linear(hidden, inner), nn.GELU(approximate="tanh"), nn.Linear(inner, hidden)
            )
        self.modulation = nn.Linear(hidden, 6 * hidden)

    def forward(self, x: torch.Tensor, condition: torch.Tensor, grid: tuple[int, int, int]) -> torch.Tensor:
        """Tokens x (b, n, hidden) of a grid (t, h, w), condition (b, hidden) after its SiLU -> (b, n, hidden)."""
        shift1, scale1, gate1, shift2, scale2, gate2 = self.modulation(condition)[:, None].chunk(6, dim=-1)
        x = torch.addcmul(x, gate1, self.attention(torch.addcmul(shift1, self.norm1(x), 1 + scale1)))
        inner = torch.addcmul(shift2, self.norm2(x), 1 + scale2)
        inner = self.mlp(inner, grid) if isinstance(self.mlp, MixingMLP) else self.mlp(inner)
        return torch.addcmul(x, gate2, inner)
