"""A network on a square of tokens: convolutions at full resolution, attention at half (after Crowson et al. 2024).

What neighbours have to do with one another is learned by convolutions from few examples; what lies further apart by
attention, which knows relative places alone (rotary positions), so that windows of any size and place are the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from occsora_sim.errors import ConfigurationError


@dataclass(frozen=True, kw_only=True)
class HourglassConfig:
    """Sizes of an `Hourglass`.

    Attributes:
        width: channels at full resolution.
        outer: residual blocks at full resolution, on each side of the middle.
        inner: channels at half resolution.
        depth: blocks of attention.
        heads: of attention.

    """

    width: int = 128
    outer: int = 1
    inner: int = 256
    depth: int = 6
    heads: int = 4

    def __post_init__(self) -> None:
        if min(self.width, self.outer, self.inner, self.depth, self.heads) < 1:
            raise ConfigurationError(f"hourglass: all sizes must be positive, got {self}")
        if self.inner % (4 * self.heads) or self.width % 8:
            raise ConfigurationError(
                f"hourglass: inner {self.inner} must be a multiple of 4 x {self.heads} heads, width {self.width} of 8"
            )


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions on an image in channels-last memory, beside the identity."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(8, width)
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        # At first a block is the identity, so that depth costs no signal.
        nn.init.zeros_(self.second.weight)
        nn.init.zeros_(self.second.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """(b, c, x, y) -> the same."""
        return x + self.second(F.relu(self.first(F.relu(self.norm(x)))))


class Attention(nn.Module):
    """Self-attention with rotary positions, and a linear layer of two with a squared ReLU between."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.before = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width)
        self.between = nn.LayerNorm(width)
        self.expand = nn.Linear(width, 4 * width)
        self.reduce = nn.Linear(4 * width, width)
        for last in (self.out, self.reduce):
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)

    def forward(self, x: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor:
        """Tokens (b, n, c) whose places turn queries and keys by `turn` (`rotary`): the same shape."""
        qkv = rearrange(self.qkv(self.before(x)), "b n (r h c) -> r b h n c", r=3, h=self.heads)
        q, k = _turned(qkv[:2], turn).unbind(0)
        if torch.is_grad_enabled():
            # Written out: on CPUs the fused kernel's backward pass takes several times as long.
            weight = (q @ k.transpose(-1, -2)) * q.shape[-1] ** -0.5
            attended = weight.softmax(-1, dtype=q.dtype) @ qkv[2]
        else:
            attended = F.scaled_dot_product_attention(q, k, qkv[2].to(q.dtype))
        x = x + self.out(rearrange(attended, "b h n c -> b n (h c)"))
        wide = F.relu(self.expand(self.between(x)))
        return x + self.reduce(wide * wide)


class Hourglass(nn.Module):
    """(b, x, y, width) -> the same, every token knowing the others; x and y even."""

    def __init__(self, config: HourglassConfig) -> None:
        super().__init__()
        self.config = config
        width, inner = config.width, config.inner
        self.enter = nn.Sequential(*(ResidualBlock(width) for _ in range(config.outer)))
        self.down = nn.Linear(4 * width, inner)
        self.blocks = nn.ModuleList(Attention(inner, config.heads) for _ in range(config.depth))
        self.middle = nn.LayerNorm(inner)
        self.up = nn.Linear(inner, 4 * width)
        self.leave = nn.Sequential(*(ResidualBlock(width) for _ in range(config.outer)))

    def forward(self, x: Tensor, half: Tensor | None = None) -> Tensor:
        """The tokens x (b, x, y, width), with `half` (b, x / 2, y / 2, inner) added at half resolution."""
        image = self.enter(x.permute(0, 3, 1, 2))  # channels stay last in memory
        tokens = self.down(rearrange(image, "b c (x p) (y q) -> b x y (p q c)", p=2, q=2))
        if half is not None:
            tokens = tokens + half
        shape = tokens.shape[1:3]
        turn = rotary(shape[0], shape[1], self.config.inner // self.config.heads, tokens.device, tokens.dtype)
        tokens = tokens.flatten(1, 2)
        for block in self.blocks:
            tokens = block(tokens, turn)
        tokens = self.up(self.middle(tokens)).unflatten(1, shape)
        wide = rearrange(tokens, "b x y (p q c) -> b (x p) (y q) c", p=2, q=2).permute(0, 3, 1, 2)
        return self.leave(image + wide).permute(0, 2, 3, 1)


@lru_cache(maxsize=16)
def rotary(
    x: int, y: int, width: int, device: torch.device, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor]:
    """Cosines and sines (x y, width) by which the places of an x by y grid turn a head's channels, the first half of
    them by x and the second by y; wavelengths from 6 to 600 tokens. Of each pair of channels the first one's sine has
    the minus sign.
    """
    quarter = width // 4
    frequency = 100.0 ** -(torch.arange(quarter, device=device) / quarter)
    along = (torch.arange(x, device=device)[:, None] * frequency)[:, None].expand(x, y, quarter)
    across = (torch.arange(y, device=device)[:, None] * frequency)[None].expand(x, y, quarter)
    angle = torch.cat((along, along, across, across), dim=-1).flatten(0, 1)
    sine = torch.cat((-along, along, -across, across), dim=-1).flatten(0, 1).sin()
    return angle.cos().to(dtype), sine.to(dtype)


def _turned(x: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor:
    """Heads x (..., n, c) with pairs of channels turned by angles of `rotary`."""
    other = x.unflatten(-1, (2, 2, -1)).flip(-2).flatten(-3)
    return x * turn[0] + other * turn[1]
