"""Drivers that try to be paid for not driving, beside the route follower: none may earn or score more.

    python experiments/cheats.py                                       # live traffic, towns traffic:300000-300003
    python experiments/cheats.py --world replay --episodes 16          # recorded: the others do not see the ego
    python experiments/cheats.py --drivers nudge creep --each

Prints a table of the mean reward and score of each; ends with status 1 if a cheat is not below the route follower in
both. `speed` is no cheat but a driver faster than the score's reference, and is shown alone.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from occsora_sim.agents.episode import SCORE_TERMS, Episode, run_episodes
from occsora_sim.agents.ladder import BlindFollower, FixedControls
from occsora_sim.agents.protocol import Agent, Observation
from occsora_sim.agents.route_follower import RouteFollower, RouteFollowerConfig
from occsora_sim.commands.train_agent import REWARD
from occsora_sim.envs.config import DriveConfig
from occsora_sim.envs.reward import RewardConfig
from occsora_sim.envs.simulation import DriveSimulation
from occsora_sim.envs.starts import open_starts
from occsora_sim.envs.worlds import close_world, make_world
from occsora_sim.vehicle import Vehicle

VEHICLE = Vehicle()
HONEST = ("route-follower", "speed")


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
    """The route follower; but where somebody stands ahead it comes up close, creeps until they touch, slower than what
    counts as moving, and then drives on through.
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
        wanted = np.select([gap > 4.0, gap > 1.2, gap > -0.2], [1.5, 0.5, 0.18], 6.0)
        nudges = controls(speed, wanted, observation["route"][:, 3])
        return np.where(close[:, None], nudges, self.follower.act(observation)).astype(np.float32)


@dataclass(kw_only=True)
class Kerb:
    """The route follower on a line to the right of the route.

    Attributes:
        aside: how far [m].

    """

    aside: float = 1.2
    follower: RouteFollower = field(default_factory=RouteFollower)

    def reset(self, n: int) -> None:
        """As the follower's."""
        self.follower.reset(n)

    def act(self, observation: Observation) -> np.ndarray:
        """Controls (n, 2)."""
        route = observation["route"]
        edge = np.gradient(route, axis=1)
        right = np.stack((edge[..., 1], -edge[..., 0]), axis=-1)
        right = right / np.linalg.norm(right, axis=-1, keepdims=True).clip(1e-3)
        line = (route + self.aside * right).astype(np.float32)
        return self.follower.act({**observation, "route": line})


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


DRIVERS: dict[str, Callable[[], Agent]] = {
    "route-follower": RouteFollower,
    "speed": lambda: RouteFollower(config=RouteFollowerConfig(speed=15.0)),
    "park": lambda: FixedControls(acceleration=-0.4),
    "circle": Circle,
    "reverse": Reverse,
    "creep": lambda: RouteFollower(config=RouteFollowerConfig(speed=1.5)),
    "hide": Hide,
    "ram": BlindFollower,
    "nudge": Nudge,
    "kerb": Kerb,
    "brake": Brake,
    "quit": lambda: FixedControls(acceleration=1.0, steering=-1.0),
    "puck": Puck,
}
"""By name; `ram` pushes through at speed, `quit` leaves the road at once to have it over with."""


def reward_of(episode: Episode, config: RewardConfig, frames: int) -> float:
    """The reward of a recorded episode under other weights."""
    assert episode.recording is not None
    total, seconds = 0.0, 0.5 * frames
    for step in episode.recording.terms:
        total += config.progress * (step["progress"] if step["nc"] == 1 else 0.0)
        total += config.collision * (1 - step["nc"]) + config.off_road * step["off_road"] * seconds
        total += (config.ttc * (1 - step["ttc"]) + config.comfort * (1 - step["comfort"])) * seconds
    return total


def main() -> int:
    """Drive them all, print the table, and say whether a cheat wins."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--world", default="traffic", choices=("traffic", "replay", "diffusion"))
    parser.add_argument("--scenes", default="traffic:300000-300003")
    parser.add_argument("--episodes", type=int, default=8)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--drivers", nargs="+", default=list(DRIVERS), choices=list(DRIVERS))
    parser.add_argument("--each", action="store_true", help="a line for each episode, too")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    options = {
        "world": given.world,
        "scenes": given.scenes,
        "starts": given.episodes,
        "seconds": given.seconds,
        "seed": 0,
    }
    config = DriveConfig(**options, observation=("occupancy", "ego", "route", "road_users"))
    world = make_world(config)
    starts = open_starts(config, world)
    rows = {}
    print("| driver | reward | reward of `train agent` | score | nc | dac | ttc | ep | comfort | ended |")
    print("| --- | " + "--- | " * 9, flush=True)
    for name in given.drivers:
        agent = DRIVERS[name]()
        asked = DriveConfig(
            **{**vars(config), "action": getattr(agent, "action", "controls"), "scenes": given.scenes}
        )
        simulation = DriveSimulation(asked, world, starts)
        episodes = run_episodes(
            simulation, agent, given.episodes, batch=given.batch, seed=0, record=given.episodes
        )
        other = float(np.mean([reward_of(e, RewardConfig(**REWARD), simulation.frames) for e in episodes]))
        row = {"reward": float(np.mean([e.reward for e in episodes])), "train_agent": other}
        row |= {term: float(np.mean([e.summary[term] for e in episodes])) for term in SCORE_TERMS}
        ended = ", ".join(f"{count} {why}" for why, count in Counter(e.ended for e in episodes).most_common())
        rows[name] = row
        figures = " | ".join(f"{value:.2f}" for value in row.values())
        print(f"| {name} | {figures} | {ended} |", flush=True)
        for e in episodes if given.each else ():
            print(
                f"    {e.start} {e.ended} reward {e.reward:.2f} "
                + " ".join(f"{k} {v:.2f}" for k, v in e.summary.items())
            )
    close_world(config, world)
    if given.json:
        given.json.write_text(json.dumps({"options": options, "drivers": rows}, indent=1))
    honest = rows.get("route-follower")
    won = [] if honest is None else [
        f"{name} in {what}" for name, row in rows.items() for what in ("reward", "train_agent", "score")
        if name not in HONEST and row[what] >= honest[what]
    ]  # fmt: skip
    print("not below the route follower: " + (", ".join(won) or "nobody"))
    return 1 if won else 0


if __name__ == "__main__":
    sys.exit(main())
