"""The reward: a weighted sum of named terms, each computed from the driving score of the step."""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import reduce

import torch

from occsora_sim.quantities import settle
from occsora_sim.scoring.episode import StepScore


@dataclass(frozen=True, kw_only=True)
class RewardConfig:
    """Weights of the terms; a weight of 0 switches a term off.

    In the proportions of PDMS, (5 TTC + 5 EP + 2 C) / 12, where a second at the reference's 10 m/s is worth 1. What
    makes NC or DAC 0 costs more: a collision as much as 20 s at that speed bring, a second off the road as 5 s.

    Attributes:
        progress: per metre gained on the route; nothing in a step with an at-fault collision, so that driving
            into something never pays.
        collision: for an at-fault collision with a road user; half of it for a static object.
        off_road: per second with a footprint point off the road.
        ttc: per second without time to collision.
        comfort: per second that is not comfortable.

    """

    progress: float = 0.1
    collision: float = -20.0
    off_road: float = -5.0
    ttc: float = -1.0
    comfort: float = -0.4

    def __post_init__(self) -> None:
        settle(self, "reward ")


def reward_terms(score: StepScore, seconds: float, config: RewardConfig) -> dict[str, torch.Tensor]:
    """The weighted terms of the reward, each (b,); the reward is their sum.

    Args:
        score: of the step.
        seconds: the step's duration [s].
        config: the weights.

    """
    values = {
        "progress": score.progress.masked_fill(score.nc < 1, 0.0),
        "collision": 1.0 - score.nc,
        "off_road": score.off_road * seconds,
        "ttc": (1.0 - score.ttc) * seconds,
        "comfort": (1.0 - score.comfort) * seconds,
    }
    return {entry.name: getattr(config, entry.name) * values[entry.name] for entry in fields(config)}


def sum_terms(terms: dict[str, torch.Tensor]) -> torch.Tensor:
    """The reward (b,), added up one after another: a reduction's order, hence its rounding, would depend on b."""
    return reduce(torch.add, terms.values())
