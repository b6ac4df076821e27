"""The training of outpainters: hidden tokens of recorded ground are to be told from those in sight."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from occsora_sim.device import fast_bfloat16
from occsora_sim.models.ground.outpainter import Outpainter
from occsora_sim.training.ground.crops import CropSampler, TokenCrops, Tokenise
from occsora_sim.training.ground.masks import known_ground, shown_ground

ASKED = 2**20
"""Logits of a window that a training step asks for, on average; half of the tokens are enough."""

VALIDATION_BATCHES, VALIDATION_BATCH = 8, 16
"""Crops of places held apart, always the same ones."""


def outpaint_loss(
    model: Outpainter, crops: TokenCrops, view: float, generator: torch.Generator
) -> tuple[Tensor, Mapping[str, float | Tensor]]:
    """The cross-entropy [nats] of hidden tokens, and what to log; `view` is the edge of what an ego sees [m]."""
    config, device = model.config, crops.codes.device
    shown = _shown(model, crops, view, generator)
    hidden = torch.nonzero((~shown & crops.seen).flatten())[:, 0]
    if not len(hidden):  # all in sight, which a small batch may be
        hidden = torch.arange(shown.numel(), device=device)
    # Answers among thousands of codes cost more than the rest of a step: some of the hidden tokens are asked for,
    # always as many, since every new shape is compiled and kept.
    most = len(shown) * max(1, min(ASKED // config.codes, config.window**2 // 2))
    asked = hidden[torch.randint(len(hidden), (most,), generator=generator).to(device)]
    features = model(crops.codes, shown, crops.route, crops.place, crops.plan).flatten(0, 2)
    logits = model.logits(features.index_select(0, asked))
    loss = F.cross_entropy(logits.float(), crops.codes.flatten()[asked])
    return loss, {"loss": loss.detach(), "hidden": (~shown).float().mean()}


class Validation:
    """Cross-entropy [nats] of hidden tokens of the tile in the middle, on places held apart; always the same crops."""

    def __init__(
        self, sampler: CropSampler, tokenise: Tokenise, view: float, device: torch.device,
        batches: int = VALIDATION_BATCHES,
    ) -> None:  # fmt: skip
        self.view = view
        self.crops = [
            tokenise(sampler.draw(VALIDATION_BATCH, number).to(device), torch.Generator().manual_seed(number))
            for number in range(batches)
        ]

    @torch.no_grad()
    def __call__(self, model: Outpainter) -> float:
        """As `model` is now."""
        config = model.config
        edge = (config.window - config.tile) // 2
        inside = slice(edge, edge + config.tile)
        total = count = 0.0
        for number, crops in enumerate(self.crops):
            device = crops.codes.device
            shown = _shown(model, crops, self.view, torch.Generator().manual_seed(number))
            with torch.autocast(device.type, torch.bfloat16, enabled=fast_bfloat16(device)):
                logits = model.logits(model(crops.codes, shown, crops.route, crops.place, crops.plan))
            entropy = F.cross_entropy(logits.flatten(0, 2).float(), crops.codes.flatten(), reduction="none")
            hidden = (~shown & crops.seen)[:, inside, inside]
            total += float((entropy.view_as(crops.codes)[:, inside, inside] * hidden).sum())
            count += float(hidden.sum())
        return total / max(1.0, count)


def _shown(model: Outpainter, crops: TokenCrops, view: float, generator: torch.Generator) -> Tensor:
    """Tokens in sight (n, x, y) bool on the device of `crops`, as halfway through the drawing of a tile."""
    config = model.config
    known = known_ground(len(crops.codes), config.window, config.tile, view / config.token, generator)
    return shown_ground(known, config.tile, generator).to(crops.seen.device) & crops.seen
