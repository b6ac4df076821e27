"""Rectified flow with clean-latent prediction: the few-step objective and sampler of the closed-loop presets.

A latent x and noise e are joined by z_t = (1 - t) x + t e, t in [0, 1] (Liu et al. 2022; Lipman et al. 2023). The
network answers the clean latent, so that one step from t = 1 is the conditional mean and already a prediction.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

Denoise = Callable[[Tensor, Tensor], Tensor]
"""(z (b, ...), t (b,)) -> clean latent (b, ...)."""

SHIFT = 3.0
"""How far the sampler's noise levels are shifted towards noise, where what is drawn is decided."""


def noise_levels(count: int, generator: torch.Generator) -> Tensor:
    """Training levels t (count,): a fifth at pure noise, where one-step sampling starts, the rest logit-normal
    and well towards noise, where what is drawn is decided (Esser et al. 2024, section 3.1).
    """
    t = torch.sigmoid(0.8 + torch.randn(count, generator=generator))
    pure = torch.rand(count, generator=generator) < 0.2
    return torch.where(pure, torch.ones_like(t), t)


def flow_loss(
    denoise: Denoise,
    x: Tensor,
    weight: Tensor,
    generator: torch.Generator,
    level: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Weighted squared error of the clean latent.

    Args:
        denoise: the network with its conditions bound.
        x: (b, c, t, h, w) clean latents.
        weight: broadcastable to x, the weight of each latent cell.
        generator: of the noise and the levels, on the CPU.
        level: (b,) noise levels; None draws them (`noise_levels`).

    Returns:
        the loss, and the estimate of x (b, c, t, h, w).

    """
    level = (noise_levels(len(x), generator) if level is None else level).to(x)
    noise = torch.randn(x.shape, generator=generator).to(x)
    t = level.view(-1, *[1] * (x.ndim - 1))
    estimate = denoise((1 - t) * x + t * noise, level)
    error = (estimate - x) ** 2 * weight / t.clamp(min=0.3)  # nearly clean latents ask for precision
    return error.mean(), estimate


def sampling_levels(steps: int, shift: float = SHIFT) -> list[float]:
    """Noise levels 1 = t_0 > ... > t_steps = 0 of a sampler: evenly spaced, then shifted towards noise by
    t -> s t / (1 + (s - 1) t) (Esser et al. 2024, equation 23).
    """
    even = [1 - k / steps for k in range(steps + 1)]
    return [shift * t / (1 + (shift - 1) * t) for t in even]


def flow_sample(denoise: Denoise, noise: Tensor, steps: int) -> Tensor:
    """From standard normal `noise` (b, ...) to a latent of its shape; one step gives the mean.

    DPM-Solver++(2M), deterministic (Lu et al. 2022, algorithm 2): with l = log((1 - t) / t), a step from l_i to l_i+1
    takes for clean not x_i but x_i + (x_i - x_i-1) (l_i+1 - l_i) / (2 (l_i - l_i-1)), the line through the last two
    answers. It calls the network once a step, as Euler's method does. Where one of the three l is infinite, at pure
    noise and at the end, the step is Euler's.
    """
    z = noise
    levels = sampling_levels(steps)
    before: Tensor | None = None
    for i, (now, after) in enumerate(pairwise(levels)):
        clean = denoise(z, torch.full((len(z),), now, device=z.device))
        towards = clean
        if before is not None and i > 1 and after > 0:
            earlier, here, there = (math.log((1 - t) / t) for t in (levels[i - 1], now, after))
            towards = clean + (clean - before) * ((there - here) / (2 * (here - earlier)))
        before = clean
        z = towards + (after / now) * (z - towards)
    return z
