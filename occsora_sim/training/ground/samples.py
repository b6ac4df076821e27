"""Pictures beside the curves: places held apart as they were recorded, and with the tile in the middle redrawn."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from occsora_sim.device import fast_bfloat16
from occsora_sim.models.ground.model import PLAN_CALLS, GroundModel
from occsora_sim.models.ground.outpainter import Outpainter
from occsora_sim.models.ground.palette import group_of
from occsora_sim.models.ground.plan import CELLS
from occsora_sim.models.ground.tokenizer import PATCH
from occsora_sim.training.ground.crops import CropSampler, Tokenise
from occsora_sim.training.ground.loss import VALIDATION_BATCHES

WINDOWS = 4
"""Windows of a sheet, side by side."""

CALLS = 4
"""Calls of the network for a tile, as a world has them."""

EDGE = 256
"""About so many pixels a window is wide."""

COLOURS = (
    (98, 103, 112), (188, 186, 181), (140, 133, 124), (150, 178, 112), (212, 178, 128), (76, 132, 70),
    (206, 112, 78), (232, 237, 241),
)  # fmt: skip
"""Red, green and blue of each of `palette.GROUPS`."""

UNKNOWN = (24, 24, 28)
"""What the recording does not know."""

FRAME = (224, 36, 48)
"""The rim of the tile."""


class Samples:
    """Sheets of always the same windows, drawn with the same random numbers: what changes is what was learned.

    Args:
        sampler: of crops of places held apart.
        tokenise: crops as tokens of the painter.
        ground: whose palette and book the tokens mean.
        device: of the painter.

    """

    def __init__(
        self, sampler: CropSampler, tokenise: Tokenise, ground: GroundModel, device: torch.device
    ) -> None:
        number = VALIDATION_BATCHES  # the crops after those of the validation loss
        drawn = sampler.draw(WINDOWS, number).to(device)
        self.crops = tokenise(drawn, torch.Generator().manual_seed(number))
        self.ground = ground

    @torch.no_grad()
    def __call__(self, painter: Outpainter) -> Tensor:
        """A sheet (3, height, width) uint8 by `painter` as it is now: as recorded above; below with the tile in the
        middle hidden and drawn anew. The x axis of a window points up. The ground follows the recorded plan.
        """
        crops, config = self.crops, painter.config
        edge = (config.window - config.tile) // 2
        inside = slice(edge, edge + config.tile)
        known = crops.seen.clone()
        known[:, inside, inside] = False
        device = crops.codes.device
        key = torch.stack((torch.arange(WINDOWS, device=device), torch.zeros_like(crops.place)), dim=-1)
        calls = CALLS if config.plan else CALLS * PLAN_CALLS
        with torch.autocast(device.type, torch.bfloat16, enabled=fast_bfloat16(device)):
            tile = painter.draw(crops.codes, known, crops.route, crops.place, key, crops.plan, steps=calls)
        redrawn, there = crops.codes.clone(), crops.seen.clone()
        redrawn[:, inside, inside], there[:, inside, inside] = tile, True
        rows = [self._picture(painter, *row) for row in ((crops.codes, crops.seen), (redrawn, there))]
        return torch.cat(rows, dim=1).cpu()

    def _picture(self, painter: Outpainter, codes: Tensor, there: Tensor) -> Tensor:
        """Windows of tokens side by side: (3, height, width) uint8."""
        config, side = painter.config, PATCH if painter.config.plan else round(CELLS**0.5)
        parts = painter.contents[codes].unflatten(-1, (side, side))  # (n, x, y, side, side)
        group = (group_of(self.ground.palette)[parts.long()] if config.plan else parts.long()).transpose(2, 3)
        colours = torch.tensor([*COLOURS, UNKNOWN], dtype=torch.uint8, device=codes.device)
        group = group.masked_fill(~there[:, :, None, :, None], len(COLOURS)).flatten(3, 4).flatten(1, 2)
        scale = max(1, EDGE // group.shape[-1])
        pixels = colours[group].permute(0, 3, 1, 2)  # (n, 3, x, y)
        pixels = pixels.repeat_interleave(scale, -1).repeat_interleave(scale, -2)
        first = (config.window - config.tile) // 2 * side * scale - 1
        last = pixels.shape[-1] - 1 - first
        rim = torch.tensor(FRAME, dtype=torch.uint8, device=codes.device)[:, None]
        if first >= 0:
            for line in (first, last):
                pixels[:, :, line, first : last + 1] = rim
                pixels[:, :, first : last + 1, line] = rim
        pixels = F.pad(pixels.flip(-1, -2), (2, 2, 2, 2))  # up is forward, left is left
        return torch.cat(list(pixels), dim=-1)
