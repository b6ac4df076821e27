"""Latent flow on unseen tokens, beside masked discrete diffusion: a code is a point of a few principal components of
what codes look like, the network answers the clean points, and what is drawn becomes the nearest codes at the end.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from outpainting.ground_towns import GroundTowns
from outpainting.hourglass import Hourglass
from outpainting.known_ground import known_ground
from outpainting.loss import VIEW, Tokenise, draw_crops
from outpainting.outpaint import ROUTE_FEATURES, OutpainterConfig
from torch import Tensor, nn

from occsora_sim import counter_random
from occsora_sim.models.flow import noise_levels, sampling_levels
from occsora_sim.scene_prompt import PLACES
from occsora_sim.training.loop import StepLoss

CHANNELS = 16
_NOISE = 0x0B9


class FlowPainter(nn.Module):
    """As `Outpainter`, on points; `draw` has its arguments and answers codes."""

    points: Tensor

    def __init__(self, config: OutpainterConfig, described: Tensor) -> None:
        super().__init__()
        self.config = config
        width = config.body.width
        common = 1 / (torch.arange(len(described), dtype=torch.float64) + 3)  # codes come commonest first
        common = (common / common.sum())[:, None]
        centred = described.double() - (common * described).sum(0)
        axes = torch.linalg.svd(centred * common.sqrt(), full_matrices=False)[2][:CHANNELS]
        points = centred @ axes.T
        deviation = (common * points**2).sum(0).sqrt()
        self.register_buffer("points", (points / (deviation * deviation.mean()).sqrt()).float())
        self.seen, self.noisy = nn.Linear(CHANNELS, width), nn.Linear(CHANNELS, width)
        self.level = nn.Sequential(nn.Linear(32, width), nn.ReLU(), nn.Linear(width, width))
        self.route, self.place = nn.Linear(ROUTE_FEATURES, width), nn.Embedding(len(PLACES) + 1, width)
        self.body, self.norm = Hourglass(config.body), nn.LayerNorm(width)
        self.answer = nn.Linear(width, CHANNELS)
        nn.init.zeros_(self.answer.weight)

    def forward(self, z: Tensor, known: Tensor, level: Tensor, route: Tensor, place: Tensor) -> Tensor:
        """Clean points (b, x, y, CHANNELS) from points z that are noisy where `known` (b, x, y) is False."""
        angle = level[:, None] * 2.0 ** torch.arange(16, device=z.device) / 2
        told = self.level(torch.cat((angle.cos(), angle.sin()), dim=-1))[:, None, None]
        x = torch.where(known[..., None], self.seen(z), self.noisy(z)) + told
        x = x + self.route(route) + self.place(place % (len(PLACES) + 1))[:, None, None]
        return self.answer(self.norm(self.body(x)))

    def draw(
        self, codes: Tensor, known: Tensor, route: Tensor, place: Tensor, key: Tensor, plan: Tensor | None = None, *,
        steps: int = 16, **_: Any,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """The tile in the middle of each window: codes (b, tile, tile), and zeros (b,)."""
        tile, edge = self.config.tile, (self.config.window - self.config.tile) // 2
        inside = slice(edge, edge + tile)
        clean = self.points[codes]
        z = counter_random.normal(key, _NOISE, *clean.shape[1:])
        levels = sampling_levels(steps)
        for high, low in pairwise(levels):
            noisy = torch.where(known[..., None], clean, z)
            x = self(noisy, known, torch.full((len(z),), high), route, place).float()
            z = x + (z - x) * (low / high)
        z = z[:, inside, inside]
        nearest = (self.points.square().sum(-1) - 2 * z @ self.points.T).argmin(-1)
        return torch.where(known[:, inside, inside], codes[:, inside, inside], nearest), torch.zeros(
            len(codes)
        )


def flow_painter_loss(
    model: FlowPainter, towns: GroundTowns, tokenise: Tokenise, batch: int, seed: int
) -> StepLoss:
    """What a training step minimises: the squared error of unseen tokens' clean points."""
    config = model.config

    def loss(step: int, generator: torch.Generator) -> tuple[Tensor, Mapping[str, float | Tensor]]:
        crops = draw_crops(towns, tokenise, model, batch, np.random.default_rng((seed, step)))  # type: ignore[arg-type]
        known = known_ground(batch, config.window, config.tile, VIEW / config.token, generator)
        level, clean = noise_levels(batch, generator), model.points[crops.codes]
        t = level[:, None, None, None]
        noisy = (1 - t) * clean + t * torch.randn(clean.shape, generator=generator)
        noisy = torch.where(known[..., None], clean, noisy)
        error = (model(noisy, known, level, crops.route, crops.place).float() - clean) ** 2
        weight = (~known).float()[..., None] / t.clamp(min=0.3)
        total = (error * weight).sum() / ((~known).sum() * CHANNELS).clamp(min=1)
        return total, {"train/loss": total.detach()}

    return loss
