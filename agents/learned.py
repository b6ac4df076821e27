"""A policy that was learned: a small network on `agents.features`, stored as safetensors, run without its trainer."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from importlib import resources
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from occsora_sim.agents.features import VERSION, feature_count, features
from occsora_sim.agents.protocol import Observation
from occsora_sim.checkpoint import read_tensors, write_tensors
from occsora_sim.errors import CheckpointError, ConfigurationError
from occsora_sim.grid import OCC3D, Grid

KIND = "policy"


@dataclass(frozen=True, kw_only=True)
class PolicyConfig:
    """The network.

    Attributes:
        hidden: widths of its layers.
        features: version of what it sees.
        inputs: how many numbers it sees.
        outputs: how many numbers it answers: acceleration and steering.

    """

    hidden: tuple[int, ...] = (128, 128)
    features: int = VERSION
    inputs: int = feature_count()
    outputs: int = 2

    def __post_init__(self) -> None:
        if not 1 <= len(self.hidden) <= 16 or not all(1 <= width <= 4096 for width in self.hidden):
            raise ConfigurationError(f"policy: hidden {self.hidden} must be 1 to 16 widths of 1 to 4096")
        if (self.features, self.inputs, self.outputs) != (VERSION, feature_count(), 2):
            raise ConfigurationError(
                f"policy: made for features of version {self.features} with {self.inputs} numbers, this release "
                f"has version {VERSION} with {feature_count()}; train it anew"
            )


def policy_network(config: PolicyConfig) -> nn.Sequential:
    """(n, inputs) -> (n, outputs): hidden layers with tanh, a linear one; the mean action, to be clipped to [-1, 1]."""
    widths = (config.inputs, *config.hidden)
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after), nn.Tanh()]
    return nn.Sequential(*layers, nn.Linear(widths[-1], config.outputs))


class LearnedPolicy:
    """Drives with a network's mean action.

    Args:
        network: as `policy_network` makes it.
        grid: of the occupancy that it will see.

    """

    def __init__(self, network: nn.Sequential, grid: Grid = OCC3D) -> None:
        self.network, self.grid = network.eval(), grid

    def reset(self, n: int) -> None:
        """Nothing to forget: it has no memory."""

    def act(self, observation: Observation) -> np.ndarray:
        """Controls (n, 2) float32 in [-1, 1]. Row by row: an episode is the same alone and in a batch."""
        seen = torch.from_numpy(features(observation, self.grid))
        with torch.no_grad():
            rows = [self.network(row[None]) for row in seen]
        return torch.cat(rows).clamp(-1.0, 1.0).numpy()


def save_policy(path: Path, tensors: dict[str, Tensor], config: PolicyConfig, recipe: dict[str, Any]) -> None:
    """Write a policy's weights with its configuration and how it was trained.

    Raises:
        CheckpointError: the file cannot be written.

    """
    write_tensors(path, tensors, {"kind": KIND, "policy": asdict(config), "recipe": recipe})


def load_policy(path: Path, grid: Grid = OCC3D) -> LearnedPolicy:
    """The policy that `save_policy` wrote; nothing in the file can run code.

    Raises:
        CheckpointError: the file is missing, damaged, of another kind, or made for other features.

    """
    tensors, header = read_tensors(path, kind=KIND)
    try:
        given = dict(header["policy"])
        config = PolicyConfig(**{**given, "hidden": tuple(given["hidden"])})
        network = policy_network(config)
        network.load_state_dict(tensors)
    except (ConfigurationError, KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise CheckpointError(f"{path}: is no policy of this release ({reason})") from error
    return LearnedPolicy(network, grid)


def shipped_policy() -> Path:
    """The path of the policy that comes with the package; its agent is named "learned"."""
    return Path(str(resources.files("occsora_sim.assets") / "policies" / "learned.safetensors"))
