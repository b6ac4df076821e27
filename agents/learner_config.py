"""How a policy is learned, and whether a folder holds a training with these options."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from occsora_sim.checkpoint import read_header
from occsora_sim.errors import ConfigurationError
from occsora_sim.recipe import check_recipe, option_name, recipe_of

KIND = "agent-resume"
GOES_ON_WITH = ("--rounds", "--decisions", "--minutes", "--keep-every")
"""Options that may change when a training goes on."""


@dataclass(frozen=True, kw_only=True)
class LearnerConfig:
    """How to learn.

    Attributes:
        imitate: whose answers are learned before reinforcement begins.
        rounds: of imitation, each one rollout.
        decisions: environment steps in all, those of imitation included; by default imitation alone, since
            reinforcement on top has not gained anything yet (docs/lab_book.md).
        minutes: stop after this long [min]; 0 means by decisions alone.
        copies: episodes side by side.
        rollout: decisions of each copy between two updates; every rollout begins with new episodes.
        epochs: passes over a rollout.
        minibatches: that a pass is cut into.
        lr: learning rate of PPO.
        gamma: discount of a decision.
        gae: lambda of the generalised advantage estimate (Schulman et al. 2016).
        kl: an update ends where the policy has moved by 1.5 times this.
        hidden: widths of the layers of policy and value.
        keep_every: rollouts between policies that are kept under their own names.
        seed: of weights, episodes and exploration.

    """

    imitate: Literal["route-follower", "idm", "none"] = "route-follower"
    rounds: int = 7
    decisions: int = 2_240
    minutes: float = 0.0
    copies: int = 16
    rollout: int = 20
    epochs: int = 8
    minibatches: int = 4
    lr: float = 2e-4
    gamma: float = 0.95
    gae: float = 0.9
    kl: float = 0.02
    hidden: tuple[int, ...] = (128, 128)
    keep_every: int = 10
    seed: int = 0

    def __post_init__(self) -> None:
        whole = ("decisions", "copies", "rollout", "epochs", "minibatches", "keep_every")
        for name in whole:
            if getattr(self, name) < 1:
                raise ConfigurationError(f"learner: {name} {getattr(self, name)} must be 1 or more")
        if self.rounds < 0 or self.minutes < 0 or self.seed < 0 or not self.lr > 0 or not self.kl > 0:
            raise ConfigurationError(
                "learner: rounds, minutes and seed must be 0 or more, lr and kl positive"
            )
        if not 0 < self.gamma < 1 or not 0 <= self.gae <= 1:
            raise ConfigurationError(f"learner: gamma {self.gamma} and gae {self.gae} must lie within 0 to 1")
        if self.copies * self.rollout < 2 * self.minibatches:
            raise ConfigurationError(
                f"learner: {self.copies} copies x {self.rollout} decisions are too few for {self.minibatches} "
                "minibatches; give at least two for each"
            )


def recipe_of_learner(config: LearnerConfig, about: Mapping[str, Any]) -> dict[str, Any]:
    """The options that a training is known by: `config`, and `about` as it is given to the learner."""
    return recipe_of("train agent", config) | {option_name(name): value for name, value in about.items()}


def finished(out: Path, config: LearnerConfig, about: Mapping[str, Any]) -> bool:
    """Whether a training before has done in `out` all that is asked for; says so.

    Raises:
        CheckpointError: its resume file is damaged or of another configuration.

    """
    path, policy = out / "resume.safetensors", out / "policy.safetensors"
    if not path.exists():
        return False
    header = read_header(path, kind=KIND)
    check_recipe(path, header.get("recipe"), recipe_of_learner(config, about), free=GOES_ON_WITH)
    enough = header["rollouts"] * config.copies * config.rollout >= config.decisions
    if not policy.is_file() or not (enough or 0 < 60 * config.minutes <= header["spent"]):
        return False
    print(f"{policy}: was finished before; more --decisions or --minutes go on from here", file=sys.stderr)
    return True
