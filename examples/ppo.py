"""PPO in one file, after CleanRL: tensors from action to observation, one call of the world a step.

python examples/ppo.py --ahead 150 --tiles 0 --num-envs 64 --pool 256 --device cuda --out out/ppo  # or goes on there
occsora-sim evaluate agent --agent out/ppo/policy.safetensors --world traffic
"""

import time
from copy import deepcopy
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import gymnasium as gym
import torch
import tyro
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter

import occsora_sim  # noqa: F401  (registers the environment)
from occsora_sim.agents.driving_policy import (
    DrivingAgent,
    DrivingPolicy,
    DrivingPolicyConfig,
    load_driving_policy,
    save_driving_policy,
)
from occsora_sim.agents.episode import average, run_episodes
from occsora_sim.models.ema import EMA

OPTIONS = ("action", "world", "scenes", "device", "num_envs", "ahead", "tiles", "pool", "steps", "seconds")
SHOWN = ("score", "nc", "dac", "ttc", "ep", "comfort")


@dataclass(frozen=True)
class Args:
    """How to train; steps are decisions of one episode."""

    action: Literal["manoeuvre", "controls"] = "manoeuvre"
    world: Literal["diffusion", "traffic", "replay"] = "diffusion"
    scenes: str | None = None  # where episodes begin; the shipped starts if left out
    ahead: float = 0.0  # ground drawn when an episode begins [m]; with 150 steps are much faster
    tiles: int | None = None  # of new ground a step draws; on a GPU 2, or 0 with ahead: no waiting
    pool: int | None = None  # beginnings that are prepared, with their ground
    steps: int | None = None  # calls of the network for a tile of ground; with 2 it is drawn in half the time
    seconds: float = 20.0  # of an episode
    total_steps: int = 1_000_000
    num_envs: int = 16
    device: str = "cpu"
    out: Path = Path("out/ppo")
    rollout: int = 32  # decisions of each environment between two updates
    epochs: int = 4
    minibatches: int = 8
    lr: float = 1e-3  # falls to 0 at total_steps
    gamma: float = 0.9  # of a decision, which lasts a second
    gae: float = 0.95
    clip: float = 0.2
    target_kl: float = 0.1  # a rollout is put aside once the policy has gone this far from it
    entropy: float = 0.01
    reward_scale: float = 0.2  # so that values are about as large as 1
    collisions: float = 0.6  # share of their cost that counts; with all of it one learns to stand
    average: float = 0.9  # what is saved are averaged weights, this much of them those before
    save_every: int = 20  # updates
    eval_episodes: int = 8  # in live traffic, at the end
    eval_scenes: str = "traffic:300000-300003"
    seed: int = 0


def advantages(
    reward: Tensor, value: Tensor, terminated: Tensor, truncated: Tensor, ignored: Tensor,
    last_value: Tensor, gamma: float, gae: float,
) -> Tensor:  # fmt: skip
    """GAE (Schulman et al. 2016) for next-step autoreset; all (t, n), `last_value` (n,) of what is seen at the end.

    A step that ends an episode leads to its last observation, whose value counts if it was cut off by time. The step
    after it is `ignored`: it begins the next episode whatever the action, so nothing is learned from it.
    """
    out, after, following = torch.zeros_like(reward), torch.zeros_like(last_value), last_value
    for t in reversed(range(len(reward))):
        error = reward[t] + gamma * following * (~terminated[t]) - value[t]
        after = error + gamma * gae * after * ~(terminated[t] | truncated[t])
        after = after * ~ignored[t]
        out[t], following = after, value[t]
    return out


class Trainer:
    """A training under way: `run` it. `options` go to the environment."""

    def __init__(self, args: Args, **options: Any) -> None:
        self.args, self.updates, self.started = args, 0, time.monotonic()
        torch.manual_seed(args.seed)
        given = {
            "observation": "policy",
            "output": "torch",
            **{name: getattr(args, name) for name in OPTIONS},
        }
        self.env: Any = gym.make_vec("OccSora/Drive-v0", **{**given, **options})
        channels = self.env.single_observation_space["birdseye"].shape[0]
        self.policy = DrivingPolicy(DrivingPolicyConfig(action=args.action, channels=channels)).to(
            args.device
        )
        self.averaged = EMA(self.policy, args.average)
        self.optimiser = torch.optim.Adam(self.policy.parameters(), lr=args.lr, eps=1e-5)
        self.path = args.out / "resume.pt"
        if self.path.is_file():  # numbers and text alone, nothing that runs code
            stored = torch.load(self.path, map_location=args.device, weights_only=True)
            self.policy.load_state_dict(stored["policy"])
            self.averaged.load_state_dict(stored["averaged"])
            self.optimiser.load_state_dict(stored["optimiser"])
            self.updates = stored["updates"]
        self.board = SummaryWriter(str(args.out))

    @property
    def steps(self) -> int:
        """Taken so far."""
        return self.updates * self.args.rollout * self.args.num_envs

    def run(self) -> DrivingPolicy:
        """Train until `total_steps`; new episodes begin where a stopped training goes on."""
        args = self.args
        self.seen, _ = self.env.reset(seed=args.seed + self.steps)
        self.over = torch.zeros(args.num_envs, dtype=torch.bool, device=args.device)
        while self.steps < args.total_steps:
            torch.manual_seed(args.seed * 1_000_003 + self.updates)
            self.optimiser.param_groups[0]["lr"] = args.lr * (1 - self.steps / args.total_steps)
            scalars = self.learn(*self.drive())
            self.averaged.update(self.policy)
            self.updates += 1
            seconds, self.started = time.monotonic() - self.started, time.monotonic()
            scalars["speed/steps_per_second"] = torch.tensor(args.rollout * args.num_envs / seconds)
            for name, scalar in scalars.items():
                self.board.add_scalar(name, float(scalar), self.steps)
            if self.updates % args.save_every == 0 or self.steps >= args.total_steps:
                self.save()
                told = ", ".join(f"{name} {float(scalar):.3f}" for name, scalar in scalars.items())
                print(f"step {self.steps}: {told}", flush=True)
        self.board.close()
        self.env.close()
        return self.best()

    def best(self) -> DrivingPolicy:
        """The policy with averaged weights."""
        policy = deepcopy(self.policy)
        self.averaged.copy_to(policy)
        return policy

    @torch.no_grad()
    def drive(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """A rollout: what was seen and done, (t n, ...), with advantages and returns; and scalars of the driving."""
        args, steps, sums = self.args, [], {"ends": torch.zeros(1, device=self.args.device)}
        for _ in range(args.rollout):
            chance, value = self.policy(self.seen)
            step = {**self.seen, "action": chance.sample(), "value": value, "ignored": self.over}
            step["log"] = chance.log_prob(step["action"])
            self.seen, reward, terminated, truncated, infos = self.env.step(step["action"])
            cost = infos.get("reward_terms", {}).get("collision", 0.0)  # nothing where all rows begin anew
            step["reward"] = (reward - (1 - args.collisions) * cost).float()
            step |= {"terminated": terminated, "truncated": truncated}
            steps.append(step)
            self.over = terminated | truncated
            sums["ends"] += self.over.sum()
            for name in SHOWN if "episode_score" in infos else ():  # nothing of it where all rows begin anew
                sums[name] = sums.get(name, 0.0) + (infos["episode_score"][name].float() * self.over).sum()
        data = {name: torch.stack([step[name] for step in steps]) for name in steps[0]}
        flags = data.pop("terminated"), data.pop("truncated"), data["ignored"]
        reward, last_value = data.pop("reward"), self.policy(self.seen)[1]
        gain = advantages(reward * args.reward_scale, data["value"], *flags, last_value, args.gamma, args.gae)
        taken = ~data.pop("ignored")  # the others begin an episode, whatever the action
        data |= {"advantage": gain, "return": gain + data.pop("value")}
        ends = sums.pop("ends")
        scalars = {"drive/ends": ends, "drive/reward_per_step": reward[taken].mean()}
        scalars |= {f"drive/{name}": value / ends.clamp(min=1) for name, value in sums.items()}
        return {name: value[taken] for name, value in data.items()}, scalars

    def learn(self, data: dict[str, Tensor], scalars: dict[str, Tensor]) -> dict[str, Tensor]:
        """Some epochs of PPO on a rollout; the scalars with those of the losses."""
        args, gain = self.args, data["advantage"]
        data["advantage"] = (gain - gain.mean()) / (gain.std() + 1e-8)
        minibatches = (
            rows
            for _ in range(args.epochs)
            for rows in torch.randperm(len(gain), device=gain.device).chunk(args.minibatches)
        )
        for rows in minibatches:
            part = {name: value[rows] for name, value in data.items()}
            chance, value = self.policy(part)
            ratio = (chance.log_prob(part["action"]) - part["log"]).exp()
            bounded = ratio.clamp(1 - args.clip, 1 + args.clip)
            losses = {
                "policy": -torch.minimum(ratio * part["advantage"], bounded * part["advantage"]).mean(),
                "value": 0.5 * (value - part["return"]).square().mean(),
                "entropy": -args.entropy * chance.entropy().mean(),
            }
            kl = (ratio - 1 - ratio.log()).mean().detach()  # Schulman 2020, "Approximating KL Divergence"
            if kl > args.target_kl:
                break
            self.optimiser.zero_grad()
            torch.stack(list(losses.values())).sum().backward()
            nn.utils.clip_grad_norm_(self.policy.parameters(), 10.0)  # lower, a contact would count less
            self.optimiser.step()
        scalars |= {f"loss/{name}": loss.detach() for name, loss in losses.items()}
        scalars["policy/kl"] = kl
        return scalars | {"policy/entropy": chance.entropy().mean().detach()}

    def save(self) -> None:
        """Write the policy, and all that a training needs to go on."""
        recipe = {name: str(value) for name, value in asdict(self.args).items() if name != "out"}
        recipe["steps_taken"] = str(self.steps)
        save_driving_policy(self.path.with_name("policy.safetensors"), self.best(), recipe)
        parts = {"policy": self.policy, "averaged": self.averaged, "optimiser": self.optimiser}
        state = {name: part.state_dict() for name, part in parts.items()}
        torch.save({**state, "updates": self.updates}, half := self.path.with_suffix(".part"))
        half.replace(self.path)  # whole or not at all


def evaluate(out: Path, episodes: int, **options: Any) -> dict[str, float]:
    """Mean of each term of the score of the policy in `out`; `options` of the environment say where."""
    driver = DrivingAgent(load_driving_policy(out / "policy.safetensors"))
    options |= {"observation": driver.observation, "action": driver.action}
    env: Any = gym.make_vec("OccSora/Drive-v0", num_envs=min(4, episodes), **options)
    figures = average(run_episodes(env, driver, episodes, seed=0))
    env.close()
    return figures


if __name__ == "__main__":
    args = tyro.cli(Args)
    Trainer(args).run()
    if args.eval_episodes:
        where = {"world": "traffic", "scenes": args.eval_scenes, "starts": args.eval_episodes, "seed": 0}
        print(evaluate(args.out, args.eval_episodes, **where))
