"""Square cuts from latents, placed where there is something to draw: cheaper examples for the denoiser's training.

Patch diffusion (Wang et al. 2023, "Patch Diffusion: Faster and More Data-Efficient Training of Diffusion Models"):
a denoiser that is told where in the image a patch lies learns from patches what it needs for whole images.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from occsora_sim.errors import ConfigurationError


@dataclass(frozen=True, kw_only=True)
class Draws:
    """How often each chunk of a training batch is noised. What a chunk costs is mostly its context and its latent, so
    several draws of one are nearly as good as several chunks.

    Attributes:
        whole: chunks of the batch that are denoised whole, one noise level each; half of them from pure noise.
        cuts: square cuts denoised of every chunk, each with a noise level of its own.
        edge: edge of a cut [latent cells].

    """

    whole: int = 2
    cuts: int = 4
    edge: int = 13

    def __post_init__(self) -> None:
        if self.whole < 1 or self.cuts < 0 or self.edge < 1:
            raise ConfigurationError(
                f"draws: whole {self.whole} and edge {self.edge} must be 1 or more, cuts {self.cuts} 0 or more"
            )


def place_cuts(interest: Tensor, draws: Draws, generator: torch.Generator) -> Tensor:
    """Corners of cuts: each holds a cell drawn by its interest, somewhere in it.

    Args:
        interest: (b, h, w) positive numbers.
        draws: how many cuts of what size.
        generator: of the draws, on the CPU.

    Returns:
        (b cuts, 2) int64: first row and column of each cut, those of the first row of the batch first.

    """
    h, w = interest.shape[1:]
    size = torch.tensor((h, w))
    edge = size.clamp(max=draws.edge)
    cell = torch.multinomial(interest.flatten(1).cpu(), draws.cuts, replacement=True, generator=generator)
    cell = torch.stack((cell // w, cell % w), dim=-1).flatten(0, 1)
    corner = cell - (torch.rand(cell.shape, generator=generator) * edge).long()
    return torch.minimum(corner.clamp(min=0), size - edge)


def take_cuts(volume: Tensor, corner: Tensor, edge: int) -> Tensor:
    """Cut (b, ..., h, w) at corners (b cuts, 2) of `place_cuts`: (b cuts, ..., edge, edge), or h, w where smaller."""
    each = len(corner) // len(volume)
    return torch.stack(
        [volume[k // each, ..., i : i + edge, j : j + edge] for k, (i, j) in enumerate(corner.tolist())]
    )
