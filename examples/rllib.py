"""Train PPO of RLlib in generated worlds; Ray spreads the rollouts and replaces workers that die; needs `ray[rllib]`.

python examples/rllib.py --iterations 20 --runners 4 --ray auto
"""

import argparse
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import ray
from ray.rllib.algorithms.ppo import PPOConfig
from ray.tune import register_env

from occsora_sim.envs.wrappers import flat, learner


def make(options: dict[str, Any]) -> gym.Env:
    """The environment as one vector: a coarse bird's-eye image, road users, own motion and route, all in [-1, 1]."""
    env = gym.make("occsora_sim:OccSora/Drive-v0", observation="policy", **options)
    return gym.wrappers.RescaleObservation(flat(learner(env, pool=4)), np.float32(-1.0), np.float32(1.0))


def train(
    iterations: int, out: Path, *, runners: int = 2, decisions: int = 512, **options: Any
) -> list[float]:
    """Train for so many `iterations` of so many `decisions`; write the policy to `out`. Returns the mean losses."""
    register_env("drive", make)
    config = (
        PPOConfig()
        .environment("drive", env_config=options)
        .env_runners(num_env_runners=runners, sample_timeout_s=3600.0)
        .fault_tolerance(restart_failed_env_runners=True)
        .training(train_batch_size_per_learner=decisions, minibatch_size=min(128, decisions), gamma=0.95)
    )
    algorithm, losses = config.build_algo(), []
    for iteration in range(iterations):
        result = algorithm.train()
        losses.append(float(result["learners"]["default_policy"]["total_loss"]))
        print(
            f"{iteration}: return {result['env_runners'].get('episode_return_mean')}, loss {losses[-1]:.3f}"
        )
    algorithm.save_to_path(out.resolve())
    algorithm.stop()
    return losses


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--iterations", type=int, default=20)
    parser.add_argument("--runners", type=int, default=2, help="processes that drive, one world each")
    parser.add_argument("--ray", default="local", help="as ray.init takes it: local, auto, HOST:PORT")
    parser.add_argument("--world", default="diffusion", help="diffusion, traffic or replay")
    parser.add_argument("--out", type=Path, default=Path("out/rllib"))
    given = parser.parse_args()
    ray.init(address=given.ray)
    train(given.iterations, given.out, runners=given.runners, world=given.world)
