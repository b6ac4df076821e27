"""The driving environment as Stable-Baselines3 takes it: N worlds in one model call, seen through `agents.features`."""

from __future__ import annotations

from collections.abc import Sequence
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
    """A `DriveVectorEnv` with same-step autoreset behind the interface of Stable-Baselines3.

    An episode that has reached its goal counts as cut off by time, not as ended: nothing was done wrong, and a learner
    that loses all that would have followed would avoid the goal.

    Args:
        env: made with action="controls" and the default observation.

    """

    def __init__(self, env: DriveVectorEnv) -> None:
        if env.config.autoreset != "same_step" or env.config.action != "controls":
            raise ConfigurationError(
                "learner: the environment must have autoreset='same_step', action='controls'"
            )
        self.env, self.grid = env, env.simulation.world.grid
        self.observation: Observation = {}
        """What the agents of all rows see now, as the environment shows it."""
        self.scores: list[dict[str, float]] = []
        """Of the episodes that have ended since the list was last emptied: `episode_score` and `reward`."""
        self._reward = np.zeros(env.num_envs)
        self._actions = np.zeros((env.num_envs, 2))
        space = gym.spaces.Box(-np.inf, np.inf, (feature_count(),), np.float32)
        super().__init__(env.num_envs, space, env.single_action_space)

    def reset(self) -> np.ndarray:  # type: ignore[override]
        """Begin all episodes, with the seeds that `seed` has given."""
        seeds = None if self._seeds[0] is None else [int(value) for value in self._seeds if value is not None]
        self.observation, _ = self.env.reset(seed=seeds)
        self._reset_seeds()
        self._reward[:] = 0
        return features(self.observation, self.grid)

    def step_async(self, actions: np.ndarray) -> None:
        """Keep the actions (n, 2) for `step_wait`."""
        self._actions = np.clip(actions, -1.0, 1.0)

    def step_wait(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[dict[str, Any]]]:  # type: ignore[override]
        """Drive on: features (n, d), reward (n,), done (n,) and infos with `terminal_observation` of ended episodes."""
        self.observation, reward, terminated, truncated, found = self.env.step(self._actions)
        self._reward += reward
        done = terminated | truncated
        infos: list[dict[str, Any]] = [{} for _ in done]
        for row in np.flatnonzero(done):
            last = {name: value[None] for name, value in found["final_obs"][row].items()}
            score = {name: float(value[row]) for name, value in found["final_info"]["episode_score"].items()}
            at_goal = bool(found["final_info"]["terms"]["goal"][row]) and score["nc"] == 1
            infos[row] = {
                "terminal_observation": features(last, self.grid)[0],
                "TimeLimit.truncated": bool(truncated[row] and not terminated[row]) or at_goal,
            }
            self.scores.append({**score, "reward": float(self._reward[row])})
            self._reward[row] = 0
        seen = features(self.observation, self.grid)
        return seen, (REWARD_SCALE * reward).astype(np.float32), done, infos

    def close(self) -> None:
        """Close the environment."""
        self.env.close()

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """The attribute of the one environment, once for each row."""
        return [getattr(self.env, attr_name)] * len(self._rows(indices))

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Refused: the rows are one environment."""
        raise NotImplementedError("the rows of a LearnerEnv are one environment")

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **options: Any) -> list[Any]:
        """Refused: the rows are one environment."""
        raise NotImplementedError("the rows of a LearnerEnv are one environment")

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        """No row is wrapped."""
        return [False] * len(self._rows(indices))

    def _rows(self, indices: Any) -> Sequence[int]:
        return list(self._get_indices(indices))
