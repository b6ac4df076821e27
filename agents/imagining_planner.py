"""The planner that imagines: tries 64 plans out in its head, all in one imagined future, and takes the best."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch

from occsora_sim.agents.protocol import Observation
from occsora_sim.agents.route_follower import RouteFollower
from occsora_sim.envs.imagination import Imagine, Imagined
from occsora_sim.errors import ConfigurationError
from occsora_sim.geometry import compose, to_frame
from occsora_sim.grid import FRAME_SECONDS
from occsora_sim.scoring.route import make_routes
from occsora_sim.vehicle import bicycle_rollout

PULLS = (-5.0, -3.0, -1.5, -0.5, 0.5, 1.2, 2.0)
"""Accelerations that plans are made of [m/s2]; those above -4 m/s2 passengers find comfortable."""

FAN = (
    *((first, then, 0.0) for first in PULLS for then in PULLS),
    *((pull, pull, aside) for pull in PULLS for aside in (-0.7, 0.7)),
)
"""63 candidates: along the route with one acceleration after another, or held a little beside it."""


@dataclass(frozen=True, kw_only=True)
class ImaginingPlannerConfig:
    """How the planner plans.

    Attributes:
        fan: (acceleration of the first decision, of those that follow [m/s2], metres left of the route) of each
            candidate, beside the route follower's own.
        shared: all plans of an episode in one future, see `envs.shared_future`; else each in a world of its own.
        decisions: how many decisions each plan looks ahead.
        stops: for how many it can brake instead, after its first, at `braking` [m/s2].
        braking: see `stops`; positive.
        speed: no candidate accelerates beyond this [m/s].
        preview: pursuit distance in seconds of travel [s].
        least_preview: and at least this [m].
        reward: weight of the summed reward beside the imagined score, which tells apart plans that score alike.
        room: the car is imagined that much larger on every side [m].
        risk: what a plan loses that is without time to collision all the way; in proportion if for some of it.
        margin: another plan must be better than the route follower's by this to be taken.

    """

    fan: tuple[tuple[float, float, float], ...] = FAN
    shared: bool = True
    decisions: int = 3
    stops: int = 2
    braking: float = 5.0
    speed: float = 10.0
    preview: float = 1.0
    least_preview: float = 5.0
    reward: float = 0.02
    room: float = 0.2
    risk: float = 3.0
    margin: float = 0.005

    def __post_init__(self) -> None:
        if self.decisions < 1 or self.stops < 1 or not self.braking > 0 or not self.fan:
            raise ConfigurationError(
                "imagining planner: decisions and stops must be 1 or more, braking positive, and the fan not empty"
            )


@dataclass(kw_only=True)
class ImaginingPlanner:
    """Model-predictive control by shooting: K plans, one batch of imagined worlds, the best first action.

    What is imagined is one future of many. So a plan counts only if after its first decision one can still brake,
    though everybody else then stops at once. The route follower's action, held, is always among the plans, and is kept
    where nothing better is found.
    """

    config: ImaginingPlannerConfig = field(default_factory=ImaginingPlannerConfig)
    follower: RouteFollower = field(default_factory=RouteFollower)
    imagined: Imagined | None = None
    """What the last plans would have brought, for looking at."""

    def reset(self, n: int) -> None:
        """Nothing is carried from step to step but the follower's memory."""
        self.follower.reset(n)
        self.imagined = None

    def plan(self, observation: Observation, imagine: Imagine) -> np.ndarray:
        """Controls (n, 2) in [-1, 1]."""
        c, ego, route = self.config, observation["ego"], observation["route"]
        frames = observation["occupancy"].shape[1]
        own = self.follower.act(observation)  # (n, 2)
        plans = self.candidates(ego, route, own, frames, c.decisions)
        imagined = self.imagined = imagine(plans, shared=c.shared, room=c.room)
        value = imagined.score + c.reward * imagined.reward - c.risk * (1 - imagined.terms["ttc"])  # (n, k)
        brakes = self.candidates(ego, route, own, frames, 1, c.stops)
        stopped = imagine(brakes, shared=True, room=c.room, until=1).terms
        value = np.where(stopped["nc"] * stopped["dac"] == 1, value, -np.inf)
        value[:, 0] += c.margin
        return plans[np.arange(len(plans)), value.argmax(axis=1), 0]

    def candidates(
        self, ego: np.ndarray, route: np.ndarray, own: np.ndarray, frames: int, decisions: int, stops: int = 0
    ) -> np.ndarray:
        """The plans: each pursues (Coulter 1992) a line beside the route with its acceleration.

        Args:
            ego: (n, 4) as observed.
            route: (n, 20, 2) as observed [m].
            own: (n, 2) the route follower's action: it begins the first plan, which then goes on as the others do.
            frames: of a decision.
            decisions: how many.
            stops: decisions to brake that follow.

        Returns:
            (n, k, h, 2) float32 controls in [-1, 1], of h decisions, those to brake included.

        """
        c, car = self.config, self.follower.vehicle
        n, k = len(ego), len(c.fan) + 1
        fan = torch.tensor(c.fan, dtype=torch.float64)
        first = torch.as_tensor(own[:, 0].astype(np.float64))
        first = torch.where(first >= 0, first * car.max_acceleration, -first * car.min_acceleration)
        pulls = torch.cat((first[:, None, None].expand(n, 1, 2), fan[:, :2].expand(n, -1, 2)), dim=1)
        pulls = pulls.flatten(0, 1)  # (n k, 2)
        aside = torch.cat((torch.zeros(n, 1), fan[:, 2].expand(n, -1)), dim=1).double().flatten()
        path = torch.cat((torch.zeros(n, 1, 2), torch.as_tensor(route)), dim=1)
        routes = make_routes(list(path.repeat_interleave(k, dim=0)))
        pose = torch.zeros(n * k, 3, dtype=torch.float64)
        speed = torch.as_tensor(ego[:, 0].astype(np.float64)).clamp(min=0.0).repeat_interleave(k)
        near = torch.zeros(n * k)
        controls = []
        for step in range(decisions + stops):
            reach = (c.preview * speed).clamp(min=c.least_preview).float()
            near, _ = routes.project(pose[:, :2].float(), near, 2 * reach + 2.0)
            ends = routes.at(torch.stack((near + reach - 1.0, near + reach), dim=1)).double()
            edge = ends[:, 1] - ends[:, 0]
            edge = edge / edge.norm(dim=-1, keepdim=True).clamp(min=1e-6)
            line = ends[:, 1] + aside[:, None] * torch.stack((-edge[:, 1], edge[:, 0]), dim=-1)
            target = to_frame(line[:, None], pose[:, None])[:, 0]
            curvature = 2 * target[:, 1] / (target**2).sum(dim=-1).clamp(min=1.0)
            steering = torch.atan(car.wheelbase * curvature).clamp(-car.max_steering, car.max_steering)
            room = (c.speed - speed).clamp(min=0.0) / (frames * FRAME_SECONDS)
            drive = torch.minimum(pulls[:, min(step, 1)], room)
            if step >= decisions:
                drive = torch.full_like(drive, -c.braking)
            if step == 0:  # the follower's own action is taken as it is
                mine = slice(0, None, k)
                drive[mine] = pulls[mine, 0]
                steering[mine] = torch.as_tensor(own[:, 1].astype(np.float64)) * car.max_steering
            held = drive[:, None].expand(-1, frames), steering[:, None].expand(-1, frames)
            moved, speeds = bicycle_rollout(car, speed, *held)
            pose, speed = compose(pose, moved[:, -1]), speeds[:, -1]
            limit = torch.where(drive >= 0, car.max_acceleration, -car.min_acceleration)
            controls.append(torch.stack((drive / limit, steering / car.max_steering), dim=-1))
        plans = (
            torch.stack(controls, dim=1)
            .reshape(n, k, len(controls), 2)
            .clamp(-1.0, 1.0)
            .numpy()
            .astype(np.float32)
        )
        plans[:, 0, 0] = own  # exactly, without the way through metres and radians
        return plans
