"""Plug in a planner that is a plain function of one observation.

python examples/plain_function.py
"""

from typing import Any

import gymnasium as gym
import numpy as np

import occsora_sim  # noqa: F401  (registers the environment)
from occsora_sim.agents import FunctionAgent
from occsora_sim.agents.episode import Episode, run_episodes
from occsora_sim.envs.manoeuvre import SPEEDS
from occsora_sim.grid import DYNAMIC

STOP, SLOW, FAST = (SPEEDS.index(speed) for speed in (0.0, 3.0, 9.0))  # manoeuvres


def planner(observation: dict[str, np.ndarray]) -> int:
    """Stop for road users within 12 m ahead, slow down for bends; else drive at 9 m/s."""
    route = observation["route"]
    ahead = observation["occupancy"][-1, 107:137, 97:103]  # 0.4 m a voxel: 3 to 15 m ahead, 1.2 m either way
    blocked = np.isin(ahead, DYNAMIC).any()
    bend = abs(np.arctan2(*(route[9] - route[7])[::-1]))  # heading of the route 18 m on [rad]
    return STOP if blocked else SLOW if bend > 0.4 else FAST


def drive(episodes: int = 2, **options: Any) -> list[Episode]:
    """Drive some episodes and print how they went."""
    env = gym.make("OccSora/Drive-v0", action="manoeuvre", **options)
    driven = run_episodes(env, FunctionAgent(planner, action="manoeuvre"), episodes)
    for episode in driven:
        print(f"{episode.start}: score {episode.summary['score']:.2f}, ended by {episode.ended}")
    env.close()
    return driven


if __name__ == "__main__":
    drive()
