"""A policy on what `observation="policy"` shows: its network, which a learner trains, and the agent that it makes."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributions import Categorical, Distribution, Independent, Normal

from occsora_sim.agents.protocol import Observation
from occsora_sim.checkpoint import read_tensors, write_tensors
from occsora_sim.envs.manoeuvre import MANOEUVRES
from occsora_sim.envs.spaces import BOUNDS
from occsora_sim.errors import CheckpointError, ConfigurationError
from occsora_sim.grid import NUM_CLASSES

KIND = "driving-policy"
_CLASS = 8  # numbers that a class label becomes
_IMAGE = 6  # edge of what is left of the image
_WIDTH = 128  # of the layers in which all that is seen comes together


@dataclass(frozen=True, kw_only=True)
class DrivingPolicyConfig:
    """The network; it travels in the file.

    Attributes:
        action: what it answers, the environment's option.
        channels: of the image: 9 where a decision lasts two frames.

    """

    action: Literal["manoeuvre", "controls"] = "manoeuvre"
    channels: int = 9

    def __post_init__(self) -> None:
        if self.action not in ("manoeuvre", "controls"):
            raise ConfigurationError(f"driving policy: action {self.action!r}: choose manoeuvre or controls")
        if not isinstance(self.channels, int) or not 1 <= self.channels <= 256:
            raise ConfigurationError(
                f"driving policy: channels {self.channels!r} must be a whole number from 1 to 256"
            )


class DrivingPolicy(nn.Module):
    """Image, road users (a set), own motion and route -> chance of the actions, and value."""

    def __init__(self, config: DrivingPolicyConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or DrivingPolicyConfig()
        convolutions: list[nn.Module] = []
        for before, after in ((config.channels, 16), (16, 32), (32, 64)):
            convolutions += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.ReLU()]
        self.image = nn.Sequential(*convolutions, nn.AdaptiveAvgPool2d(_IMAGE), nn.Flatten())
        numbers = len(BOUNDS["road_users"]) - 1  # of a road user; the last is its class
        self.user = nn.Sequential(nn.Linear(numbers + _CLASS, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU())
        self.label = nn.Embedding(NUM_CLASSES, _CLASS)
        self.vector = nn.Sequential(nn.Linear(4 + 40, 64), nn.ReLU())
        self.trunk = nn.Sequential(
            nn.Linear(64 * _IMAGE**2 + 64 + 64, _WIDTH), nn.Tanh(), nn.Linear(_WIDTH, _WIDTH), nn.Tanh()
        )
        answers = len(MANOEUVRES) if config.action == "manoeuvre" else 2
        self.actor, self.critic = nn.Linear(_WIDTH, answers), nn.Linear(_WIDTH, 1)
        if config.action == "controls":
            self.log_std = nn.Parameter(torch.tensor((0.4, 0.1)).log())  # steering is held for a second
        for name, bound in {**BOUNDS, "route": 40.0}.items():
            self.register_buffer(f"{name}_scale", torch.as_tensor(bound), persistent=False)
        nn.init.orthogonal_(self.actor.weight, 0.01)  # at first all actions are alike

    def forward(self, seen: dict[str, Tensor]) -> tuple[Distribution, Tensor]:
        """Distribution of the actions, (n,) manoeuvres or (n, 2) controls, and value (n,) of n observations."""
        users, there = seen["road_users"], seen["road_users"][..., :1] > 0
        scale: dict[str, Tensor] = dict(self.named_buffers())
        numbers = (users / scale["road_users_scale"])[..., :-1]
        each = torch.cat((numbers, self.label(users[..., -1].long())), dim=-1)
        crowd = (self.user(each) * there).amax(dim=1)  # what a ReLU gives is 0 or more: nobody counts as 0
        route = (seen["route"] / scale["route_scale"]).flatten(1)
        motion = torch.cat((seen["ego"] / scale["ego_scale"], route), dim=1)
        image = self.image(seen["birdseye"].float() / 255)
        found = self.trunk(torch.cat((image, crowd, self.vector(motion)), dim=1))
        answer, value = self.actor(found), self.critic(found)[:, 0]
        if self.config.action == "controls":
            return Independent(Normal(answer, self.log_std.exp()), 1), value
        return Categorical(logits=answer), value


class DrivingAgent:
    """Drives with the likeliest action of a policy.

    Attributes:
        action: the option of the environment that it is made for.
        observation: likewise.

    """

    observation = "policy"

    def __init__(self, policy: DrivingPolicy) -> None:
        self.policy, self.action = policy.eval(), policy.config.action

    def reset(self, n: int) -> None:
        """Nothing to forget: it has no memory."""

    @torch.no_grad()
    def act(self, observation: Observation) -> np.ndarray:
        """(n,) manoeuvres or (n, 2) controls. Row by row: an episode is the same alone and in a batch."""
        channels = observation["birdseye"].shape[1]
        if channels != self.policy.config.channels:
            raise ConfigurationError(
                f"driving policy: made for images of {self.policy.config.channels} channels, observed {channels}; "
                "its decisions last another number of frames"
            )
        seen = {name: torch.as_tensor(value) for name, value in observation.items()}
        rows = range(len(seen["ego"]))
        chances = [self.policy({name: part[row : row + 1] for name, part in seen.items()})[0] for row in rows]
        answer = torch.cat([chance.mode for chance in chances])
        return answer.numpy() if self.action == "manoeuvre" else answer.clamp(-1, 1).numpy()


def save_driving_policy(path: Path, policy: DrivingPolicy, recipe: dict[str, Any]) -> None:
    """Write a policy with its configuration and how it was trained.

    Raises:
        CheckpointError: the file cannot be written.

    """
    write_tensors(
        path, policy.state_dict(), {"kind": KIND, "policy": asdict(policy.config), "recipe": recipe}
    )


def load_driving_policy(path: Path) -> DrivingPolicy:
    """The policy that `save_driving_policy` wrote; nothing in the file can run code.

    Raises:
        CheckpointError: the file is missing, damaged or of another kind.

    """
    tensors, header = read_tensors(path, kind=KIND)
    try:
        policy = DrivingPolicy(DrivingPolicyConfig(**header["policy"]))
        policy.load_state_dict(tensors)
    except (ConfigurationError, KeyError, TypeError, RuntimeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise CheckpointError(f"{path}: is no driving policy of this release ({reason})") from error
    return policy
