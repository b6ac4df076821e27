"""Rectified flow with clean-latent prediction: the few-step objective and sampler of the closed-loop presets.

A latent x and noise e are joined by z_t = (1 - t) x + t e, t in [0, 1] (Liu et al. 2022; Lipman et al. 2023). The
network answers the clean latent, so that one step from t = 1 is the conditional mean and already a prediction.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from occsora_sim.models.noise import randn

Denoise = Callable[[Tensor, Tensor], Tensor]
"""(z (b, ...), t (b,)) -> clean latent (b, ...)."""


def noise_levels(count: int, generator: torch.Generator) -> Tensor:
    """Training levels t (count,): a fifth at pure noise, where one-step sampling starts, the rest logit-normal
    around a half and towards noise (Esser et al. 2024, section 3.1).
    """
    t = torch.sigmoid(0.4 + torch.randn(count, generator=generator))
    pure = torch.rand(count, generator=generator) < 0.2
    return torch.where(pure, torch.ones_like(t), t)


def flow_loss(
    denoise: Denoise, x: Tensor, weight: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Weighted squared error of the clean latent.

    Args:
        denoise: the network with its conditions bound.
        x: (b, c, t, h, w) clean latents.
        weight: broadcastable to x, the weight of each latent cell.
        generator: of the noise and the levels, on the CPU.

    Returns:
        the loss, and the estimate of x (b, c, t, h, w).

    """
    level = noise_levels(len(x), generator).to(x)
    noise = torch.randn(x.shape, generator=generator).to(x)
    t = level.view(-1, *[1] * (x.ndim - 1))
    estimate = denoise((1 - t) * x + t * noise, level)
    error = (estimate - x) ** 2 * weight / t.clamp(min=0.3)  # nearly clean latents ask for precision
    return error.mean(), estimate


def flow_sample(
    denoise: Denoise,
    shape: Sequence[int],
    steps: int,
    generators: Sequence[torch.Generator],
    device: torch.device,
) -> Tensor:
    """Euler steps from noise to a latent of `shape` (b, ...), row i from generators[i]; one step gives the mean."""
    z = randn(shape, generators, device)
    for k in range(steps):
        now, after = 1 - k / steps, 1 - (k + 1) / steps
        clean = denoise(z, torch.full((len(z),), now, device=device))
        z = clean + (after / now) * (z - clean)
    return z
