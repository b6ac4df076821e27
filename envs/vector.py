"""The driving environment as one batch: N episodes in a single world call."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space

from occsora_sim.envs.beginnings import Beginnings
from occsora_sim.envs.config import make_config
from occsora_sim.envs.drawn_episodes import DrawnEpisodes
from occsora_sim.envs.imagination import Imagination, Imagined
from occsora_sim.envs.observation import own_copy
from occsora_sim.envs.options import read_limit, read_options, read_seeds
from occsora_sim.envs.pooled_episodes import LARGEST_POOL, PooledEpisodes, can_pool
from occsora_sim.envs.render import pictures_per_second, render_row
from occsora_sim.envs.simulation import DriveSimulation
from occsora_sim.envs.spaces import action_space, observation_space
from occsora_sim.envs.starts import open_starts
from occsora_sim.envs.state import DriveState
from occsora_sim.envs.worlds import close_world, make_world
from occsora_sim.errors import ConfigurationError, NotResetError
from occsora_sim.quantities import whole

Observation = dict[str, Any]
"""By name arrays (n, ...), or tensors with output="torch"."""


class DriveVectorEnv(gym.vector.VectorEnv):
    """N driving episodes side by side. Options: see `DriveConfig`.

    An episode that has ended begins anew by itself: with `autoreset="next_step"` in the next step, whose
    action it ignores (reward 0); with "same_step" at once, its last observation and info in
    `infos["final_obs"]` and `infos["final_info"]`.

    Every episode has its own random generator, seeded with `seed + i`, so an episode is the same alone and in
    a batch. None draws a start twice before it has drawn all.

    With `output="torch"` everything that comes back is a tensor on the world's device, `infos["final_obs"]` and
    `infos["final_info"]` too: batched, with masks `_final_obs` and `_final_info`; rows that a mask leaves out hold
    anything. Actions may be tensors there; they are clamped to the space, since a check would wait for the device. In a
    generated world `step` waits for nothing: episodes after the first of each row begin at one of `pool` starts that
    `reset` prepares, in a world of a seed of their own, so they depend on who else has ended (`envs.pooled_episodes`).
    Recordings and live traffic are rolled on from the host, and only handed over as tensors.
    """

    def __init__(self, num_envs: int = 1, *, render_mode: str | None = None, **options: Any) -> None:
        limit = read_limit(options.pop("max_episode_steps", None))
        num_envs = whole(num_envs, "num_envs", least=1)
        if render_mode not in (None, "rgb_array"):
            raise ConfigurationError(f"render_mode={render_mode!r}: choose None or 'rgb_array'")
        self.config = make_config(options)
        world = make_world(self.config)
        self.simulation = DriveSimulation(self.config, world, open_starts(self.config, world), limit)
        self.imagination = Imagination(self.simulation)
        self.num_envs, self.render_mode = num_envs, render_mode
        at_once = self.config.autoreset == "same_step"
        self.metadata = {
            "render_modes": ["rgb_array"],
            "render_fps": pictures_per_second(self.simulation),
            "autoreset_mode": AutoresetMode.SAME_STEP if at_once else AutoresetMode.NEXT_STEP,
        }
        self.single_action_space = action_space(self.simulation)
        self.single_observation_space = observation_space(self.simulation)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.beginnings = Beginnings(self.simulation, num_envs)
        self._tensors = self.config.output == "torch"
        self.episodes: DrawnEpisodes | PooledEpisodes
        if self._tensors and can_pool(world):
            size = self.config.pool or min(len(self.simulation.starts), LARGEST_POOL)
            self.episodes = PooledEpisodes(self.simulation, self.beginnings, at_once, size)
        else:
            self.episodes = DrawnEpisodes(self.simulation, self.beginnings, at_once)

    @property
    def state(self) -> DriveState | None:
        """The episodes under way; None before the first `reset`."""
        return self.episodes.state

    def reset(  # type: ignore[override]
        self, *, seed: Any = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Begin all episodes, or some.

        Args:
            seed: episode i is seeded with `seed + i`, or with `seed[i]`; None goes on with the generators.
            options: `start`: index of the start, or "generate" to begin from nothing, one for all or one for each;
                `place` and `vehicles`: the scene prompt of these and all later episodes, in the place of the
                environment's (`DriveConfig`); `road_users`: those that are placed, moved, removed or scripted at the
                starts of these episodes, a list of mappings (`envs.road_user_edit`); `reset_mask`: (n,) bool, the
                episodes that begin anew, as Gymnasium means it: the others go on, are observed as they are, and have
                no info.

        Raises:
            ConfigurationError: a seed or an option that cannot be, or is not known.
            NotResetError: a `reset_mask` before all episodes have begun.

        """
        asked = read_options(options, self.num_envs, vector=True)
        rows = list(asked.rows)
        if self.state is None and len(rows) < self.num_envs:
            raise NotResetError(
                "reset: some episodes have not begun; call reset() without a reset_mask first"
            )
        some = len(rows) < self.num_envs
        if (
            some
            and isinstance(self.episodes, PooledEpisodes)
            and (seed is not None or asked.prompt or asked.road_users)
        ):
            raise ConfigurationError(
                'reset: seed, place, vehicles or road_users with a reset_mask: with output="torch" those rows take the '
                "next of the pool; give them to a reset of all rows"
            )
        if seed is None and self.beginnings.generators is None:
            seed = self.config.seed
        seeds = read_seeds(seed, self.num_envs)
        if seed is not None and not np.ndim(seed):
            super().reset(seed=seeds[0])
        self.beginnings.seed(rows, seeds, self.np_random)
        self.beginnings.prompt(rows, asked.prompt)
        observation, infos = self.episodes.reset(rows, asked.start, asked.road_users)
        return self._handed(observation), self._told(infos)

    def step(self, actions: Any) -> tuple[Observation, Any, Any, Any, dict[str, Any]]:
        """Drive on with `actions`: (n, a), or (n,) manoeuvres.

        Raises:
            ActionError: wrong shape, not finite, or outside the space.
            NotResetError: before the first `reset`.

        """
        if self.state is None:
            raise NotResetError("step: the environment was not reset; call reset() first")
        if self._tensors and isinstance(self.episodes, DrawnEpisodes):
            actions = self.simulation.clamp(actions, self.num_envs).cpu().numpy()
        observation, *found, infos = self.episodes.step(actions)
        reward, terminated, truncated = (self._told(value) for value in found)
        return self._handed(observation), reward, terminated, truncated, self._told(infos)

    def imagine(
        self, plans: np.ndarray, *, frames: bool = False, shared: bool = False, room: float = 0.0,
        until: int | None = None,
    ) -> Imagined:  # fmt: skip
        """What k sequences of h actions would bring to each episode: plans (n, k, h, a), or (n, k, h) manoeuvres.

        Nothing is driven. See `envs.imagination`.

        Raises:
            ActionError: wrong shape, or an action outside the space.
            NotResetError: before the first `reset`.

        """
        if self.state is None:
            raise NotResetError("imagine: the environment was not reset; call reset() first")
        return self.imagination(self.state, plans, frames=frames, shared=shared, room=room, until=until)

    def render(self) -> tuple[np.ndarray, ...] | None:  # type: ignore[override]
        """A bird's-eye picture (h, w, 3) uint8 of each episode, or None without a render mode."""
        if self.render_mode is None:
            return None
        if self.state is None:
            raise NotResetError("render: the environment was not reset; call reset() first")
        return tuple(render_row(self.simulation, self.state, row) for row in range(self.num_envs))

    def close_extras(self, **kwargs: Any) -> None:
        """Let go of what the world holds; Gymnasium calls it when the environment is closed."""
        close_world(self.config, self.simulation.world)

    def _handed(self, observation: dict[str, torch.Tensor]) -> Observation:
        """An observation in the form of the output, in memory of the receiver's own."""
        if not self._tensors:
            return {name: own_copy(value) for name, value in observation.items()}
        if isinstance(self.episodes, DrawnEpisodes):
            return {name: value.clone() for name, value in observation.items()}
        return observation

    def _told(self, told: Any) -> Any:
        """Arrays, and dictionaries of them, in the form of the output."""
        if isinstance(told, dict):
            return {name: self._told(value) for name, value in told.items()}
        if not self._tensors or isinstance(told, torch.Tensor):
            return told
        if told.dtype == object:  # the last observations of some rows
            parts = next(row for row in told if row is not None)
            rows = [parts if row is None else row for row in told]
            return {name: self._told(np.stack([row[name] for row in rows])) for name in parts}
        return torch.as_tensor(told, device=self.simulation.device)
