"""The driving environment as Stable-Baselines3 takes it: N worlds in one model call, seen through `agents.features`."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import gymnasium as gym
import numpy as np
from stable_baselines3.common.vec_env import VecEnv

from occsora_sim.agents.features import feature_count, features
from occsora_sim.agents.protocol import Observation
from occsora_sim.envs.vector import DriveVectorEnv
from occsora_sim.errors import ConfigurationError

REWARD_SCALE = 0.2
"""The learner sees the reward times this, so that the values it foretells are about as large as 1."""


class LearnerEnv(VecEnv):
    """One or more `DriveVectorEnv` with same-step autoreset behind the interface of Stable-Baselines3.

    Several are stepped side by side, each by a thread of its own: torch lets go of the interpreter while it computes.
    What a row sees does not depend on how the rows are spread.

    An episode that has reached its goal counts as cut off by time, not as ended: nothing was done wrong, and a learner
    that loses all that would have followed would avoid the goal.

    Args:
        envs: made with action="controls" and the default observation.

    """

    def __init__(self, *envs: DriveVectorEnv) -> None:
        if not envs or any(e.config.autoreset != "same_step" or e.config.action != "controls" for e in envs):
            raise ConfigurationError(
                "learner: the environments must have autoreset='same_step' and action='controls'"
            )
        self.envs, self.grid = envs, envs[0].simulation.world.grid
        ends = np.cumsum([env.num_envs for env in envs])
        self._parts = [slice(end - env.num_envs, end) for env, end in zip(envs, ends, strict=True)]
        self._threads = ThreadPoolExecutor(len(envs))
        self.observation: Observation = {}
        """What the agents of all rows see now, as the environments show it."""
        self.scores: list[dict[str, float]] = []
        """Of the episodes that have ended since the list was last emptied: `episode_score` and `reward`."""
        self._reward = np.zeros(ends[-1])
        self._actions = np.zeros((ends[-1], 2))
        space = gym.spaces.Box(-np.inf, np.inf, (feature_count(),), np.float32)
        super().__init__(int(ends[-1]), space, envs[0].single_action_space)

    def reset(self) -> np.ndarray:  # type: ignore[override]
        """Begin all episodes, with the seeds that `seed` has given."""
        given = [None if value is None else int(value) for value in self._seeds]

        def begin(number: int) -> Observation:
            seeds = given[self._parts[number]]
            return self.envs[number].reset(seed=None if seeds[0] is None else seeds)[0]

        self.observation = _joined(list(self._threads.map(begin, range(len(self.envs)))))
        self._reset_seeds()
        self._reward[:] = 0
        return features(self.observation, self.grid)

    def step_async(self, actions: np.ndarray) -> None:
        """Keep the actions (n, 2) for `step_wait`."""
        self._actions = np.clip(actions, -1.0, 1.0)

    def step_wait(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[dict[str, Any]]]:  # type: ignore[override]
        """Drive on: features (n, d), reward (n,), done (n,) and infos with `terminal_observation` of ended episodes."""
        numbers = range(len(self.envs))
        results = list(self._threads.map(lambda k: self.envs[k].step(self._actions[self._parts[k]]), numbers))
        self.observation = _joined([result[0] for result in results])
        reward, terminated, truncated = (
            np.concatenate([result[which] for result in results]) for which in (1, 2, 3)
        )
        self._reward += reward
        done = terminated | truncated
        infos: list[dict[str, Any]] = [{} for _ in done]
        for number, part in enumerate(self._parts):
            found = results[number][4]
            for row in np.flatnonzero(done[part]):
                at = part.start + row
                last = {name: value[None] for name, value in found["final_obs"][row].items()}
                ended = found["final_info"]
                score = {name: float(value[row]) for name, value in ended["episode_score"].items()}
                at_goal = bool(ended["terms"]["goal"][row]) and score["nc"] == 1
                infos[at] = {
                    "terminal_observation": features(last, self.grid)[0],
                    "TimeLimit.truncated": bool(truncated[at] and not terminated[at]) or at_goal,
                }
                self.scores.append({**score, "reward": float(self._reward[at])})
                self._reward[at] = 0
        seen = features(self.observation, self.grid)
        return seen, (REWARD_SCALE * reward).astype(np.float32), done, infos

    def close(self) -> None:
        """Close the environments."""
        self._threads.shutdown()
        for env in self.envs:
            env.close()

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """The attribute of each row's environment."""
        each = [getattr(env, attr_name) for env in self.envs for _ in range(env.num_envs)]
        return [each[row] for row in self._rows(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Refused: several rows are one environment."""
        raise NotImplementedError("the rows of a LearnerEnv share environments")

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **options: Any) -> list[Any]:
        """Refused: several rows are one environment."""
        raise NotImplementedError("the rows of a LearnerEnv share environments")

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        """No row is wrapped."""
        return [False] * len(self._rows(indices))

    def _rows(self, indices: Any) -> Sequence[int]:
        return list(self._get_indices(indices))


def _joined(parts: Sequence[Observation]) -> Observation:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
