"""Quantisers: each latent vector becomes the nearest of a set of codes (van den Oord et al. 2017)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import nn

from occsora_sim.errors import ConfigurationError


@dataclass(frozen=True, kw_only=True)
class Quantised:
    """What a quantiser answers.

    Attributes:
        latent: (b, c, t, x, y), what the decoder gets; its gradient reaches the encoder.
        indices: (b, t, x, y) long, the codes chosen; None without codes.
        loss: scalar, the codebook's and the commitment's terms.
        perplexity: exponential of the entropy of the codes chosen: how many are in use. Scalar, no gradient.

    """

    latent: torch.Tensor
    indices: torch.Tensor | None
    loss: torch.Tensor
    perplexity: torch.Tensor


class IdentityQuantiser(nn.Module):
    """No quantisation: the latent as it is."""

    def forward(self, latent: torch.Tensor) -> Quantised:
        """(b, c, t, x, y) -> itself, at no loss."""
        zero = latent.new_zeros(())
        return Quantised(latent=latent, indices=None, loss=zero, perplexity=zero)

    def snap(self, latent: torch.Tensor) -> torch.Tensor:
        """A drawn latent (b, c, t, x, y) as it is."""
        return latent


class FiniteQuantiser(nn.Module):
    """Each channel rounded to evenly spaced levels in [-1, 1]; a code is a combination of them (Mentzer et al. 2023).

    There is no codebook that could collapse, and no loss to weigh.

    Args:
        levels: c numbers of levels, one a channel; 8, 8, 8 make 512 codes.

    """

    steps: torch.Tensor
    places: torch.Tensor

    def __init__(self, levels: Sequence[int]) -> None:
        super().__init__()
        if not levels or min(levels) < 2:
            raise ConfigurationError(f"quantiser: levels {tuple(levels)} must be 2 or more for each channel")
        self.codes = math.prod(levels)
        steps = torch.tensor(levels, dtype=torch.float32) - 1  # intervals between levels
        places = torch.tensor([math.prod(levels[:k]) for k in range(len(levels))])
        self.register_buffer("steps", steps.view(-1, 1, 1, 1), persistent=False)
        self.register_buffer("places", places.view(-1, 1, 1, 1), persistent=False)

    def forward(self, latent: torch.Tensor) -> Quantised:
        """Quantise (b, c, t, x, y); see `Quantised`."""
        bounded = latent.float().tanh()
        snapped = self.snap(bounded)
        indices = (((snapped + 1) / 2 * self.steps).round().long() * self.places).sum(1)
        share = torch.zeros(self.codes, device=latent.device).index_add_(
            0, indices.flatten(), torch.ones(indices.numel(), device=latent.device)
        )
        return Quantised(
            latent=bounded + (snapped - bounded).detach(),
            indices=indices,
            loss=bounded.new_zeros(()),
            perplexity=torch.special.entr(share / indices.numel()).sum().exp(),
        )

    def snap(self, latent: torch.Tensor) -> torch.Tensor:
        """A drawn latent (b, c, t, x, y) -> the nearest code's."""
        return ((latent.clamp(-1, 1) + 1) / 2 * self.steps).round() / self.steps * 2 - 1


class VectorQuantiser(nn.Module):
    """Nearest-code quantiser with straight-through gradients between two projections, as in the reference."""

    def __init__(self, codes: int = 512, width: int = 128, *, commitment: float = 1.0) -> None:
        super().__init__()
        if codes < 1 or width < 1 or commitment < 0:
            raise ConfigurationError(
                f"quantiser: {codes} codes of width {width} must be positive; commitment {commitment} must not be "
                "negative"
            )
        self.commitment = commitment
        self.codes = nn.Parameter(torch.empty(codes, width))
        # Small and equal to begin with: no code wins by its length before training says so.
        nn.init.uniform_(self.codes, -1.0 / codes, 1.0 / codes)
        self.project_in = nn.Conv3d(width, width, 1)
        self.project_out = nn.Conv3d(width, width, 1)

    def forward(self, latent: torch.Tensor) -> Quantised:
        """Quantise (b, c, t, x, y); see `Quantised`."""
        projected = self.project_in(latent).movedim(1, -1)  # (b, t, x, y, c)
        vectors = projected.reshape(-1, projected.shape[-1])
        indices = self._nearest(vectors.detach())
        chosen = nn.functional.embedding(indices, self.codes)
        # || sg[z] - e ||^2 + commitment * || z - sg[e] ||^2, equation 3 of the paper.
        loss = (chosen - vectors.detach()).square().mean()
        loss = loss + self.commitment * (chosen.detach() - vectors).square().mean()
        straight = vectors + (chosen - vectors).detach()
        counts = indices.new_zeros(len(self.codes)).index_add_(0, indices, torch.ones_like(indices))
        share = counts / counts.sum()
        return Quantised(
            latent=self.project_out(straight.view(projected.shape).movedim(-1, 1)),
            indices=indices.view(projected.shape[:-1]),
            loss=loss,
            perplexity=torch.special.entr(share).sum().exp(),
        )

    def _nearest(self, vectors: torch.Tensor) -> torch.Tensor:
        """Index (n,) of the nearest code; |z|^2 is the same for all codes and left out."""
        codes, device = self.codes.detach().float(), vectors.device.type
        # In full precision whatever the training's: bf16 cannot tell codes apart that lie close together.
        known = torch.amp.is_autocast_available(device)
        with torch.autocast(device, enabled=False) if known else nullcontext():
            return torch.addmm(codes.square().sum(-1), vectors.float(), codes.T, alpha=-2.0).argmin(-1)

    def snap(self, latent: torch.Tensor) -> torch.Tensor:
        """A drawn latent (b, c, t, x, y) as it is, as in the reference."""
        return latent
