"""Gaussian noise with one generator a row, so that a row is the same alone and in a batch."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from occsora_sim.errors import ConfigurationError


def randn(
    shape: Sequence[int], generators: Sequence[torch.Generator], device: torch.device | str = "cpu"
) -> torch.Tensor:
    """Standard normal noise.

    Args:
        shape: (b, ...), the shape wanted.
        generators: b of them; row i advances generators[i] and no other.
        device: where the noise goes. It is drawn where each generator lives, so CPU generators give the same
            noise on every device.

    Returns:
        float32 tensor of `shape`.

    Raises:
        ConfigurationError: the number of generators is not b.

    """
    if len(shape) == 0 or len(generators) != shape[0]:
        raise ConfigurationError(
            f"noise of shape {tuple(shape)} needs one generator a row, got {len(generators)}; "
            "make one for each seed"
        )
    if not generators:
        return torch.zeros(tuple(shape), device=device)
    rows = [torch.randn(tuple(shape[1:]), generator=one, device=one.device) for one in generators]
    return torch.stack([row.to(device) for row in rows])
