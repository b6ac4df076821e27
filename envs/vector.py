"""The driving environment as one batch: N episodes in a single world call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space

from occsora_sim.envs.config import make_config
from occsora_sim.envs.imagination import Imagination, Imagined
from occsora_sim.envs.infos import describe
from occsora_sim.envs.options import read_limit, read_options, read_seeds
from occsora_sim.envs.render import pictures_per_second, render_row
from occsora_sim.envs.simulation import DriveSimulation
from occsora_sim.envs.spaces import action_space, observation_space
from occsora_sim.envs.starts import open_starts
from occsora_sim.envs.state import DriveState
from occsora_sim.envs.worlds import close_world, make_world
from occsora_sim.errors import ConfigurationError, NotResetError
from occsora_sim.quantities import whole

Observation = dict[str, np.ndarray]


class DriveVectorEnv(gym.vector.VectorEnv):
    """N driving episodes side by side. Options: see `DriveConfig`.

    An episode that has ended begins anew by itself: with `autoreset="next_step"` in the next step, whose
    action it ignores (reward 0); with "same_step" at once, its last observation and info in
    `infos["final_obs"]` and `infos["final_info"]`.

    Every episode has its own random generator, seeded with `seed + i`, so an episode is the same alone and in
    a batch. None draws a start twice before it has drawn all.
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
        self._same_step = self.config.autoreset == "same_step"
        self.metadata = {
            "render_modes": ["rgb_array"],
            "render_fps": pictures_per_second(self.simulation),
            "autoreset_mode": AutoresetMode.SAME_STEP if self._same_step else AutoresetMode.NEXT_STEP,
        }
        self.single_action_space = action_space(self.simulation)
        self.single_observation_space = observation_space(self.simulation)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.generators: list[np.random.Generator] | None = None
        self._drawn: list[set[int]] = [set() for _ in range(num_envs)]  # starts of each row's present pass
        self.state: DriveState | None = None
        self._ended: np.ndarray = np.zeros(num_envs, dtype=bool)
        self._prompts: list[Mapping[str, Any]] = [{}] * num_envs  # as `reset` was given them

    def reset(  # type: ignore[override]
        self, *, seed: Any = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Begin all episodes, or some.

        Args:
            seed: episode i is seeded with `seed + i`, or with `seed[i]`; None goes on with the generators.
            options: `start`: index of the start, or "generate" to begin from nothing, one for all or one for each;
                `place` and `vehicles`: the scene prompt of these and all later episodes, in the place of the
                environment's (`DriveConfig`); `reset_mask`: (n,) bool, the episodes that begin anew, as Gymnasium
                means it: the others go on, are observed as they are, and have no info.

        Raises:
            ConfigurationError: a seed or an option that cannot be, or is not known.
            NotResetError: a `reset_mask` before all episodes have begun.

        """
        asked = read_options(options, self.num_envs, vector=True)
        rows, everyone = list(asked.rows), len(asked.rows) == self.num_envs
        if self.state is None and not everyone:
            raise NotResetError(
                "reset: some episodes have not begun; call reset() without a reset_mask first"
            )
        if seed is None and self.generators is None:
            seed = self.config.seed
        seeds = read_seeds(seed, self.num_envs)
        if seed is not None and not np.ndim(seed):
            super().reset(seed=seeds[0])
        if self.generators is None:
            fresh = self.np_random.integers(1 << 31, size=self.num_envs)
            self.generators = [seeding.np_random(int(value))[0] for value in fresh]
        for row in rows:
            if seeds[row] is not None:
                self.generators[row] = seeding.np_random(seeds[row])[0]
                self._drawn[row].clear()
        begun = self.simulation.launch(
            [self.generators[row] for row in rows],
            asked.start,
            [asked.prompt] * len(rows),
            [self._drawn[row] for row in rows],
        )
        for row in rows:
            self._prompts[row] = asked.prompt
        self.state = begun if everyone else self.simulation.replace(self.state, rows, begun)
        self._ended[rows] = False
        infos: dict[str, Any] = {}
        for row, info in zip(rows, describe(begun, self.simulation.config), strict=True):
            infos = self._add_info(infos, info, row)
        return self.simulation.observe(self.state), infos

    def step(self, actions: Any) -> tuple[Observation, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Drive on with `actions`: (n, a), or (n,) manoeuvres.

        Raises:
            ActionError: wrong shape, not finite, or outside the space.
            NotResetError: before the first `reset`.

        """
        if self.state is None or self.generators is None:
            raise NotResetError("step: the environment was not reset; call reset() first")
        simulation, count = self.simulation, self.num_envs
        over = [row for row in range(count) if self._ended[row]]
        live = [row for row in range(count) if not self._ended[row]]
        values = simulation.check(actions, count, ignore=over)
        reward = np.zeros(count)
        ended = np.zeros((2, count), dtype=bool)  # terminated, truncated
        described: list[dict[str, Any]] = [{} for _ in range(count)]
        begun = self._begin(over) if over else None
        if begun is not None:
            for row, info in zip(over, describe(begun, simulation.config), strict=True):
                described[row] = info
        if live:
            before = self.state if begun is None else simulation.select(self.state, live)
            after, outcome = simulation.step(before, values[live])
            reward[live] = outcome.reward.double().cpu().numpy()
            ended[:, live] = torch.stack((outcome.terminated, outcome.truncated)).cpu().numpy()
            for row, info in zip(live, describe(after, simulation.config, outcome), strict=True):
                described[row] = info
            if begun is None:
                self.state = after
            else:  # rows that begin anew hold a copy of another until they are put in
                spread = [live.index(row) if row in live else 0 for row in range(count)]
                self.state = simulation.replace(simulation.select(after, spread), over, begun)
        else:
            self.state = begun
        self._ended = np.asarray(ended.any(axis=0))
        if self._same_step and self._ended.any():
            self._begin_at_once(described)
        infos: dict[str, Any] = {}
        for row, info in enumerate(described):
            infos = self._add_info(infos, info, row)
        return simulation.observe(self.state), reward, ended[0], ended[1], infos

    def imagine(self, plans: np.ndarray, *, frames: bool = False) -> Imagined:
        """What k sequences of h actions would bring to each episode: plans (n, k, h, a), or (n, k, h) manoeuvres.

        Nothing is driven. See `envs.imagination`.

        Raises:
            ActionError: wrong shape, or an action outside the space.
            NotResetError: before the first `reset`.

        """
        if self.state is None:
            raise NotResetError("imagine: the environment was not reset; call reset() first")
        return self.imagination(self.state, plans, frames=frames)

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

    def _begin(self, rows: Sequence[int]) -> DriveState:
        """New episodes for `rows`, drawn from their generators."""
        generators = self.generators or []
        return self.simulation.launch(
            [generators[row] for row in rows],
            prompts=[self._prompts[row] for row in rows],
            drawn=[self._drawn[row] for row in rows],
        )

    def _begin_at_once(self, described: list[dict[str, Any]]) -> None:
        """Same-step autoreset: put new episodes in; keep the last observation and info of the old ones."""
        simulation, state = self.simulation, self.state
        rows = [row for row in range(self.num_envs) if self._ended[row]]
        last = simulation.observe(simulation.select(state, rows))
        begun = self._begin(rows)
        for index, (row, info) in enumerate(zip(rows, describe(begun, simulation.config), strict=True)):
            final = {name: value[index] for name, value in last.items()}
            described[row] = {**info, "final_obs": final, "final_info": described[row]}
        self.state = simulation.replace(state, rows, begun)
        self._ended[:] = False
