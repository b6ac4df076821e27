"""Quantisers: each latent vector becomes the nearest of a set of codes (van den Oord et al. 2017)."""

from __future__ import annotations

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


class VectorQuantiser(nn.Module):
    """Nearest-code quantiser with straight-through gradients between two projections, as in the reference.

    Dead codes: a code that nothing chooses gets no gradient and stays dead. With `revive_after` above 0, a
    code not chosen in that many training steps running moves onto one of the present batch's vectors, taken
    at even strides, hence without random numbers (after Dhariwal et al. 2020, who restart from random
    ones). The reference has no such thing; 0, the default, leaves it out.
    """

    idle: torch.Tensor

    def __init__(
        self, codes: int = 512, width: int = 128, *, commitment: float = 1.0, revive_after: int = 0
    ) -> None:
        super().__init__()
        if codes < 1 or width < 1 or commitment < 0 or revive_after < 0:
            raise ConfigurationError(
                f"quantiser: {codes} codes of width {width} must be positive; commitment {commitment} and "
                f"revive_after {revive_after} must not be negative"
            )
        self.commitment = commitment
        self.revive_after = revive_after
        self.codes = nn.Parameter(torch.empty(codes, width))
        # Small and equal to begin with: no code wins by its length before training says so.
        nn.init.uniform_(self.codes, -1.0 / codes, 1.0 / codes)
        self.project_in = nn.Conv3d(width, width, 1)
        self.project_out = nn.Conv3d(width, width, 1)
        self.register_buffer("idle", torch.zeros(codes, dtype=torch.long))

    def forward(self, latent: torch.Tensor) -> Quantised:
        """Quantise (b, c, t, x, y); see `Quantised`."""
        projected = self.project_in(latent).movedim(1, -1)  # (b, t, x, y, c)
        vectors = projected.reshape(-1, projected.shape[-1])
        if self.training and self.revive_after:
            self._revive(vectors.detach())
        indices = self._nearest(vectors.detach())
        chosen = nn.functional.embedding(indices, self.codes)
        # || sg[z] - e ||^2 + commitment * || z - sg[e] ||^2, equation 3 of the paper.
        loss = (chosen - vectors.detach()).square().mean()
        loss = loss + self.commitment * (chosen.detach() - vectors).square().mean()
        straight = vectors + (chosen - vectors).detach()
        counts = torch.zeros_like(self.idle).index_add_(0, indices, torch.ones_like(indices))
        if self.training:
            self.idle.add_(1).masked_fill_(counts > 0, 0)
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

    @torch.no_grad()
    def _revive(self, vectors: torch.Tensor) -> None:
        dead = (self.idle >= self.revive_after).nonzero()[:, 0]
        if len(dead):
            stride = torch.arange(len(dead), device=dead.device) * len(vectors) // len(dead)
            self.codes[dead] = vectors[stride].to(self.codes.dtype)
            self.idle[dead] = 0
