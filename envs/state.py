"""The state of driving episodes, and what a step brings to them; values with the batch axis first.

What is known of an episode beside tensors, where it began, stands in a table; a row holds its position there, so that
rows can be picked and put on the device.
"""

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
        start: (b,) int64, `Origin.number` of each.
        origin: (b,) int64, where each began, by its position in `known`.
        known: where episodes began.

    """

    world: WorldState
    episodes: Episodes
    frames: torch.Tensor
    poses: torch.Tensor
    seen: torch.Tensor
    seen_poses: torch.Tensor
    motion: torch.Tensor
    start: torch.Tensor
    origin: torch.Tensor
    known: tuple[Origin, ...]

    @property
    def origins(self) -> tuple[Origin, ...]:
        """Where each episode began; waits for the device."""
        return tuple(self.known[place] for place in self.origin.tolist())


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What one step brought to b episodes.

    Attributes:
        reward: (b,) the sum of the terms.
        terms: the weighted terms by name, each (b,).
        terminated: (b,) bool: at-fault collision, footprint entirely off the road, or goal.
        truncated: (b,) bool: time is up, or the recording that is replayed does not last for another step.
        trajectory: (b, f, 3) that the action asked for, in the ego frame before the step.
        score: the driving score of the step.

    """

    reward: torch.Tensor
    terms: dict[str, torch.Tensor]
    terminated: torch.Tensor
    truncated: torch.Tensor
    trajectory: torch.Tensor
    score: StepScore
