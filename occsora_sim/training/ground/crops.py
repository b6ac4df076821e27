"""Training crops of the ground by step number, and the same as tokens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from occsora_sim.models.ground.model import GroundModel
from occsora_sim.models.ground.outpainter import Outpainter, OutpainterConfig, route_features
from occsora_sim.models.ground.tokenizer import PATCH
from occsora_sim.training.ground.towns import Crops, GroundTowns
from occsora_sim.training.processes import WHOLE, Part

WITHOUT_ROUTE, WITHOUT_PLACE = 0.15, 0.3
"""Shares of crops that are told no route and no kind of place."""


class CropSampler:
    """Draws crops of `side` columns of `column` [m] within `reach` [m] of egos; the same (seed, step) draws the same: a
    resumed run is exact.
    """

    device = torch.device("cpu")

    def __init__(self, towns: GroundTowns, side: int, column: float, reach: float, *, seed: int = 0) -> None:
        self.towns, self.side, self.column, self.reach, self.seed = towns, side, column, reach, seed

    def draw(self, count: int, step: int, part: Part = WHOLE) -> Crops:
        """A part of the `count` crops for training step `step`; each part's are its own, since to look for crops is
        most of the work.
        """
        rng = np.random.default_rng(part.seeds(self.seed, step))
        return self.towns.draw(part.size(count), self.side, rng, column=self.column, reach=self.reach)


@dataclass(frozen=True, kw_only=True)
class TokenCrops:
    """n windows of tokens; the axes as of `Outpainter.forward`.

    Attributes:
        codes: (n, x, y) int64.
        seen: (n, x, y) bool, tokens that the recording knows; the codes of others mean nothing.
        route: (n, x, y, ROUTE_FEATURES).
        place: (n,) int64.
        plan: (n, x / 2, y / 2) int64, where the outpainter follows one.

    """

    codes: Tensor
    seen: Tensor
    route: Tensor
    place: Tensor
    plan: Tensor | None = None


Tokenise = Callable[[Crops, torch.Generator], TokenCrops]
"""Crops as tokens of an outpainter; the generator says which are told neither route nor place."""


def tokeniser(ground: GroundModel, painter: Outpainter) -> Tokenise:
    """Tokens for one of the outpainters of `ground`, on its device, by its books."""
    is_plan, config = painter is ground.plan, painter.config

    @torch.no_grad()
    def tokenise(crops: Crops, generator: torch.Generator) -> TokenCrops:
        count, device = len(crops.place), crops.place.device
        told = torch.rand(count, generator=generator) >= WITHOUT_ROUTE
        any_place = torch.rand(count, generator=generator) < WITHOUT_PLACE
        route = route_features(crops.route, config.window, config.token)
        plan = ground.plan_of(crops.kinds)
        return TokenCrops(
            codes=plan if is_plan else ground.tokenizer.encode(crops.kinds),
            seen=tokens_seen(crops.seen, columns_of(config) // config.window),
            route=route * told.to(device)[:, None, None, None],
            place=torch.where(any_place.to(device), -1, crops.place),
            plan=None if is_plan else plan,
        )

    return tokenise


def tokens_seen(seen: Tensor, edge: int) -> Tensor:
    """Columns (b, x, y) bool that are known -> tokens of `edge` columns of which all are, (b, x / edge, y / edge)."""
    return seen.unflatten(2, (-1, edge)).unflatten(1, (-1, edge)).all(-1).all(2)


def columns_of(config: OutpainterConfig) -> int:
    """Columns along the edge of an outpainter's window."""
    return config.window * (PATCH if config.plan else 2 * PATCH)
