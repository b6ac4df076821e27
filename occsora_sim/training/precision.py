"""Mixed precision where it pays: bf16 autocast is several times faster on some CPUs and a hundred times slower on
others, so it is measured, not assumed.
"""

from __future__ import annotations

import time
from typing import Literal

import torch

Precision = Literal["auto", "float32", "bfloat16"]


def _seconds(dtype: torch.dtype, device: torch.device) -> float:
    """Best of three timings of a 512 x 512 x 512 matrix product [s]."""
    a = torch.ones(512, 512, dtype=dtype, device=device)
    best = float("inf")
    for _ in range(4):  # the first one warms up
        begin = time.perf_counter()
        (a @ a).sum().item()
        best = min(best, time.perf_counter() - begin)
    return best


def resolve(precision: Precision, device: torch.device) -> torch.dtype:
    """The dtype to autocast to on `device`: for "auto" bfloat16 if it is measured at least 1.3 times faster."""
    if precision == "auto":
        faster = _seconds(torch.float32, device) / _seconds(torch.bfloat16, device)
        return torch.bfloat16 if faster > 1.3 else torch.float32
    return torch.bfloat16 if precision == "bfloat16" else torch.float32
