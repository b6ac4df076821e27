"""A policy on what `observation="policy"` shows: its network, which a learner trains, and the agent that it makes."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import Categorical, Distribution, Independent, Normal

from occsora_sim.agents.clearance import FAR, TIMES, clearances
from occsora_sim.agents.protocol import Observation
from occsora_sim.checkpoint import read_tensors, write_tensors
from occsora_sim.constants import constant
from occsora_sim.envs.birdseye import PIXEL
from occsora_sim.envs.manoeuvre import MANOEUVRES
from occsora_sim.envs.observation import ROUTE_POINTS, ROUTE_SPACING
from occsora_sim.errors import CheckpointError, ConfigurationError
from occsora_sim.geometry import rotate
from occsora_sim.grid import NUM_CLASSES

KIND = "driving-policy"
_CLASS = 8  # numbers that a class label becomes
_ASIDE = (-4.0, -2.0, 0.0, 2.0, 4.0)  # how far left of the route the image is read, too [m]
_WIDTH = 128  # of the layers in which all that is seen comes together

_USUAL: dict[str, tuple[float, ...]] = {
    "ego": (10.0, 3.0, 0.5, 0.3),
    "route": (20.0, 10.0),
    "road_users": (1.0, 20.0, 20.0, 1.0, 1.0, 10.0, 10.0, 5.0, 2.0),
    "along": (20.0, 3.0, 10.0, 10.0, 1.0, 1.0),
    "clearance": (FAR,),
}
"""About how large each number is where it matters. By the bounds of the space 8 m/s would be 0.08: hardly seen."""

_AT_FIRST = {"9 m/s": 3.0, "left": 0.2, "right": 0.2}
"""How often a new policy chooses manoeuvres, others 1: it drives, mostly on its route, and has to find out where not to
drive. One that stands would have to find out by chance what driving brings."""


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
    """Image, road users (a set), own motion and route -> chance of the actions, and value.

    What matters of a road user or of the ground is where it is along the route, how far beside it, and whether one gets
    near it. A network would have to find that out; here it is told. Road users are seen in the frame of the nearest
    point of the route, too; the image is read at points along and beside the route; and each manoeuvre has the room
    that it leaves to others who keep their velocity. Actions and value share nothing: a value that is wrong about a
    contact would drown what the actions learn from it.
    """

    def __init__(self, config: DrivingPolicyConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or DrivingPolicyConfig()
        answers = len(MANOEUVRES) if config.action == "manoeuvre" else 2
        self.actor, self.critic = _Head(config.channels, answers), _Head(config.channels, 1)
        if config.action == "controls":
            self.log_std = nn.Parameter(torch.tensor((0.4, 0.1)).log())  # steering is held for a second
        for name, size in _USUAL.items():
            self.register_buffer(f"{name}_scale", torch.tensor(size), persistent=False)
        nn.init.orthogonal_(self.actor.last.weight, 0.01)  # at first what is seen changes nothing
        nn.init.zeros_(self.actor.last.bias)
        if config.action == "manoeuvre":
            often = torch.tensor([_AT_FIRST.get(name, 1.0) for name in MANOEUVRES])
            self.actor.last.bias.data = often.log()

    def forward(self, seen: dict[str, Tensor]) -> tuple[Distribution, Tensor]:
        """Distribution of the actions, (n,) manoeuvres or (n, 2) controls, and value (n,) of n observations."""
        users, there = seen["road_users"], seen["road_users"][..., :1] > 0
        scale: dict[str, Tensor] = dict(self.named_buffers())
        points = F.pad(seen["route"], (0, 0, 1, 0))  # from the ego on
        ahead = directions(points)
        along = along_route(users, points, ahead)
        near = clearances(users, along, beside_route(points, ahead), seen["ego"][:, 0])
        route = (seen["route"] / scale["route_scale"]).flatten(1)
        facts = (
            image_along_route(seen["birdseye"].float() / 255, points, ahead).flatten(1),
            seen["ego"] / scale["ego_scale"],
            route,
            (near / scale["clearance_scale"]).flatten(1),
        )
        each = torch.cat((users[..., :-1] / scale["road_users_scale"], along / scale["along_scale"]), dim=-1)
        told = torch.cat(facts, dim=1), each, users[..., -1].long(), there
        answer, value = self.actor(*told), self.critic(*told)[:, 0]
        if self.config.action == "controls":
            return Independent(Normal(answer, self.log_std.exp()), 1), value
        return Categorical(logits=answer), value


class _Head(nn.Module):
    """Facts (n, *), numbers of road users (n, m, *), their labels (n, m) int64 and whether they are there (n, m, 1) ->
    (n, answers).
    """

    def __init__(self, channels: int, answers: int) -> None:
        super().__init__()
        numbers = len(_USUAL["road_users"]) + len(_USUAL["along"])
        self.label = nn.Embedding(NUM_CLASSES, _CLASS)
        self.user = nn.Sequential(nn.Linear(numbers + _CLASS, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU())
        corridor = channels * (ROUTE_POINTS + 1) * len(_ASIDE)
        facts = corridor + len(_USUAL["ego"]) + 2 * ROUTE_POINTS + len(MANOEUVRES) * len(TIMES)
        self.facts = nn.Sequential(nn.Linear(facts, _WIDTH), nn.ReLU())
        self.trunk = nn.Sequential(
            nn.Linear(_WIDTH + 64, _WIDTH), nn.Tanh(), nn.Linear(_WIDTH, _WIDTH), nn.Tanh()
        )
        self.last = nn.Linear(_WIDTH, answers)

    def forward(self, facts: Tensor, users: Tensor, labels: Tensor, there: Tensor) -> Tensor:
        each = self.user(torch.cat((users, self.label(labels)), dim=-1)) * there
        crowd = each.amax(dim=1)  # ReLU gives 0 or more: nobody is 0
        return self.last(self.trunk(torch.cat((self.facts(facts), crowd), dim=1)))


def directions(points: Tensor) -> Tensor:
    """Unit vectors along polylines (n, r, 2); where points repeat, at the end, along x."""
    steps = F.pad(points.diff(dim=1), (0, 0, 0, 1))
    steps = torch.cat((steps[:, :1], steps[:, :-1] + steps[:, 1:]), dim=1)
    length = steps.norm(dim=-1, keepdim=True)
    return torch.where(length > 0.1, steps / length.clamp(min=0.1), constant((1.0, 0.0), steps.device))


def image_along_route(image: Tensor, points: Tensor, ahead: Tensor) -> Tensor:
    """The aligned bird's-eye image (n, c, x, y) at and beside `points` (n, r, 2) of the route, which leads `ahead`
    (n, r, 2): (n, c, r, len(_ASIDE)).
    """
    left = torch.stack((-ahead[..., 1], ahead[..., 0]), dim=-1)
    beside = points[:, :, None] + left[:, :, None] * constant(_ASIDE, points.device)[:, None]
    half = constant(tuple(side * PIXEL / 2 for side in image.shape[2:]), points.device)
    return F.grid_sample(image, (beside / half).flip(-1), mode="nearest", align_corners=False)


def beside_route(points: Tensor, ahead: Tensor) -> Tensor:
    """How far left of the route the ego is [m] (n,): of the first of its points (n, r, 2) after the ego's own."""
    return points[:, 1, 0] * ahead[:, 1, 1] - points[:, 1, 1] * ahead[:, 1, 0]


def along_route(users: Tensor, points: Tensor, ahead: Tensor) -> Tensor:
    """Road users (n, m, *) as they are observed, in the frame of the nearest of the route's `points` (n, r, 2), which
    leads `ahead` (n, r, 2): how far along the route they are and beside it [m], the latter at most 15 either way, their
    velocity along and across it [m/s], cosine and sine of their heading in it; (n, m, 6).
    """
    place = users[..., 1:3]
    nearest = (place[:, :, None] - points[:, None]).square().sum(-1).argmin(-1, keepdim=True)
    index = nearest.expand(-1, -1, 2)
    point, way = points.gather(1, index), ahead.gather(1, index)
    seen = torch.stack((place - point, users[..., 5:7], users[..., 3:5]), dim=-2)  # (n, m, 3, 2)
    yaw = torch.atan2(way[..., 1], way[..., 0])
    offset, velocity, heading = rotate(seen, -yaw[..., None]).unbind(-2)
    far = nearest * ROUTE_SPACING + offset[..., :1]
    return torch.cat((far, offset[..., 1:].clamp(-15, 15), velocity, heading), dim=-1)


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


def shipped_driving_policy() -> Path:
    """The path of the policy that comes with the package; its agent is named "ppo"."""
    return Path(str(resources.files("occsora_sim.assets") / "policies" / "ppo.safetensors"))


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
