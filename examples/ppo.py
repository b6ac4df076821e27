"""PPO in one file, after CleanRL: tensors from action to observation, one call of the world a step.

python examples/ppo.py --ahead 150 --tiles 0 --num-envs 64 --pool 256 --device cuda --out out/ppo  # or goes on there
OCCSORA_PPO=out/ppo occsora-sim evaluate agent --agent examples/ppo.py:Driver --world traffic
"""

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import gymnasium as gym
import numpy as np
import torch
import tyro
from torch import Tensor, nn
from torch.distributions import Normal
from torch.utils.tensorboard import SummaryWriter

import occsora_sim  # noqa: F401  (registers the environment)
from occsora_sim.agents.episode import average, run_episodes
from occsora_sim.envs.spaces import BOUNDS
from occsora_sim.grid import NUM_CLASSES


@dataclass(frozen=True)
class Args:
    """How to train; steps are decisions of one episode."""

    world: Literal["diffusion", "traffic", "replay"] = "diffusion"
    scenes: str | None = None  # where episodes begin; the shipped starts if left out
    ahead: float = 0.0  # ground drawn when an episode begins [m]; with 150 steps are much faster
    tiles: int | None = None  # of new ground a step draws; on a GPU 2, or 0 with ahead: no waiting
    pool: int | None = None  # beginnings that are prepared, with their ground
    total_steps: int = 1_000_000
    num_envs: int = 16
    device: str = "cpu"
    out: Path = Path("out/ppo")
    rollout: int = 32  # decisions of each environment between two updates
    epochs: int = 4
    minibatches: int = 4
    lr: float = 3e-4
    gamma: float = 0.97  # of a decision, which lasts a second
    gae: float = 0.95
    clip: float = 0.2
    entropy: float = 1e-3
    reward_scale: float = 0.2  # so that values are about as large as 1
    save_every: int = 20  # updates
    eval_episodes: int = 8  # in live traffic, at the end
    eval_scenes: str = "traffic:300000-300003"
    seed: int = 0


class Policy(nn.Module):
    """Image, road users (a set), own motion and route -> mean of the action and value."""

    def __init__(self, channels: int = 9, width: int = 128) -> None:
        super().__init__()
        convolutions: list[nn.Module] = []
        for before, after in ((channels, 16), (16, 32), (32, 64)):
            convolutions += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.ReLU()]
        self.image = nn.Sequential(*convolutions, nn.AdaptiveAvgPool2d(6), nn.Flatten())
        self.user = nn.Sequential(nn.Linear(9 + 8, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU())
        self.label = nn.Embedding(NUM_CLASSES, 8)
        self.vector = nn.Sequential(nn.Linear(4 + 40, 64), nn.ReLU())
        self.trunk = nn.Sequential(
            nn.Linear(64 * 36 + 64 + 64, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh()
        )
        self.actor, self.critic = nn.Linear(width, 2), nn.Linear(width, 1)
        self.log_std = nn.Parameter(torch.tensor((0.4, 0.1)).log())  # steering is held for a second
        for name, bound in {**BOUNDS, "route": 40.0}.items():
            self.register_buffer(f"{name}_scale", torch.as_tensor(bound), persistent=False)
        nn.init.orthogonal_(self.actor.weight, 0.01)

    def forward(self, seen: dict[str, Tensor]) -> tuple[Normal, Tensor]:
        """Distribution of the actions (n, a) and value (n,) of a batch of observations."""
        users, there = seen["road_users"], seen["road_users"][..., :1] > 0
        scale: dict[str, Tensor] = dict(self.named_buffers())
        each = torch.cat(
            ((users / scale["road_users_scale"])[..., :9], self.label(users[..., 9].long())), dim=-1
        )
        crowd = (self.user(each) * there).amax(dim=1)  # what a ReLU gives is 0 or more: nobody counts as 0
        route = (seen["route"] / scale["route_scale"]).flatten(1)
        motion = torch.cat((seen["ego"] / scale["ego_scale"], route), dim=1)
        image = self.image(seen["birdseye"].float() / 255)
        found = self.trunk(torch.cat((image, crowd, self.vector(motion)), dim=1))
        return Normal(self.actor(found), self.log_std.exp()), self.critic(found)[:, 0]


def advantages(
    reward: Tensor, value: Tensor, terminated: Tensor, truncated: Tensor, ignored: Tensor,
    last_value: Tensor, gamma: float, gae: float,
) -> Tensor:  # fmt: skip
    """GAE (Schulman et al. 2016) for next-step autoreset; all (t, n), `last_value` (n,) of what is seen at the end.

    A step that ends an episode leads to its last observation, whose value counts if it was cut off by time. The step
    after it is `ignored`: it takes no action but begins the next episode, so nothing is learned from it and nothing
    passes over it.
    """
    out, after, following = torch.zeros_like(reward), torch.zeros_like(last_value), last_value
    for t in reversed(range(len(reward))):
        error = reward[t] + gamma * following * (~terminated[t]) - value[t]
        after = error + gamma * gae * after * ~(terminated[t] | truncated[t])
        after = after * ~ignored[t]
        out[t], following = after, value[t]
    return out


def read(path: Path, device: str = "cpu") -> dict[str, Any]:
    """What `Trainer.save` wrote: numbers and text alone, nothing that runs code."""
    return torch.load(path, map_location=device, weights_only=True)


class Trainer:
    """A training under way: `run` it. `options` go to the environment."""

    def __init__(self, args: Args, **options: Any) -> None:
        self.args, self.updates, self.started = args, 0, time.monotonic()
        torch.manual_seed(args.seed)
        names = ("world", "scenes", "device", "num_envs", "ahead", "tiles", "pool")
        given = {"observation": "policy", "output": "torch", **{name: getattr(args, name) for name in names}}
        self.env: Any = gym.make_vec("OccSora/Drive-v0", **{**given, **options})
        seen: Any = self.env.single_observation_space
        self.policy = Policy(seen["birdseye"].shape[0]).to(args.device)
        self.optimiser = torch.optim.Adam(self.policy.parameters(), lr=args.lr, eps=1e-5)
        self.path = args.out / "policy.pt"
        if self.path.is_file():
            stored = read(self.path, args.device)
            self.policy.load_state_dict(stored["policy"])
            self.optimiser.load_state_dict(stored["optimiser"])
            self.updates = stored["updates"]
        self.board = SummaryWriter(str(args.out))

    @property
    def steps(self) -> int:
        """Taken so far."""
        return self.updates * self.args.rollout * self.args.num_envs

    def run(self) -> Policy:
        """Train until `total_steps`; new episodes begin where a stopped training goes on."""
        args = self.args
        self.seen, _ = self.env.reset(seed=args.seed + self.steps)
        self.over = torch.zeros(args.num_envs, dtype=torch.bool, device=args.device)
        while self.steps < args.total_steps:
            torch.manual_seed(args.seed * 1_000_003 + self.updates)
            scalars = self.learn(*self.drive())
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
        return self.policy

    @torch.no_grad()
    def drive(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """A rollout: what was seen and done, (t n, ...), with advantages and returns; and scalars of the driving."""
        args, steps = self.args, []
        ends, score = torch.zeros(2, 1, device=args.device)
        for _ in range(args.rollout):
            chance, value = self.policy(self.seen)
            step = {**self.seen, "action": chance.sample(), "value": value, "ignored": self.over}
            step["log"] = chance.log_prob(step["action"]).sum(1)
            self.seen, reward, terminated, truncated, infos = self.env.step(step["action"])
            step |= {"reward": reward.float(), "terminated": terminated, "truncated": truncated}
            steps.append(step)
            self.over = terminated | truncated
            ends += self.over.sum()
            if "episode_score" in infos:  # nothing is told of it where all rows begin anew
                score += (infos["episode_score"]["score"].float() * self.over).sum()
        data = {name: torch.stack([step[name] for step in steps]) for name in steps[0]}
        flags = data.pop("terminated"), data.pop("truncated"), data["ignored"]
        reward, last_value = data.pop("reward"), self.policy(self.seen)[1]
        gain = advantages(reward * args.reward_scale, data["value"], *flags, last_value, args.gamma, args.gae)
        taken = ~data.pop("ignored")  # the others begin an episode, whatever the action
        data |= {"advantage": gain, "return": gain + data.pop("value")}
        scalars = {"drive/score": score / ends.clamp(min=1), "drive/ends": ends}
        scalars["drive/reward_per_step"] = reward[taken].mean()
        return {name: value[taken] for name, value in data.items()}, scalars

    def learn(self, data: dict[str, Tensor], scalars: dict[str, Tensor]) -> dict[str, Tensor]:
        """Some epochs of PPO on a rollout; the scalars with those of the losses."""
        args, gain = self.args, data["advantage"]
        data["advantage"] = (gain - gain.mean()) / (gain.std() + 1e-8)
        for _ in range(args.epochs):
            for rows in torch.randperm(len(gain), device=gain.device).chunk(args.minibatches):
                part = {name: value[rows] for name, value in data.items()}
                chance, value = self.policy(part)
                ratio = (chance.log_prob(part["action"]).sum(1) - part["log"]).exp()
                bounded = ratio.clamp(1 - args.clip, 1 + args.clip)
                losses = {
                    "policy": -torch.minimum(ratio * part["advantage"], bounded * part["advantage"]).mean(),
                    "value": 0.5 * (value - part["return"]).square().mean(),
                    "entropy": -args.entropy * chance.entropy().sum(1).mean(),
                }
                self.optimiser.zero_grad()
                torch.stack(list(losses.values())).sum().backward()
                nn.utils.clip_grad_norm_(self.policy.parameters(), 0.5)
                self.optimiser.step()
        scalars |= {f"loss/{name}": loss.detach() for name, loss in losses.items()}
        scalars["policy/kl"] = (ratio - 1 - ratio.log()).mean().detach()
        return scalars | {"policy/std": self.policy.log_std.exp().mean().detach()}

    def save(self) -> None:
        """Write all that a training needs to go on."""
        state = {"policy": self.policy.state_dict(), "optimiser": self.optimiser.state_dict()}
        torch.save({**state, "updates": self.updates}, half := self.path.with_suffix(".part"))
        half.replace(self.path)  # whole or not at all


class Driver:
    """A trained policy as an agent of this package: of the folder that OCCSORA_PPO names, or out/ppo."""

    action, observation = "controls", "policy"

    def __init__(self, out: str | Path | None = None) -> None:
        weights = read(Path(out or os.environ.get("OCCSORA_PPO", "out/ppo")) / "policy.pt")["policy"]
        self.policy = Policy(weights["image.0.weight"].shape[1])
        self.policy.load_state_dict(weights)

    def reset(self, n: int) -> None:
        """It has no memory."""

    @torch.no_grad()
    def act(self, observation: dict[str, np.ndarray]) -> np.ndarray:
        """The mean action (n, 2)."""
        chance, _ = self.policy({name: torch.as_tensor(value) for name, value in observation.items()})
        return chance.mean.clamp(-1, 1).numpy()


def evaluate(out: Path, episodes: int, **options: Any) -> dict[str, float]:
    """Mean of each term of the score of the policy in `out`; `options` of the environment say where."""
    env: Any = gym.make_vec("OccSora/Drive-v0", num_envs=min(4, episodes), observation="policy", **options)
    figures = average(run_episodes(env, Driver(out), episodes, seed=0))
    env.close()
    return figures


if __name__ == "__main__":
    args = tyro.cli(Args)
    Trainer(args).run()
    if args.eval_episodes:
        where = {"world": "traffic", "scenes": args.eval_scenes, "starts": args.eval_episodes, "seed": 0}
        print(evaluate(args.out, args.eval_episodes, **where))
