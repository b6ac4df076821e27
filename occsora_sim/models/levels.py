"""Diffusion of a latent of finite levels: the network answers how likely each level is, from which the noise follows.

A level is one of a few; squared error asks for their mean, cross-entropy for all that may be. The mean of what may be
is the best estimate of the clean latent, so the process and its sampler stay DDPM's (Dieleman et al. 2022, "Continuous
diffusion for categorical data", section 3).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional as F

from occsora_sim.models.ddpm import Answer, Schedule


class Levels:
    """The levels of a scaled latent.

    Args:
        levels: how many each of its c channels has, evenly spaced in [-scale, scale].
        scale: the largest one.

    Attributes:
        logits: channels of an answer: as many for each channel as the one with most levels has.

    """

    def __init__(self, levels: Sequence[int], scale: float) -> None:
        count = torch.tensor(levels)[:, None]  # (c, 1)
        number = torch.arange(int(count.max()))  # (l,)
        self.values = (2 * number / (count - 1) - 1) * scale  # (c, l)
        self.missing = number >= count
        self.scale, self.logits = scale, self.values.numel()

    def likely(self, answer: Tensor) -> Tensor:
        """Logits (b, c, l, t, h, w) float32 of an answer (b, c l, t, h, w); -inf where a channel has fewer levels."""
        parts = rearrange(answer.float(), "b (c l) t h w -> b c l t h w", c=len(self.values))
        return parts.masked_fill(self.missing.to(answer.device)[..., None, None, None], -torch.inf)

    def of(self, latent: Tensor) -> Tensor:
        """The levels' numbers (b, c, t, h, w) long of a latent that has nothing between them."""
        most = (~self.missing).sum(1).to(latent.device).view(-1, 1, 1, 1) - 1
        return ((latent / self.scale + 1) / 2 * most).round().long()

    def expected(self, answer: Tensor) -> Tensor:
        """The mean (b, c, t, h, w) of what may be."""
        values = self.values.to(answer.device)[..., None, None, None]
        return (self.likely(answer).softmax(2) * values).sum(2)

    def as_noise(self, answer: Tensor, noisy: Tensor, schedule: Schedule, step: Tensor) -> Tensor:
        """An answer to `noisy` at `step` as `ddpm_sample` wants it (b, 2c, t, h, w): the noise, the least variance."""
        signal, noise = _shares(schedule, step, noisy)
        estimate = (noisy - signal * self.expected(answer)) / noise
        return torch.cat([estimate, -torch.ones_like(estimate)], dim=1)

    def loss(
        self, answer: Answer, clean: Tensor, schedule: Schedule, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, float]]:
        """Cross-entropy of the levels of `clean` (b, c, t, h, w) [nat], and what to log; steps are drawn evenly."""
        places = torch.randint(len(schedule), (len(clean),), generator=generator, device=generator.device)
        drawn = torch.randn(clean.shape, generator=generator, device=generator.device).to(clean.device)
        step = schedule.steps.to(clean.device)[places.to(clean.device)]
        signal, noise = _shares(schedule, step, clean)
        logits = self.likely(answer(signal * clean + noise * drawn, step))
        loss = F.cross_entropy(logits.transpose(1, 2), self.of(clean))
        return loss, {"loss": loss.item()}


def _shares(schedule: Schedule, step: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
    """Factors of signal and noise (b, 1, ...) at the steps (b,) of a whole schedule (DDPM, equation 4)."""
    kept = schedule.kept.to(like.device)[step].float().view(-1, *[1] * (like.ndim - 1))
    return kept.sqrt(), (1 - kept).sqrt()
