"""Sinusoids that tell a network where a token lies and how noisy it is."""

from __future__ import annotations

import math

import torch
from torch.nn import functional as F


def sinusoids(values: torch.Tensor, width: int) -> torch.Tensor:
    """Cosines and sines of `values` at geometrically spaced frequencies (Vaswani et al. 2017, section 3.5).

    Args:
        values: (n,) float.
        width: channels wanted; an odd last one stays zero.

    Returns:
        (n, width) float32.

    """
    half = width // 2
    exponents = torch.arange(half, dtype=torch.float32, device=values.device) / max(half, 1)
    angles = values.float()[:, None] * torch.exp(-math.log(10_000.0) * exponents)
    return F.pad(torch.cat([angles.cos(), angles.sin()], dim=-1), (0, width - 2 * half))
