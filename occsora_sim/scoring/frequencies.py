"""How often each class occurs, and how far two sets of frames are apart in that."""

from __future__ import annotations

import torch
from torch import Tensor

from occsora_sim.errors import ConfigurationError
from occsora_sim.grid import FREE, NUM_CLASSES


def class_counts(frames: Tensor) -> Tensor:
    """Voxels of each class: uint8 (b, ..., x, y, z) -> (b, NUM_CLASSES) int64.

    Raises:
        ConfigurationError: a label is none of the classes.

    """
    flat = frames.flatten(1)
    if flat.numel() and int(flat.max()) >= NUM_CLASSES:
        raise ConfigurationError(f"class counts: label {int(flat.max())}; labels go up to {NUM_CLASSES - 1}")
    return torch.stack([torch.bincount(row.int(), minlength=NUM_CLASSES) for row in flat])


def frequencies(counts: Tensor) -> Tensor:
    """Shares of all voxels: (..., NUM_CLASSES) -> float64 of that shape; the last axis sums to 1 (0 if nothing is)."""
    counts = counts.double()
    return counts / counts.sum(dim=-1, keepdim=True).clamp(min=1)


def filled_frequencies(counts: Tensor) -> Tensor:
    """Shares of the filled voxels: (..., NUM_CLASSES) -> (..., NUM_CLASSES - 1) float64; free left out."""
    return frequencies(counts[..., :FREE])


def jensen_shannon(p: Tensor, q: Tensor) -> Tensor:
    """Jensen-Shannon divergence to base 2, in [0, 1] (Lin 1991, Divergence measures based on the Shannon entropy).

    JSD(p, q) = H((p + q) / 2) - (H(p) + H(q)) / 2, with H the Shannon entropy in bits.

    Args:
        p: (..., k) shares that sum to 1.
        q: (..., k).

    Returns:
        (...) float64: 0 for equal distributions, 1 for those that share no class.

    """
    return (_entropy((p + q) / 2) - (_entropy(p) + _entropy(q)) / 2).clamp(0.0, 1.0)


def _entropy(p: Tensor) -> Tensor:
    """Shannon entropy [bit] of (..., k); 0 log 0 is 0."""
    return -torch.special.xlogy(p, p).sum(dim=-1) / torch.log(torch.tensor(2.0, dtype=p.dtype))


def roughness(frames: Tensor) -> Tensor:
    """Share of unlike neighbours along x and y among the pairs of voxels of which one is filled.

    It rises where surfaces dissolve into specks and falls where they are washed out; class frequencies show neither.

    Args:
        frames: (b, ..., x, y, z) uint8.

    Returns:
        (b,) float64 in [0, 1]; 0 where everything is free.

    """
    unlike = filled = torch.zeros(len(frames), dtype=torch.int64, device=frames.device)
    for axis in (-3, -2):
        size = frames.shape[axis] - 1
        a, b = frames.narrow(axis, 0, size), frames.narrow(axis, 1, size)
        unlike = unlike + (a != b).flatten(1).sum(dim=1)
        filled = filled + ((a != FREE) | (b != FREE)).flatten(1).sum(dim=1)
    return unlike.double() / filled.clamp(min=1)
