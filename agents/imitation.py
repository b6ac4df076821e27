"""Imitation: a policy learns to answer as a rule-based teacher does, in the situations that it gets into itself.

DAgger (Ross, Gordon and Bagnell 2011, algorithm 3.1): the first round is driven by the teacher, later ones more and
more by the policy; in all of them it is the teacher's answer that is learned. A rule can be asked anything, so it is
asked about each situation also mirrored, at other speeds, off its route and with a pedestrian in the way, which
multiplies the answers without driving.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from occsora_sim.agents.features import features, mirrored
from occsora_sim.agents.learner_env import LearnerEnv
from occsora_sim.agents.protocol import Agent, Observation
from occsora_sim.agents.recorded_drives import RecordedDrives
from occsora_sim.grid import FRAME_SECONDS, PEDESTRIAN, Grid

ASKED = 3
"""Other speeds and places beside the route at which the teacher is asked about each situation, and its mirror image."""

CROSSED = 2
"""Of these, how often also with a pedestrian who crosses: the generated world has few, and streets have many."""

SPREAD = (0.15, 0.015)
"""How exactly acceleration and steering are to be met, of their largest: the policy's standard deviation."""


@dataclass(frozen=True, kw_only=True)
class Demonstrations:
    """What was seen and answered.

    Attributes:
        seen: (m, d) features of all situations that the teacher was asked about.
        answers: (m, 2) the teacher's actions.
        driven: (k, d) features of the steps that were driven.
        after: (k, d) features of what came next.
        reward: (k,) as the learner sees it.
        goes_on: (k,) 1 where the episode could go on, 0 where it had ended for good.

    """

    seen: Tensor
    answers: Tensor
    driven: Tensor
    after: Tensor
    reward: Tensor
    goes_on: Tensor

    def join(self, other: Demonstrations | None) -> Demonstrations:
        """Those of `other`, then these."""
        if other is None:
            return self
        return Demonstrations(
            **{name: torch.cat((getattr(other, name), value)) for name, value in vars(self).items()}
        )


def demonstrate(
    env: LearnerEnv,
    teacher: Agent,
    policy: torch.nn.Module,
    steps: int,
    share: float,
    generator: np.random.Generator,
) -> Demonstrations:
    """Drive `steps` decisions in each of the environment's n rows from a reset, and ask the teacher all the way.

    Args:
        env: its episodes begin anew; `env.seed` says how.
        teacher: has no memory.
        policy: of Stable-Baselines3; drives a row for a whole round with probability 1 - `share`.
        steps: how many.
        share: of rows that the teacher drives.
        generator: draws who drives, the noise on what is driven, and the speeds asked about.

    """
    seen: list[np.ndarray] = []
    answers: list[np.ndarray] = []
    driven, after, rewards, goes_on = [], [], [], []
    here = env.reset()
    mine = generator.random(env.num_envs) >= share
    crossings = generator.spawn(1)[0]  # whoever is made up changes nothing in what is driven
    for _ in range(steps):
        situation = env.observation
        own = teacher.act(situation)
        for asked in _variants(situation, generator, crossings, env.grid):
            seen.append(features(asked, env.grid))
            answers.append(teacher.act(asked))
        with torch.no_grad():
            learned = policy.get_distribution(torch.from_numpy(here)).distribution.mean.numpy()  # type: ignore[operator]
        actions = np.where(mine[:, None], learned, own)
        actions = actions + generator.normal(0.0, SPREAD, actions.shape)
        there, reward, done, infos = env.step(actions)
        last = there.copy()
        for row in np.flatnonzero(done):
            last[row] = infos[row]["terminal_observation"]
        driven.append(here)
        after.append(last)
        rewards.append(reward)
        goes_on.append(
            np.array([not done[row] or infos[row]["TimeLimit.truncated"] for row in range(env.num_envs)])
        )
        here = there

    def joined(parts: list[np.ndarray]) -> Tensor:
        return torch.from_numpy(np.concatenate(parts).astype(np.float32))

    return Demonstrations(
        seen=joined(seen),
        answers=joined(answers),
        driven=joined(driven),
        after=joined(after),
        reward=joined(rewards),
        goes_on=joined(goes_on),
    )


def fit_policy(
    policy: torch.nn.Module,
    data: Demonstrations,
    generator: torch.Generator,
    passes: int = 60,
    batch: int = 256,
    recorded: RecordedDrives | None = None,
) -> float:
    """Fit the policy's mean action to the answers, and to those of recorded drives, by the likelihood of a Gaussian of
    SPREAD; returns the last loss.

    Adam with a cosine from 1e-3. The loss is in squared standard deviations, so 1 is as wrong as the exploration.
    """
    parameters = [
        *policy.mlp_extractor.policy_net.parameters(),  # type: ignore[union-attr]
        *policy.action_net.parameters(),  # type: ignore[union-attr]
    ]
    optimiser = torch.optim.Adam(parameters, lr=1e-3)
    seen, answers = (data.seen, data.answers) if recorded is None else recorded.join(data.seen, data.answers)
    count, spread = len(seen), torch.tensor(SPREAD)
    total = passes * -(-count // batch)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, total)
    loss = torch.zeros(())
    for _ in range(passes):
        for rows in torch.randperm(count, generator=generator).split(batch):
            mean = policy.get_distribution(seen[rows]).distribution.mean  # type: ignore[operator]
            loss = torch.nn.functional.smooth_l1_loss(mean / spread, answers[rows] / spread)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    return float(loss.detach())


def fit_value(
    policy: torch.nn.Module,
    data: Demonstrations,
    gamma: float,
    generator: torch.Generator,
    sweeps: int = 40,
    batch: int = 256,
) -> float:
    """Fit the policy's value to what was driven, by fitted evaluation (Ernst et al. 2005); returns the last loss.

    Without it the first steps of reinforcement would be led by a value that knows nothing, and undo the imitation.
    """
    parameters = [
        *policy.mlp_extractor.value_net.parameters(),  # type: ignore[union-attr]
        *policy.value_net.parameters(),  # type: ignore[union-attr]
    ]
    optimiser = torch.optim.Adam(parameters, lr=1e-3)
    loss = torch.zeros(())
    for _ in range(sweeps):
        with torch.no_grad():
            next_value = policy.predict_values(data.after)[:, 0]  # type: ignore[operator]
        target = data.reward + gamma * data.goes_on * next_value
        for rows in torch.randperm(len(target), generator=generator).split(batch):
            value = policy.predict_values(data.driven[rows])[:, 0]  # type: ignore[operator]
            loss = torch.nn.functional.mse_loss(value, target[rows])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    return float(loss.detach())


def with_pedestrian(view: Observation, generator: np.random.Generator, grid: Grid) -> Observation:
    """A situation in which a pedestrian walks across the route, 3 to 25 m ahead and up to 3 m beside it, in each row.

    He fills a column of the newest frame and, where he came from, of the one before, each in its own ego frame.
    """
    occupancy = view["occupancy"].copy()
    rows, frames = occupancy.shape[:2]
    lower = np.array(grid.lower[:2])
    for row in range(rows):
        route = np.concatenate((np.zeros((1, 2)), view["route"][row].astype(np.float64)))
        along = generator.uniform(3.0, 25.0) / 2.0  # the route's points are 2 m apart
        k = min(int(along), len(route) - 2)
        edge = route[k + 1] - route[k]
        if np.linalg.norm(edge) < 0.5:  # the route has ended
            continue
        left = np.array([-edge[1], edge[0]]) / np.linalg.norm(edge)
        place = route[k] + (along - k) * edge + generator.uniform(-3.0, 3.0) * left
        walk = generator.uniform(-1.8, 1.8) * left
        came = place - walk * FRAME_SECONDS + np.array([view["ego"][row, 0] * FRAME_SECONDS, 0.0])
        for frame, point in ((frames - 1, place), (frames - 2, came)):
            x, y = np.floor((point - lower) / grid.voxel).astype(int)
            if frame >= 0 and 0 <= x < grid.shape[0] and 0 <= y < grid.shape[1]:
                occupancy[row, frame, x, y, grid.ground + 1 : grid.ground + 5] = PEDESTRIAN
    return {**view, "occupancy": occupancy}


def _variants(
    situation: Observation, generator: np.random.Generator, crossings: np.random.Generator, grid: Grid
) -> list[Observation]:
    """A situation as it is and mirrored, each also ASKED times at another speed and with its route moved and turned, of
    which CROSSED times with a pedestrian too.
    """
    out = []
    for view in (situation, mirrored(situation)):
        out.append(view)
        for number in range(ASKED):
            count = len(view["ego"])
            ego = view["ego"].copy()
            ego[:, 0] = generator.uniform(0.0, 13.0, count)
            ego[:, 1] = np.clip(generator.normal(0.0, 1.5, count), -7.0, 3.0)
            turn = generator.normal(0.0, 0.1, (count, 1))
            aside = generator.normal(0.0, 0.5, (count, 1))
            x, y = view["route"][..., 0], view["route"][..., 1]
            cos, sin = np.cos(turn), np.sin(turn)
            route = np.stack((cos * x - sin * y, sin * x + cos * y + aside), axis=-1).astype(np.float32)
            asked = {**view, "ego": ego, "route": route}
            out.append(asked)
            if number < CROSSED:
                out.append(with_pedestrian(asked, crossings, grid))
    return out
