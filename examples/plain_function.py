"""Plug in a planner that is a plain function of one observation.

python examples/plain_function.py
"""

from typing import Any

import gymnasium as gym
import numpy as np

import occsora_sim  # noqa: F401  (registers the environment)
from occsora_sim.agents import FunctionAgent
from occsora_sim.agents.episode import Episode, run_episodes
from occsora_sim.envs.manoeuvre import MANOEUVRES
from occsora_sim.grid import DYNAMIC

KEEP, FASTER, SLOWER = (MANOEUVRES.index(name) for name in ("keep", "faster", "slower"))


def planner(observation: dict[str, np.ndarray]) -> int:
    """Slow down for road users within 12 m ahead, and for bends; else drive at about 8 m/s."""
    (speed, *_), route = observation["ego"], observation["route"]
    ahead = observation["occupancy"][-1, 107:137, 97:103]  # 0.4 m a voxel: 3 to 15 m ahead, 1.2 m either way
    blocked = np.isin(ahead, DYNAMIC).any()
    bend = abs(np.arctan2(*(route[9] - route[7])[::-1]))  # heading of the route 18 m on [rad]
    if blocked or speed > (4.0 if bend > 0.4 else 8.5):
        return SLOWER
    return FASTER if speed < 7.0 else KEEP


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
