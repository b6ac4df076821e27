"""A small network that is trained to tell two sets of crops apart, and how well it does so in towns it never saw.

Its AUC is the chance that it finds a drawn crop more like a drawn one than a recorded crop: 0.5 is a guess, 1 never
errs (a classifier two-sample test, Lopez-Paz and Oquab 2017).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from occsora_sim.errors import ConfigurationError
from occsora_sim.scoring.ground_views import KINDS
from occsora_sim.scoring.interval import mean_interval


@dataclass(frozen=True, kw_only=True)
class ClassifierConfig:
    """How the network is built and trained; figures can be compared where this is the same.

    Attributes:
        channels: of its three convolutions.
        steps: of AdamW, with a cosine from `rate` to 0.
        batch: crops of either set in a step.
        rate: learning rate at the beginning.
        decay: weight decay.
        folds: groups that the towns are dealt to; each is judged by a network trained on the others.

    """

    channels: tuple[int, int, int] = (24, 48, 64)
    steps: int = 240
    batch: int = 16
    rate: float = 3e-3
    decay: float = 1e-2
    folds: int = 2


class CropClassifier(nn.Module):
    """Three convolutions on one-hot kinds, then the mean and the largest of each channel.

    Args:
        side: columns along a crop.
        config: its widths.
        generator: draws the weights.

    """

    def __init__(self, side: int, config: ClassifierConfig, generator: torch.Generator) -> None:
        super().__init__()
        first, second, third = config.channels
        fine = side > 16  # a large crop is halved at once
        kernel, stride = (4, 2) if fine else (3, 1)
        self.layers = nn.Sequential(
            nn.Conv2d(len(KINDS), first, kernel, stride, padding=1), nn.GroupNorm(8, first), nn.ReLU(),
            nn.Conv2d(first, second, 3, 2, padding=1), nn.GroupNorm(8, second), nn.ReLU(),
            nn.Conv2d(second, third, 3, 2, padding=1), nn.GroupNorm(8, third), nn.ReLU(),
        )  # fmt: skip
        self.head = nn.Linear(2 * third, 1)
        for layer in self.layers:
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu", generator=generator)
                assert layer.bias is not None
                nn.init.zeros_(layer.bias)
        nn.init.normal_(self.head.weight, std=0.01, generator=generator)
        nn.init.zeros_(self.head.bias)

    def forward(self, kinds: Tensor) -> Tensor:
        """How much crops (m, x, y) uint8 look like the first set: (m,) log odds."""
        hot = torch.zeros(len(kinds), len(KINDS), *kinds.shape[1:]).scatter_(1, kinds[:, None].long(), 1.0)
        found = self.layers(hot).flatten(2)
        return self.head(torch.cat((found.mean(dim=2), found.amax(dim=2)), dim=1))[:, 0]


def train_classifier(first: Tensor, second: Tensor, config: ClassifierConfig, seed: int) -> CropClassifier:
    """A network that tells crops `first` (m, x, y) uint8 from `second` (n, x, y); the same arguments give the same.

    Both are turned by quarters and mirrored at random.
    """
    generator = torch.Generator().manual_seed(seed)
    model = CropClassifier(first.shape[-1], config, generator)
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.rate, weight_decay=config.decay)
    truth = torch.cat((torch.ones(config.batch), torch.zeros(config.batch)))
    for step in range(config.steps):
        for group in optimizer.param_groups:
            group["lr"] = config.rate * (1 + math.cos(math.pi * step / config.steps)) / 2
        parts = []
        for crops in (first, second):
            rows = torch.randint(len(crops), (config.batch,), generator=generator)
            way = int(torch.randint(8, (), generator=generator))
            parts.append(_turned(crops[rows], way))
        loss = F.binary_cross_entropy_with_logits(model(torch.cat(parts)), truth)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval()


@torch.no_grad()
def score(model: CropClassifier, crops: Tensor, batch: int = 128) -> Tensor:
    """Log odds (m,) of crops (m, x, y), the mean over four turns by quarters."""
    parts = [
        torch.stack([model(_turned(some, way)) for way in range(4)]).mean(dim=0)
        for some in crops.split(batch)
    ]
    return torch.cat(parts) if parts else torch.zeros(0)


def auc(first: Tensor, second: Tensor) -> float:
    """Chance that one of the scores `first` (m,) exceeds one of `second` (n,); equal ones count half.

    Raises:
        ConfigurationError: either is empty.

    """
    if not len(first) or not len(second):
        raise ConfigurationError(f"AUC: {len(first)} and {len(second)} scores; give one of each or more")
    order = second.sort().values
    below = torch.searchsorted(order, first.contiguous())
    to = torch.searchsorted(order, first.contiguous(), right=True)
    return float((below + to).double().mean()) / (2 * len(second))


@dataclass(frozen=True, kw_only=True)
class Scored:
    """What networks say of crops of towns that they were not trained on.

    Attributes:
        first: (m,) log odds of the first set.
        second: (n,) of the second.

    """

    first: Tensor
    second: Tensor


def cross_score(
    first: Tensor, second: Tensor, towns: tuple[Tensor, Tensor], config: ClassifierConfig, seed: int
) -> Scored | None:
    """Score each crop by the network trained on the other folds' towns; None where a fold lacks crops of a set.

    Args:
        first: (m, x, y) uint8 crops.
        second: (n, x, y) uint8 crops.
        towns: (m,) and (n,) int64, the towns that they are of.
        config: of the networks.
        seed: deals the towns to folds, and draws the networks' weights and batches.

    """
    names = torch.cat(towns).unique()
    order = torch.from_numpy(np.random.default_rng(seed).permutation(len(names)))
    fold_of = torch.zeros(int(names.max()) + 1 if len(names) else 0, dtype=torch.long)
    fold_of[names[order]] = torch.arange(len(names)) % config.folds
    found = Scored(first=torch.full((len(first),), math.nan), second=torch.full((len(second),), math.nan))
    for fold in range(config.folds):
        held = [fold_of[town] == fold for town in towns]
        if not all(bool(rows.any()) and not bool(rows.all()) for rows in held):
            return None
        model = train_classifier(first[~held[0]], second[~held[1]], config, seed + fold)
        found.first[held[0]] = score(model, first[held[0]])
        found.second[held[1]] = score(model, second[held[1]])
    return found


def auc_over_towns(
    scored: Scored, towns: tuple[Tensor, Tensor], chosen: tuple[Tensor, Tensor], least: int = 2, seed: int = 0
) -> dict[str, Any] | None:
    """The mean over towns of the AUC within each, with its bootstrap interval over towns.

    Args:
        scored: the log odds.
        towns: (m,) and (n,) int64.
        chosen: (m,) and (n,) bool, the crops that count.
        least: crops of each set that a town needs.
        seed: of the bootstrap.

    Returns:
        `auc`, `interval` [low, high], `towns` and `crops` (of the first set); None where no town has enough.

    """
    values, crops = [], 0
    for town in torch.cat(towns).unique():
        rows = [(of == town) & some for of, some in zip(towns, chosen, strict=True)]
        if min(int(some.sum()) for some in rows) >= least:
            values.append(auc(scored.first[rows[0]], scored.second[rows[1]]))
            crops += int(rows[0].sum())
    if not values:
        return None
    low, high = mean_interval(np.array(values), np.random.default_rng(seed))
    return {"auc": float(np.mean(values)), "interval": [low, high], "towns": len(values), "crops": crops}


def _turned(crops: Tensor, way: int) -> Tensor:
    """Crops (m, x, y) turned by `way` % 4 quarters, and mirrored from 4 on."""
    crops = crops.rot90(way % 4, dims=(1, 2))
    return crops.flip(2) if way >= 4 else crops
