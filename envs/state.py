"""The state of episodes under way, a value, and what a step brings to it."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from occsora_sim.scene_prompt import ScenePrompt
from occsora_sim.scoring.episode import Episodes, StepScore
from occsora_sim.worlds.protocol import WorldState


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where an episode began.

    Attributes:
        name: of the start.
        number: its index among the simulation's starts; -1 for one that is not among them.
        prompt: what the world was told to draw.

    """

    name: str
    number: int
    prompt: ScenePrompt


@dataclass(frozen=True, kw_only=True)
class DriveState:
    """b episodes under way.

    Attributes:
        world: the world's state.
        episodes: the running score.
        frames: (b, f, x, y, z) uint8, the observed frames.
        poses: (b, f, 3) float32, their world poses.
        seen: (b, h, x, y, z) uint8, the last frames, for worlds that begin where these are.
        seen_poses: (b, h, 3) float32, their world poses.
        motion: (b, 4) float64: speed [m/s], acceleration [m/s2], yaw rate [rad/s], steering [rad].
        origins: where they began.

    """

    world: WorldState
    episodes: Episodes
    frames: torch.Tensor
    poses: torch.Tensor
    seen: torch.Tensor
    seen_poses: torch.Tensor
    motion: torch.Tensor
    origins: tuple[Origin, ...]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What one step brought to b episodes.

    Attributes:
        reward: (b,) the sum of the terms.
        terms: the weighted terms by name, each (b,).
        terminated: (b,) bool: at-fault collision, footprint entirely off the road, or goal.
        truncated: (b,) bool: time is up.
        trajectory: (b, f, 3) that the action asked for, in the ego frame before the step.
        score: the driving score of the step.

    """

    reward: torch.Tensor
    terms: dict[str, torch.Tensor]
    terminated: torch.Tensor
    truncated: torch.Tensor
    trajectory: torch.Tensor
    score: StepScore
