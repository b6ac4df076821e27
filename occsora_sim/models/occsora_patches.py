"""The tokenizer's networks for one core: maps of 2 x 2 x 2 patches where the published ones convolve.

Tensors are channels-last inside, (b, t, x, y, c), so that a patch is a row and a map one matrix product.
"""

from __future__ import annotations

import torch
from einops import rearrange
from torch import nn
from torch.nn import functional as F

from occsora_sim.models.axial import AxialResidualBlock, ChannelNorm


def fold(x: torch.Tensor) -> torch.Tensor:
    """Each 2 x 2 x 2 patch of (b, t, x, y, c) as one row: (b, t / 2, x / 2, y / 2, 8 c)."""
    return rearrange(x, "b (t i) (x j) (y k) c -> b t x y (i j k c)", i=2, j=2, k=2)


def unfold(x: torch.Tensor) -> torch.Tensor:
    """The inverse of `fold`."""
    return rearrange(x, "b t x y (i j k c) -> b (t i) (x j) (y k) c", i=2, j=2, k=2)


def widths(outer: int, hidden: int, levels: int) -> list[int]:
    """Channels of each level, finest first: halved with each finer one, but not below `outer`."""
    return [outer, *(max(outer, hidden >> (levels - 1 - level)) for level in range(1, levels))]


def _body(width: int, heads: int, blocks: int) -> nn.Sequential:
    layers = [AxialResidualBlock(width, heads, ChannelNorm) for _ in range(blocks)]
    return nn.Sequential(*layers, ChannelNorm(width), nn.ReLU())


class PatchEncoder(nn.Module):
    """Folded class features -> latent.

    Args:
        folded: channels of the folded features, 8 z w.
        channels: of each level, finest first; see `widths`.
        latent: c, channels of the latent.
        heads: of the axial attention.
        blocks: residual blocks at the coarsest level.

    """

    def __init__(self, folded: int, channels: list[int], latent: int, heads: int, blocks: int) -> None:
        super().__init__()
        inputs = [folded, *(8 * width for width in channels[:-1])]
        self.maps = nn.ModuleList(nn.Linear(a, b) for a, b in zip(inputs, channels, strict=True))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for width in channels[:-1])
        self.body = _body(channels[-1], heads, blocks)
        self.last = nn.Linear(channels[-1], latent)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Features (b, 8 z w, t / 2, x / 2, y / 2) -> (b, c, t', x', y')."""
        x = self.maps[0](features.movedim(1, -1))
        for norm, layer in zip(self.norms, self.maps[1:], strict=True):
            x = layer(fold(F.gelu(norm(x))))
        return self.last(self.body(x.movedim(-1, 1)).movedim(1, -1)).movedim(-1, 1)


class PatchDecoder(nn.Module):
    """The mirror image of `PatchEncoder`; its last map, `head`, is apart, as a loss may need few of its rows."""

    def __init__(self, folded: int, channels: list[int], latent: int, heads: int, blocks: int) -> None:
        super().__init__()
        self.first = nn.Linear(latent, channels[-1])
        self.body = _body(channels[-1], heads, blocks)
        pairs = zip(channels[:0:-1], channels[-2::-1], strict=True)
        self.maps = nn.ModuleList(nn.Linear(a, 8 * b) for a, b in pairs)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for width in channels[-2::-1])
        self.head = nn.Linear(channels[0], folded)

    def rows(self, latent: torch.Tensor) -> torch.Tensor:
        """Latent (b, c, t', x', y') -> what `head` takes, (b, t / 2, x / 2, y / 2, channels)."""
        x = self.body(self.first(latent.movedim(1, -1)).movedim(-1, 1)).movedim(1, -1)
        for layer, norm in zip(self.maps, self.norms, strict=True):
            x = F.gelu(norm(unfold(layer(x))))
        return x

    def forward(self, latent: torch.Tensor) -> torch.Tensor:
        """Latent (b, c, t', x', y') -> features (b, 8 z w, t / 2, x / 2, y / 2)."""
        return self.head(self.rows(latent)).movedim(-1, 1)
