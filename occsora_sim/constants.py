"""Constant tensors, made once for each device: to make one in a step would copy it there, and wait."""

from __future__ import annotations

from functools import lru_cache

import torch

Numbers = float | tuple["Numbers", ...]


def constant(values: Numbers, device: torch.device | str, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """`values`, nested tuples of numbers, as a tensor on the device. It is shared: nobody may write into it."""
    return _made(values, str(device), dtype)


@lru_cache(maxsize=256)
def _made(values: Numbers, device: str, dtype: torch.dtype) -> torch.Tensor:
    return torch.tensor(values, dtype=dtype, device=device)


def span(
    count: int, device: torch.device | str, dtype: torch.dtype = torch.int64, *, first: int = 0
) -> torch.Tensor:
    """The `count` whole numbers from `first` on. Shared, too."""
    return _span(count, str(device), dtype, first)


@lru_cache(maxsize=256)
def _span(count: int, device: str, dtype: torch.dtype, first: int) -> torch.Tensor:
    return torch.arange(first, first + count, dtype=dtype, device=device)
