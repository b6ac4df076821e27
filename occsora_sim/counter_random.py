"""Random numbers as a function of (seed, frame, use): the same alone, in a batch, and on any device.

Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3", section 3.3), in int64 tensors. There
is no generator whose state has to be kept, saved or moved between devices: a world remembers its seed and how many
frames it has drawn. A call costs about eighty operations however much it draws: what a frame draws for several uses at
a time is drawn together (`uniforms`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache

import torch
from torch import Tensor

from occsora_sim.constants import constant

_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10
_LOW = 0xFFFFFFFF


def philox(counter: Tensor, key: Tensor) -> Tensor:
    """Philox4x32-10: four words of 32 bits (4, b, n) int64 from counters (4, b, n) and keys (2, b), words too."""
    device = key.device
    multipliers = constant(_MULTIPLIERS, device, torch.int64)[:, None, None]
    steps = constant(tuple(tuple(r * w for w in _WEYL) for r in range(_ROUNDS)), device, torch.int64)
    keys = (key + steps[..., None]) & _LOW  # (_ROUNDS, 2, b)
    even, odd = counter[::2], counter[1::2]
    for now in keys[..., None].unbind(0):
        # The product of two words has 64 bits: int64 wraps around to the right ones. Its high word goes into the even
        # words, its low one becomes an odd word; what lies above that is masked where it is used.
        product = (even * multipliers).flip(0)
        even, odd = (product >> 32).bitwise_xor_(odd).bitwise_xor_(now).bitwise_and_(_LOW), product
    return torch.stack((even, odd & _LOW), dim=1).flatten(0, 1)


@lru_cache(maxsize=64)
def _blocks(uses: tuple[tuple[int, int], ...], device: torch.device) -> tuple[Tensor, Tensor]:
    """The number, from 0 on for each use, and the use of all blocks of four words: (n,) int64 each."""
    counts = [(use, -(-count // 4)) for use, count in uses]
    number = torch.cat([torch.arange(count) for _, count in counts])
    use = torch.cat([torch.full((count,), use) for use, count in counts])
    return number.to(device), use.to(device)


def _words(key: Tensor, uses: tuple[tuple[int, int], ...]) -> Tensor:
    """Blocks (b, n, 4) int64 of words for uses of so many words each, one use after another."""
    number, use = _blocks(uses, key.device)
    low, high = key & _LOW, key >> 32 & _LOW
    parts = number, low[:, 1:], high[:, 1:], use
    counter = torch.stack([part.expand(len(key), len(number)) for part in parts])
    return philox(counter, torch.stack((low[:, 0], high[:, 0]))).permute(1, 2, 0)


def words(key: Tensor, use: int, count: int) -> Tensor:
    """Random words of 32 bits.

    Args:
        key: (b, 2) int64, the seed and the frame of each world.
        use: what they are for; each use has numbers of its own.
        count: how many a world.

    Returns:
        (b, count) int64 in [0, 2^32).

    """
    return _words(key, ((use, count),)).flatten(1)[:, :count]


def uniforms(key: Tensor, shapes: Mapping[int, Sequence[int]]) -> list[Tensor]:
    """Uniform numbers in (0, 1) for several uses, (..., *shape) float32 each, from {use: shape} and keys (..., 2)."""
    counts = [math.prod(shape) for shape in shapes.values()]
    drawn = _words(key.flatten(0, -2), tuple(zip(shapes, counts, strict=True)))
    drawn = ((drawn >> 9).float() + 0.5).mul_(2.0**-23).flatten(1)  # of 24 bits the last would be 1
    parts = drawn.split([-(-count // 4) * 4 for count in counts], dim=1)
    return [
        part[:, :count].unflatten(1, tuple(shape)).unflatten(0, key.shape[:-1])
        for part, count, shape in zip(parts, counts, shapes.values(), strict=True)
    ]


def uniform(key: Tensor, use: int, *shape: int) -> Tensor:
    """Uniform numbers in (0, 1), (..., *shape) float32, for one use, from keys (..., 2)."""
    return uniforms(key, {use: shape})[0]


def choice_from(logits: Tensor, drawn: Tensor) -> Tensor:
    """Choices (...) int64 by `logits` (..., m), from uniform numbers (...): their distribution function inverted."""
    # In float64, or what cannot be might be what rounding leaves.
    share = logits.softmax(dim=-1, dtype=torch.float64).cumsum(dim=-1)[..., :-1]
    return (share < drawn[..., None]).sum(dim=-1)
