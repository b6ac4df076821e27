"""Train PPO of Stable-Baselines3 in a generated world; needs the extra `rl`.

python examples/train_ppo.py --steps 20000 --world diffusion --out out/ppo
"""

import argparse
from typing import Any

import gymnasium as gym
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import CheckpointCallback
from stable_baselines3.common.env_util import make_vec_env

import occsora_sim  # noqa: F401  (registers the environment)
from occsora_sim.envs.wrappers import learner


def make(**options: Any) -> gym.Env:
    """The environment as a learner likes it: five manoeuvres, a picture from above, its own motion, the route."""
    env = gym.make(
        "OccSora/Drive-v0",
        action="manoeuvre",
        observation=("birdseye", "ego", "route"),
        **options,
    )
    return learner(env, pool=2)  # 0.8 m a pixel


def train(steps: int, out: str, *, copies: int = 4, rollout: int = 64, **options: Any) -> PPO:
    """Train for `steps` decisions in all; write the policy to `out`.zip."""
    env = make_vec_env(lambda: make(**options), n_envs=copies, seed=0)
    model = PPO("MultiInputPolicy", env, n_steps=rollout, batch_size=rollout, gamma=0.95, seed=0, verbose=1)
    model.learn(steps, callback=CheckpointCallback(max(1, 5000 // copies), out))
    model.save(out)
    env.close()
    return model


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--world", default="diffusion", help="diffusion, traffic or replay")
    parser.add_argument("--scenes", help="a file, a folder or traffic:A-B; the shipped scenes if left out")
    parser.add_argument("--out", default="out/ppo")
    given = parser.parse_args()
    train(given.steps, given.out, world=given.world, scenes=given.scenes)
