"""The driving environment as Stable-Baselines3 takes it: N worlds in one call, whatever the observation."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import VecEnv

from occsora_sim.envs import DRIVE_ID
from occsora_sim.envs.vector import DriveVectorEnv
from occsora_sim.envs.wrappers import learner
from occsora_sim.errors import ConfigurationError

Seen = dict[str, np.ndarray]


class DriveVecEnv(VecEnv):
    """`num_envs` episodes, driven in one call of the world a step: `PPO("MultiInputPolicy", DriveVecEnv(8))`.

    Observations are what `envs.wrappers.learner` makes of the environment's: the image, every other part a vector in
    [-1, 1]. An episode that has ended begins anew at once; its info then holds, as Stable-Baselines3 has it,
    `terminal_observation`, `TimeLimit.truncated` and `episode` (reward "r", length "l", seconds since the first reset
    "t"), and beside these `episode_score` (score, nc, dac, ttc, ep, comfort, progress [m], seconds [s]) and `start`.

    Args:
        num_envs: episodes side by side.
        pool: so many pixels a side of the image become one.
        options: of the environment (`DriveConfig`), and `render_mode` and `max_episode_steps`; observation="policy"
            unless told otherwise.

    Raises:
        ConfigurationError: an option that cannot be; `output` and `autoreset` are set here.

    """

    def __init__(self, num_envs: int = 8, *, pool: int = 1, **options: Any) -> None:
        for name in ("output", "autoreset"):
            if name in options:
                raise ConfigurationError(f"DriveVecEnv: {name} is set by it; leave it out")
        given = {"observation": "policy", **options, "output": "torch", "autoreset": "same_step"}
        made: Any = gym.make_vec(DRIVE_ID, num_envs=num_envs, **given)
        self.env: DriveVectorEnv = made
        self._seen: Any = learner(made, pool)
        self._actions: Any = None
        self._reward, self._length = np.zeros(num_envs), np.zeros(num_envs, dtype=np.int64)
        self._began = time.perf_counter()
        super().__init__(num_envs, self._seen.single_observation_space, made.single_action_space)

    # ------------------------------------------------------------------ driving
    def reset(self) -> Seen:  # type: ignore[override]
        """Begin all episodes, with the seeds and options that `seed` and `set_options` have given."""
        given = [None if seed is None else int(seed) for seed in self._seeds]
        seeds = None if all(seed is None for seed in given) else given
        observation, _ = self._seen.reset(seed=seeds, options=self._joined_options())
        self._reset_seeds()
        self._reset_options()
        self._reward[:], self._length[:] = 0, 0
        self._began = time.perf_counter()
        return _arrays(observation)

    def step_async(self, actions: np.ndarray) -> None:
        """Keep the actions (n, a), or (n,) manoeuvres, for `step_wait`; they are clamped to the space."""
        self._actions = actions

    def step_wait(self) -> tuple[Seen, np.ndarray, np.ndarray, list[dict[str, Any]]]:  # type: ignore[override]
        """Drive on: observation, reward (n,), done (n,) and an info for each row."""
        observation, reward, terminated, truncated, found = self._seen.step(self._actions)
        rewards = reward.cpu().numpy().astype(np.float32)
        ended, cut = torch.stack((terminated, truncated)).cpu().numpy()
        done = ended | cut
        self._reward += rewards
        self._length += 1
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        if done.any():
            rows = np.flatnonzero(done)
            index = torch.as_tensor(rows, device=reward.device)
            last = _arrays({name: value[index] for name, value in found["final_obs"].items()})
            told = found["final_info"]
            score = {
                name: value[index].cpu().numpy()
                for name, value in told["episode_score"].items()
                if name[0] != "_"
            }
            starts = told["start"][index].tolist()
            since = round(time.perf_counter() - self._began, 6)
            for k, row in enumerate(rows.tolist()):
                infos[row] = {
                    "terminal_observation": {name: value[k] for name, value in last.items()},
                    "TimeLimit.truncated": bool(cut[row] and not ended[row]),
                    "episode": {"r": float(self._reward[row]), "l": int(self._length[row]), "t": since},
                    "episode_score": {name: float(value[k]) for name, value in score.items()},
                    "start": starts[k],
                }
            self._reward[rows], self._length[rows] = 0, 0
        return _arrays(observation), rewards, done, infos

    def close(self) -> None:
        """Close the environment."""
        self.env.close()

    # ------------------------------------------------------------------ the rest of a VecEnv
    def get_images(self) -> Sequence[np.ndarray | None]:
        """A picture of each row, with render_mode="rgb_array"."""
        return self.env.render() or [None] * self.num_envs

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """The environment's attribute, which all rows share, once for each row."""
        value = getattr(self.env, attr_name)
        return [value for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Set the environment's attribute: for all rows, which share it, or not at all.

        Raises:
            ConfigurationError: `indices` are some of the rows.

        """
        if len(set(self._get_indices(indices))) < self.num_envs:
            raise ConfigurationError(f"set_attr {attr_name}: the rows are one environment; leave out indices")
        setattr(self.env, attr_name, value)

    def env_method(
        self, method_name: str, *method_args: Any, indices: Any = None, **method_kwargs: Any
    ) -> list[Any]:
        """Call the environment's method once, and answer what it says of the rows `indices`.

        An answer with an entry for each row is cut into rows; any other is given for each.
        """
        answer = getattr(self.env, method_name)(*method_args, **method_kwargs)
        rows = list(self._get_indices(indices))
        each = isinstance(answer, tuple | list | np.ndarray | torch.Tensor) and len(answer) == self.num_envs
        return [answer[row] if each else answer for row in rows]

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        """Whether it does what a wrapper does: `Monitor`, whose info `episode` it gives."""
        return [wrapper_class is Monitor for _ in self._get_indices(indices)]

    def _joined_options(self) -> dict[str, Any] | None:
        """The options of all rows as one: `start` may differ from row to row, the others may not."""
        options = [dict(row) for row in self._options]
        starts = [row.pop("start", None) for row in options]
        if any(row != options[0] for row in options) or len({start is None for start in starts}) > 1:
            raise ConfigurationError(
                "set_options: only `start` may differ from row to row, and all rows need one"
            )
        joined = options[0] if starts[0] is None else {**options[0], "start": starts}
        return joined or None


def _arrays(observation: dict[str, torch.Tensor]) -> Seen:
    """On the host, of the receiver's own."""
    return {name: value.cpu().numpy().copy() for name, value in observation.items()}
