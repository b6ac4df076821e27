"""Running agents: many episodes at once, their scores, and recordings of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.utils import seeding

from occsora_sim.agents.protocol import AnyAgent, ImaginingAgent
from occsora_sim.cluster import Told, untold
from occsora_sim.envs.imagination import Imagination, Imagined
from occsora_sim.envs.infos import describe
from occsora_sim.envs.simulation import DriveSimulation
from occsora_sim.errors import ConfigurationError
from occsora_sim.quantities import whole
from occsora_sim.rendering.recorded_users import RecordedUsers, join_users, record_users
from occsora_sim.scoring.allocator import give_back

SCORE_TERMS = ("score", "nc", "dac", "ttc", "ep", "comfort")


@dataclass(frozen=True, kw_only=True)
class Recording:
    """All that is needed to look at an episode again. k steps of f frames; t = 1 + k * f frames.

    Attributes:
        occupancy: (t, x, y, z) uint8; the first is the frame that the episode began with.
        ego_pose: (t, 3) float32 world poses of the frames.
        actions: (k, a) float32.
        rewards: (k,) float64.
        trajectories: (k, f, 3) float32: planned poses, relative to the ego before the step.
        terms: per step, the driving score's terms by name.
        routes: (k, 20, 2) float32: the route ahead, in the ego frame before the step [m].
        users: the road users of the t frames; None where the world does not tell them apart.

    """

    occupancy: np.ndarray
    ego_pose: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    trajectories: np.ndarray
    terms: list[dict[str, float]]
    routes: np.ndarray
    users: RecordedUsers | None = None


@dataclass(frozen=True, kw_only=True)
class Episode:
    """How an episode went.

    Attributes:
        start: name of the start.
        seed: that it was run with.
        summary: score, nc, dac, ttc, ep, comfort, progress [m], seconds [s].
        reward: sum of the rewards.
        ended: why: "collision", "off_road", "goal" or "time"; "stopped" by a person who drove.
        recording: frames and actions, if asked for.

    """

    start: str
    seed: int
    summary: dict[str, float]
    reward: float
    ended: str
    recording: Recording | None = None


def run_episodes(
    env: gym.Env | gym.vector.VectorEnv | DriveSimulation,
    agent: AnyAgent,
    episodes: int,
    *,
    seed: int | None = None,
    batch: int | None = None,
    record: int | Sequence[int] = 0,
    starts: Sequence[int] | None = None,
    on_step: Callable[[int], None] | None = None,
) -> list[Episode]:
    """Drive whole episodes, several side by side; those that have ended cost nothing more.

    Episode i begins at start i (over and over) with seed `seed + i`, whatever the batch, so that two agents
    or two worlds meet the same situations.

    Args:
        env: a driving environment, of which only the simulation and `max_episode_steps` are used.
        agent: drives.
        episodes: how many.
        seed: of the first episode; default: the environment's option, or 0.
        batch: how many side by side; default: the environment's.
        record: the first `record` episodes are recorded, or those of these numbers.
        starts: indices of the starts, one for each episode, instead of one after another.
        on_step: called after each step with the number of episodes that have ended.

    Returns:
        the episodes in order.

    Raises:
        ConfigurationError: no driving environment, or a number that cannot be.

    """
    simulation = _simulation_of(env)
    imagination = Imagination(simulation)
    episodes = whole(episodes, "episodes", least=1)
    batch = whole(getattr(env, "num_envs", 1) if batch is None else batch, "batch", least=1)
    seed = whole((simulation.config.seed or 0) if seed is None else seed, "seed", least=0)
    if starts is None:
        starts = [index % len(simulation.starts) for index in range(episodes)]
    if len(starts) != episodes:
        raise ConfigurationError(f"starts: {len(starts)} for {episodes} episodes; give one for each")
    recorded = range(whole(record, "record")) if np.ndim(record) == 0 else [int(k) for k in record]  # type: ignore[union-attr]
    done: list[Episode] = []
    for first in range(0, episodes, batch):
        size = min(batch, episodes - first)
        chosen = [number - first for number in recorded]
        group = EpisodeGroup(
            simulation, imagination, agent, starts[first : first + size], seed + first, chosen
        )
        while group.live:
            group.step()
            if on_step is not None:
                on_step(len(done) + len(group.done))
        done += [group.done[row] for row in range(size)]
        give_back()
    return done


def run_batch(
    simulation: DriveSimulation, agent: AnyAgent, numbers: range, *, seed: int, told: Told = untold
) -> list[Episode]:
    """The episodes `numbers` of those that `run_episodes` drives, side by side; `told` is called as each ends."""
    ended = 0

    def count(done: int) -> None:
        nonlocal ended
        while ended < done:
            ended += 1
            told()

    starts = [number % len(simulation.starts) for number in numbers]
    return run_episodes(
        simulation,
        agent,
        len(numbers),
        seed=seed + numbers[0],
        batch=len(numbers),
        starts=starts,
        on_step=count,
    )


def score_terms(episodes: Sequence[Episode]) -> tuple[str, ...]:
    """The names of the score and its terms: SCORE_TERMS, or those of EPDMS too."""
    return tuple(name for name in episodes[0].summary if name not in ("progress", "seconds"))


def average(episodes: Sequence[Episode]) -> dict[str, float]:
    """Mean of each term of the score over the episodes, and the simulated seconds altogether."""
    means = {
        name: float(np.mean([episode.summary[name] for episode in episodes]))
        for name in score_terms(episodes)
    }
    return {**means, "seconds_simulated": float(sum(episode.summary["seconds"] for episode in episodes))}


class EpisodeGroup:
    """Some episodes side by side. The agent sees all rows always; the world steps those that go on."""

    def __init__(
        self,
        simulation: DriveSimulation,
        imagination: Imagination,
        agent: AnyAgent,
        starts: Sequence[int],
        seed: int,
        record: Sequence[int],
    ) -> None:
        self.simulation, self.imagination, self.agent, self.seed = simulation, imagination, agent, seed
        generators = [seeding.np_random(seed + row)[0] for row in range(len(starts))]
        self.state = simulation.launch(generators, starts)
        self.observation = simulation.observe(self.state)
        self.live = list(range(len(starts)))
        self.infos: list[dict[str, Any]] = []
        self.done: dict[int, Episode] = {}
        self.reward = np.zeros(len(starts))
        self.logs: dict[int, list[dict[str, Any]]] = {row: [] for row in self.live if row in record}
        for row, log in self.logs.items():
            users = self._users(row, 1)
            frame, pose = self.state.frames[row, -1:], self.state.poses[row, -1:]
            log.append(
                {
                    "occupancy": frame.cpu().numpy().copy(),
                    "ego_pose": pose.cpu().numpy().copy(),
                    "users": users,
                }
            )
        agent.reset(len(starts))

    def step(self) -> None:
        """Roll the live rows on."""
        actions = self._actions()
        routes = self.simulation.route(self.state).cpu().numpy()
        self.state, outcome = self.simulation.step(
            self.state, self.simulation.check(actions[self.live], len(self.live))
        )
        fresh = self.simulation.observe(self.state)
        rewards, terminated = outcome.reward.tolist(), outcome.terminated.tolist()
        over = (outcome.terminated | outcome.truncated).tolist()
        self.infos = infos = describe(self.state, self.simulation.config, outcome)
        if len(self.live) < len(self.reward):  # what an agent has kept of the last step stays as it was
            fresh = {
                name: self._among_all(self.observation[name].copy(), value) for name, value in fresh.items()
            }
        self.observation = fresh
        for index, row in enumerate(self.live):
            self.reward[row] += rewards[index]
            if row in self.logs:
                self.logs[row].append(
                    {
                        "occupancy": self.state.frames[index].cpu().numpy().copy(),
                        "ego_pose": infos[index]["ego_poses"],
                        "users": self._users(index, self.simulation.frames),
                        "action": np.array(actions[row], ndmin=1),
                        "reward": rewards[index],
                        "trajectory": infos[index]["trajectory"],
                        "terms": infos[index]["terms"],
                        "route": routes[index],
                    }
                )
            if over[index]:
                self.done[row] = self.episode(
                    index, _reason(infos[index]["terms"]) if terminated[index] else "time"
                )
        keep = [index for index, ended in enumerate(over) if not ended]
        self.live = [self.live[index] for index in keep]
        if keep and len(keep) < len(over):
            self.state = self.simulation.select(self.state, keep)

    def episode(self, index: int, ended: str) -> Episode:
        """The episode of the live row `index` as it stands after a step, `ended` for some reason."""
        row = self.live[index]
        return Episode(
            start=self.state.origins[index].name,
            seed=self.seed + row,
            summary=self.infos[index]["episode_score"],
            reward=float(self.reward[row]),
            ended=ended,
            recording=_recording(self.logs[row]) if row in self.logs else None,
        )

    def _users(self, row: int, frames: int) -> RecordedUsers | None:
        """The road users of a row of the state at its last frames."""
        users = self.state.world.users
        return None if users is None else record_users(users.select([row]), self.state.poses[row, -frames:])

    def _actions(self) -> np.ndarray:
        """The agent's actions for all rows, clipped to the space."""
        if isinstance(self.agent, ImaginingAgent):
            actions = self.agent.plan(self.observation, self._imagine)
        else:
            actions = self.agent.act(self.observation)
        return np.asarray(actions) if self.simulation.discrete else np.clip(actions, -1.0, 1.0)

    def _imagine(self, plans: np.ndarray, **options: Any) -> Imagined:
        """Try plans (n, k, h, a) of all rows out; those of episodes that have ended bring nothing."""
        rows = len(plans)
        found = self.imagination(self.state, np.asarray(plans)[self.live], **options)
        return found.map(
            lambda value: self._among_all(np.zeros((rows, *value.shape[1:]), value.dtype), value)
        )

    def _among_all(self, everyone: np.ndarray, live: np.ndarray) -> np.ndarray:
        """`everyone` (n, ...) with the rows of the episodes that go on taken from `live`."""
        everyone[self.live] = live
        return everyone


def _reason(terms: dict[str, Any]) -> str:
    if terms["nc"] < 1:
        return "collision"
    return "off_road" if terms["outside"] else "goal"


def _recording(log: list[dict[str, Any]]) -> Recording:
    steps = log[1:]
    return Recording(
        occupancy=np.concatenate([entry["occupancy"] for entry in log]),
        ego_pose=np.concatenate([entry["ego_pose"] for entry in log]),
        actions=np.stack([entry["action"] for entry in steps]),
        rewards=np.array([entry["reward"] for entry in steps]),
        trajectories=np.stack([entry["trajectory"] for entry in steps]),
        terms=[entry["terms"] for entry in steps],
        routes=np.stack([entry["route"] for entry in steps]),
        users=None if log[0]["users"] is None else join_users([entry["users"] for entry in log]),
    )


def _simulation_of(env: Any) -> DriveSimulation:
    """The simulation of a driving environment, with the limit of steps that a wrapper around it sets."""
    found = (
        env
        if isinstance(env, DriveSimulation)
        else getattr(getattr(env, "unwrapped", None), "simulation", None)
    )
    if not isinstance(found, DriveSimulation):
        raise ConfigurationError(f"run_episodes: {env} is not a driving environment; make OccSora/Drive-v0")
    limits = [found.max_steps] if found.max_steps is not None else []
    while isinstance(env, gym.Wrapper):
        if isinstance(env, gym.wrappers.TimeLimit):
            limits.append(env._max_episode_steps)  # env.spec has it too, and copies the whole world to say so
        env = env.env
    return DriveSimulation(found.config, found.world, found.starts, min(limits)) if limits else found
