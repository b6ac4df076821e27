"""Random numbers as a function of (seed, frame, use): the same alone, in a batch, and on any device.

Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3", section 3.3), in int64 tensors. There
is no generator whose state has to be kept, saved or moved between devices: a world remembers its seed and how many
frames it has drawn.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10
_LOW = 0xFFFFFFFF


def philox(counter: tuple[Tensor, Tensor, Tensor, Tensor], key: tuple[Tensor, Tensor]) -> tuple[Tensor, ...]:
    """Philox4x32-10: four words of 32 bits, in int64 tensors of one shape, from a counter of four and a key of two."""
    a, b, c, d = counter
    k, m = key
    for _ in range(_ROUNDS):
        # The product of two words has 64 bits: int64 wraps around to the right ones, read as unsigned below.
        first, second = a * _MULTIPLIERS[0], c * _MULTIPLIERS[1]
        a, b, c, d = (second >> 32 & _LOW) ^ b ^ k, second & _LOW, (first >> 32 & _LOW) ^ d ^ m, first & _LOW
        k, m = (k + _WEYL[0]) & _LOW, (m + _WEYL[1]) & _LOW
    return a, b, c, d


def words(key: Tensor, use: int, count: int) -> Tensor:
    """Random words of 32 bits.

    Args:
        key: (b, 2) int64, the seed and the frame of each world.
        use: what they are for; each use has numbers of its own.
        count: how many a world.

    Returns:
        (b, count) int64 in [0, 2^32).

    """
    blocks = -(-count // 4)
    index = torch.arange(blocks, device=key.device).expand(len(key), blocks)
    seed, frame = key[:, :1].expand_as(index), key[:, 1:].expand_as(index)
    counter = (index, frame & _LOW, frame >> 32 & _LOW, torch.full_like(index, use))
    drawn = philox(counter, (seed & _LOW, seed >> 32 & _LOW))
    return torch.stack(drawn, dim=-1).flatten(1)[:, :count]


def uniform(key: Tensor, use: int, *shape: int) -> Tensor:
    """Uniform numbers in (0, 1), (b, *shape) float32; arguments as of `words`."""
    drawn = words(key, use, math.prod(shape)).view(len(key), *shape)
    return ((drawn >> 8).double() + 0.5).mul(2.0**-24).float()  # 24 bits fill a float32


def normal(key: Tensor, use: int, *shape: int) -> Tensor:
    """Standard normal numbers, (b, *shape) float32 (Box and Muller 1958); arguments as of `words`."""
    count = math.prod(shape)
    pairs = uniform(key, use, 2, -(-count // 2)).double()
    radius, angle = torch.sqrt(-2 * pairs[:, 0].log()), 2 * math.pi * pairs[:, 1]
    both = torch.cat((radius * angle.cos(), radius * angle.sin()), dim=1)
    return both[:, :count].reshape(len(key), *shape).float()


def categorical(key: Tensor, use: int, logits: Tensor) -> Tensor:
    """A choice from `logits` (b, ..., k): (b, ...) int64, by the largest of logits plus Gumbel noise."""
    noise = uniform(key, use, *logits.shape[1:])
    return (logits.float() - torch.log(-torch.log(noise))).argmax(dim=-1)
