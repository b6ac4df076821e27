"""Evaluate a planner of one's own, a class, beside those that come with the package.

python examples/evaluate_planner.py --world replay --episodes 4
"""

import argparse
from typing import Any

import gymnasium as gym
import numpy as np

import occsora_sim  # noqa: F401  (registers the environment)
from occsora_sim.agents import make_agent
from occsora_sim.agents.episode import average, run_episodes
from occsora_sim.scoring.interval import mean_interval


class Cruiser:
    """Steers to the route and holds 6 m/s. Whole batches at a time: n episodes, n actions."""

    def reset(self, n: int) -> None:
        """Nothing to forget."""

    def act(self, observation: dict[str, np.ndarray]) -> np.ndarray:
        """Acceleration and steering (n, 2) in [-1, 1]."""
        speed, aim = observation["ego"][:, 0], observation["route"][:, 3]  # 8 m ahead
        curvature = 2 * aim[:, 1] / (aim**2).sum(axis=1).clip(1.0)
        steering = np.arctan(2.588 * curvature) / 0.6  # wheelbase [m], largest angle [rad]
        return np.stack((0.25 * (6.0 - speed), steering), axis=1).clip(-1, 1).astype(np.float32)


def compare(episodes: int, **options: Any) -> dict[str, float]:
    """Mean score of each planner over the same episodes; prints them with their intervals."""
    env = gym.make_vec("OccSora/Drive-v0", num_envs=min(4, episodes), **options)
    planners = {"cruiser": Cruiser()} | {
        name: make_agent(name) for name in ("constant-velocity", "route-follower")
    }
    means = {}
    for name, planner in planners.items():
        driven = run_episodes(env, planner, episodes, seed=0)
        scores = np.array([episode.summary["score"] for episode in driven])
        low, high = mean_interval(scores, np.random.default_rng(0))
        means[name] = average(driven)["score"]
        print(f"{name:18s} {means[name]:.3f}  ({low:.3f} to {high:.3f})")
    env.close()
    return means


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--world", default="diffusion", help="diffusion, traffic or replay")
    parser.add_argument("--episodes", type=int, default=4)
    given = parser.parse_args()
    compare(given.episodes, world=given.world)
