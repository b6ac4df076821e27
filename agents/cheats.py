"""Drivers that try to be paid for not driving: none may earn or score more than the route follower.

`experiments/cheats.py` lets them drive beside it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from occsora_sim.agents.ladder import BlindFollower, FixedControls
from occsora_sim.agents.protocol import Agent, Observation
from occsora_sim.agents.route_follower import RouteFollower, RouteFollowerConfig
from occsora_sim.scoring.driving import ScoreConfig
from occsora_sim.vehicle import Vehicle

OBSERVED = ("occupancy", "ego", "route", "road_users")
"""What they see, all together."""

VEHICLE = Vehicle()


def controls(speed: np.ndarray, wanted: np.ndarray, aim: np.ndarray) -> np.ndarray:
    """(n, 2): towards a speed (n,) [m/s] and a point (n, 2) [m] in the ego frame."""
    curvature = 2 * aim[:, 1] / (aim**2).sum(axis=1).clip(1.0)
    steering = np.arctan(VEHICLE.wheelbase * curvature) / VEHICLE.max_steering
    pull = (wanted - speed).clip(-3.0, 1.5)
    pull = np.where(pull >= 0, pull / VEHICLE.max_acceleration, -pull / VEHICLE.min_acceleration)
    return np.stack((pull, steering), axis=1).clip(-1, 1).astype(np.float32)


@dataclass(kw_only=True)
class Circle:
    """Drives round and round at 4 m/s with the wheel turned."""

    def reset(self, n: int) -> None:
        """Nothing to forget."""

    def act(self, observation: Observation) -> np.ndarray:
        """Controls (n, 2)."""
        speed = observation["ego"][:, 0]
        return controls(speed, np.full_like(speed, 4.0), np.tile((1.0, 2.0), (len(speed), 1)))


@dataclass(kw_only=True)
class Hide:
    """Stays behind whoever drives ahead, wherever that goes; stands if there is nobody."""

    def reset(self, n: int) -> None:
        """Nothing to forget."""

    def act(self, observation: Observation) -> np.ndarray:
        """Controls (n, 2)."""
        users, speed = observation["road_users"], observation["ego"][:, 0]
        x, y, velocity = users[..., 1], users[..., 2], users[..., 5]
        leads = (users[..., 0] > 0) & (x > 4) & (np.abs(y) < 0.35 * x) & (velocity > 0.3)
        nearest = np.where(leads, x, np.inf).argmin(axis=1)
        rows = np.arange(len(x))
        there = leads[rows, nearest]
        gap = x[rows, nearest] - VEHICLE.front - 2.5
        wanted = np.where(there, velocity[rows, nearest] + 0.3 * (gap - 6.0), 0.0).clip(0, 15)
        aim = np.stack((x[rows, nearest], y[rows, nearest]), axis=1)
        return controls(speed, wanted, np.where(there[:, None], aim, (10.0, 0.0)))


@dataclass(kw_only=True)
class Nudge:
    """The route follower; but where somebody stands ahead it comes up close, creeps until they touch, at last slower
    than what counts as moving, and then drives on through.
    """

    follower: RouteFollower = field(default_factory=RouteFollower)

    def reset(self, n: int) -> None:
        """As the follower's."""
        self.follower.reset(n)

    def act(self, observation: Observation) -> np.ndarray:
        """Controls (n, 2)."""
        users, speed = observation["road_users"], observation["ego"][:, 0]
        reach = VEHICLE.front + users[..., 7] / 2
        ahead = (users[..., 0] > 0) & (np.abs(users[..., 2]) < 1.5) & (users[..., 1] > -2.0)
        gaps = np.where(ahead, users[..., 1] - reach, np.inf)
        rows, lead = np.arange(len(speed)), gaps.argmin(axis=1)
        gap, moves = gaps[rows, lead], np.hypot(users[rows, lead, 5], users[rows, lead, 6]) > 0.3
        close = (gap < 6.0) & ~moves & ((speed < 1.0) | (gap < -0.2))
        creep = 0.8 * ScoreConfig().moving
        wanted = np.select([gap > 4.0, gap > 1.2, gap > 0.4, gap > -0.2], [1.5, 0.5, 0.18, creep], 6.0)
        nudges = controls(speed, wanted, observation["route"][:, 3])
        return np.where(close[:, None], nudges, self.follower.act(observation)).astype(np.float32)


@dataclass(kw_only=True)
class Beside:
    """The route follower on a line beside the route.

    Attributes:
        right: how far to the right of it [m].
        queue: only where somebody who hardly moves is up to 20 m ahead.

    """

    right: float
    queue: bool = False
    follower: RouteFollower = field(default_factory=RouteFollower)

    def reset(self, n: int) -> None:
        """As the follower's."""
        self.follower.reset(n)

    def act(self, observation: Observation) -> np.ndarray:
        """Controls (n, 2)."""
        route, users = observation["route"], observation["road_users"]
        edge = np.gradient(route, axis=1)
        aside = np.stack((edge[..., 1], -edge[..., 0]), axis=-1)
        aside = self.right * aside / np.linalg.norm(aside, axis=-1, keepdims=True).clip(1e-3)
        slow = (users[..., 0] > 0) & (np.hypot(users[..., 5], users[..., 6]) < 2.0)
        ahead = slow & (np.abs(users[..., 2]) < 2.0) & (users[..., 1] > 0.0) & (users[..., 1] < 20.0)
        shifts = ahead.any(axis=1) | (not self.queue)
        line = route + aside * shifts[:, None, None]
        return self.follower.act({**observation, "route": line.astype(np.float32)})


@dataclass(kw_only=True)
class Brake:
    """Gets up to speed and brakes as hard as it can, over and over: whoever follows is to end the episode."""

    _braking: np.ndarray = field(default_factory=lambda: np.zeros(0, bool))

    def reset(self, n: int) -> None:
        """Begin with driving."""
        self._braking = np.zeros(n, dtype=bool)

    def act(self, observation: Observation) -> np.ndarray:
        """Controls (n, 2)."""
        speed = observation["ego"][:, 0]
        self._braking = np.where(self._braking, speed > 0.1, speed > 7.0)
        actions = controls(speed, np.full_like(speed, 9.0), observation["route"][:, 3])
        actions[self._braking, 0] = -1.0
        return actions


class Reverse:
    """Tries to go backwards and forwards on the route by trajectories: turns on the spot, drives, turns, drives."""

    action = "trajectory"

    def reset(self, n: int) -> None:
        """Begin at the first quarter."""
        self._step = 0

    def act(self, observation: Observation) -> np.ndarray:
        """Offsets (n, f * 3)."""
        self._step += 1
        forward, turn = ((-1.0, 1.0), (-0.6, 0.0))[(self._step // 2) % 2]
        return np.tile(np.array((forward, 0.0, turn) * 2, np.float32), (len(observation["ego"]), 1))


class Puck(BlindFollower):
    """Slides along the route by trajectories at 20 m/s, with no regard to what a car can do or who is there."""

    action = "trajectory"

    def act(self, observation: Observation) -> np.ndarray:
        """Offsets (n, f * 3): to the route's point 10 m ahead, twice."""
        route = observation["route"]
        out, before, yaw = [], np.zeros((len(route), 2)), np.zeros(len(route))
        for point in (4, 9):
            offset = route[:, point] - before
            heading = np.arctan2(offset[:, 1], offset[:, 0])
            cos, sin = np.cos(-yaw), np.sin(-yaw)
            left = sin * offset[:, 0] + cos * offset[:, 1]
            ahead = cos * offset[:, 0] - sin * offset[:, 1]
            out += [ahead / 12.5 * 2 - 1, left / 2.0, heading - yaw]
            before, yaw = route[:, point], heading
        return np.stack(out, axis=1).clip(-1, 1).astype(np.float32)


CHEATS: dict[str, Callable[[], Agent]] = {
    "park": lambda: FixedControls(acceleration=-0.4),
    "circle": Circle,
    "reverse": Reverse,
    "creep": lambda: RouteFollower(config=RouteFollowerConfig(speed=1.5)),
    "hide": Hide,
    "ram": BlindFollower,
    "nudge": Nudge,
    "kerb": lambda: Beside(right=1.2),
    "oncoming": lambda: Beside(right=-3.0),
    "overtake": lambda: Beside(right=-3.3, queue=True),
    "brake": Brake,
    "quit": lambda: FixedControls(acceleration=1.0, steering=-1.0),
    "puck": Puck,
}
"""By name; `ram` pushes through at speed, `quit` leaves the road at once to have it over with, `oncoming` keeps to the
lane of those who come towards it, `overtake` passes a queue there.
"""
