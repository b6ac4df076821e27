"""Scene prompts as a vector that the denoiser is conditioned on."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from occsora_sim.scene_prompt import PLACES

OPEN = (-1.0, math.nan)
"""A row in which both are left open."""


_GAIN = 8.0
"""Factor on the vector. From zero, an optimiser of fixed step sizes would take long to make itself heard beside the
noise level and the trajectory prompt."""


Denoise = Callable[[Tensor, Tensor], Tensor]
"""(noisy latent, noise level) -> clean latent or velocity."""


class SceneCondition(nn.Module):
    """Kind of place and vehicles in view to a vector; a part that is open adds nothing. Starts as zero, so that weights
    from before it existed serve as a start.
    """

    def __init__(self, hidden: int, width: int = 64) -> None:
        super().__init__()
        self.place = nn.Embedding(len(PLACES), hidden)
        self.vehicles = nn.Sequential(nn.Linear(2, width), nn.SiLU(), nn.Linear(width, hidden))
        nn.init.zeros_(self.place.weight)
        final = self.vehicles[2]
        assert isinstance(final, nn.Linear)
        nn.init.zeros_(final.weight)
        nn.init.zeros_(final.bias)

    def forward(self, scene: Tensor) -> Tensor:
        """Scene prompts (b, 2) float32 (`ScenePrompt.tensor`) -> (b, hidden)."""
        place, count = scene[:, 0].long(), scene[:, 1]
        of_place = self.place(place.clamp(min=0)) * (place >= 0)[:, None]
        said = ~count.isnan()
        count = count.nan_to_num()
        of_vehicles = self.vehicles(torch.stack((torch.log1p(count) / 3, count / 20), dim=-1)) * said[:, None]
        return _GAIN * (of_place + of_vehicles)


def leave_open(scene: Tensor, dropout: float, generator: torch.Generator) -> Tensor:
    """Scene prompts (b, 2) with each part left open with the probability `dropout`."""
    drop = torch.rand(scene.shape, generator=generator) < dropout
    return torch.where(drop.to(scene.device), scene.new_tensor(OPEN), scene)


def says(scene: Tensor) -> Tensor:
    """Which rows of scene prompts (b, 2) ask for anything: (b,) bool."""
    return (scene[:, 0] >= 0) | ~scene[:, 1].isnan()


def guided(asked: Denoise, open_one: Denoise, rows: Tensor, scale: float) -> Denoise:
    """Classifier-free guidance (Ho & Salimans 2022, eq. 6): `scale` times as far from the answer with an open prompt.

    Args:
        asked: denoises with the scene prompts.
        open_one: denoises with all of them left open.
        rows: (b,) bool, the rows that ask for something; the others' answers stay as they are, bit for bit.
        scale: 1 would leave the answer at the model's own.

    """

    def denoise(z: Tensor, t: Tensor) -> Tensor:
        answer = asked(z, t)
        further = torch.lerp(open_one(z, t), answer, scale)
        return torch.where(rows.view(-1, *[1] * (z.ndim - 1)), further, answer)

    return denoise
