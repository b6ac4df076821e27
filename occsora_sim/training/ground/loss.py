"""The training of outpainters: hidden tokens of recorded ground are to be told from those in sight."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from occsora_sim.models.ground.outpainter import Outpainter, route_features
from occsora_sim.models.ground.plan import groups_of_cells, patterns_of, plan_table
from occsora_sim.models.ground.tokenizer import GroundTokenizer
from occsora_sim.training.ground.masks import known_ground, shown_ground
from occsora_sim.training.ground.towns import Crops, GroundTowns
from occsora_sim.training.loop import StepLoss

VIEW = 80.0
"""Edge of what an ego sees [m]."""

ASKED = 2**20
"""Logits of a window that a training step asks for, on average; half of the tokens are enough."""

WITHOUT_ROUTE, WITHOUT_PLACE = 0.15, 0.3
"""Shares of crops that are told no route and no kind of place."""


@dataclass(frozen=True, kw_only=True)
class TokenCrops:
    """n windows of tokens; the axes as of `Outpainter.forward`."""

    codes: Tensor
    route: Tensor
    place: Tensor
    plan: Tensor | None = None


Tokenise = Callable[[Crops], tuple[Tensor, Tensor | None]]
"""Crops -> codes (n, x, y) int64 and codes of their plan (n, x / 2, y / 2), if there is one."""


def ground_tokens(tokenizer: GroundTokenizer, table: Tensor | None, palette: Tensor) -> Tokenise:
    """Tokens of 1.6 m by `tokenizer`, with the plan that the `table` of a vocabulary makes (`plan_table`)."""

    @torch.no_grad()
    def tokenise(crops: Crops) -> tuple[Tensor, Tensor | None]:
        plan = None if table is None else table[patterns_of(groups_of_cells(crops.kinds, palette))]
        return tokenizer.look_up(crops.kinds), plan

    return tokenise


def plan_tokens(vocabulary: Tensor, palette: Tensor) -> Tokenise:
    """Tokens of a plan, of 3.2 m."""
    table = plan_table(vocabulary)

    def tokenise(crops: Crops) -> tuple[Tensor, Tensor | None]:
        return table[patterns_of(groups_of_cells(crops.kinds, palette))], None

    return tokenise


def draw_crops(
    towns: GroundTowns, tokenise: Tokenise, model: Outpainter, count: int, rng: np.random.Generator
) -> TokenCrops:
    """Windows of recorded ground for `model`; some without route or place."""
    config = model.config
    crops = towns.draw(count, round(config.window * config.token / 0.4), rng)
    codes, plan = tokenise(crops)
    route = route_features(crops.route, config.window, config.token)
    route = route * torch.from_numpy(rng.random(count) >= WITHOUT_ROUTE).float()[:, None, None, None]
    place = torch.where(torch.from_numpy(rng.random(count) < WITHOUT_PLACE), -1, crops.place)
    return TokenCrops(codes=codes, route=route, place=place, plan=plan)


def outpaint_loss(
    model: Outpainter, towns: GroundTowns, tokenise: Tokenise, batch: int, seed: int
) -> StepLoss:
    """What a training step minimises: the cross-entropy of hidden tokens."""
    config = model.config

    def loss(step: int, generator: torch.Generator) -> tuple[Tensor, Mapping[str, float | Tensor]]:
        crops = draw_crops(towns, tokenise, model, batch, np.random.default_rng((seed, step)))
        known = known_ground(batch, config.window, config.tile, VIEW / config.token, generator)
        shown = shown_ground(known, config.tile, generator)
        hidden = torch.nonzero(~shown.flatten())[:, 0]
        # Answers among thousands of codes cost more than the rest of a step: some of the hidden tokens are asked for,
        # always as many, since every new shape is compiled and kept.
        most = batch * min(ASKED // config.codes, config.window**2 // 2)
        asked = hidden[torch.randint(len(hidden), (most,), generator=generator)]
        features = model(crops.codes, shown, crops.route, crops.place, crops.plan).flatten(0, 2)
        logits = model.logits(features.index_select(0, asked))
        total = F.cross_entropy(logits.float(), crops.codes.flatten()[asked])
        return total, {"train/loss": total.detach(), "train/hidden": (~shown).float().mean()}

    return loss


@torch.no_grad()
def validation(model: Outpainter, towns: GroundTowns, tokenise: Tokenise, batches: int = 8) -> float:
    """Cross-entropy [nats] of hidden tokens of the tile in the middle, on towns held apart; always the same crops."""
    config, batch = model.config, 16
    edge = (config.window - config.tile) // 2
    inside = slice(edge, edge + config.tile)
    total = count = 0.0
    for number in range(batches):
        generator = torch.Generator().manual_seed(number)
        crops = draw_crops(towns, tokenise, model, batch, np.random.default_rng((7, number)))
        known = known_ground(batch, config.window, config.tile, VIEW / config.token, generator)
        shown = shown_ground(known, config.tile, generator)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = model.logits(model(crops.codes, shown, crops.route, crops.place, crops.plan))
        entropy = F.cross_entropy(logits.flatten(0, 2).float(), crops.codes.flatten(), reduction="none")
        hidden = (~shown)[:, inside, inside]
        total += float((entropy.view_as(crops.codes)[:, inside, inside] * hidden).sum())
        count += float(hidden.sum())
    return total / count
