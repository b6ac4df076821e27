"""Train PPO of Stable-Baselines3 in many generated worlds at once, one call a step; needs the extra `rl`.

python examples/train_ppo.py --steps 20000 --world diffusion --out out/ppo
occsora-sim evaluate agent --agent out/ppo.zip --trust --world traffic
"""

import argparse
from typing import Any

from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import CheckpointCallback

from occsora_sim.agents.sb3 import DriveVecEnv


def train(steps: int, out: str, *, copies: int = 8, rollout: int = 32, **options: Any) -> PPO:
    """Train for `steps` decisions in all, of manoeuvres; write the policy to `out`.zip."""
    env = DriveVecEnv(copies, action="manoeuvre", **options)
    batch = min(256, copies * rollout)
    model = PPO("MultiInputPolicy", env, n_steps=rollout, batch_size=batch, gamma=0.95, seed=0, verbose=1)
    model.learn(steps, callback=CheckpointCallback(max(1, 5000 // copies), out))
    model.save(out)
    env.close()
    return model


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--copies", type=int, default=8, help="worlds side by side")
    parser.add_argument("--world", default="diffusion", help="diffusion, traffic or replay")
    parser.add_argument("--scenes", help="a file, a folder or traffic:A-B; the shipped scenes if left out")
    parser.add_argument("--device", default="cpu", help="where the world runs")
    parser.add_argument("--out", default="out/ppo")
    given = parser.parse_args()
    train(
        given.steps, given.out, copies=given.copies,
        world=given.world, scenes=given.scenes, device=given.device,
    )  # fmt: skip
