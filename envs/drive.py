"""The driving environment, one episode at a time: a batch of one of the same simulation."""

from __future__ import annotations

from typing import Any, ClassVar

import gymnasium as gym
import numpy as np

from occsora_sim.envs.config import make_config
from occsora_sim.envs.human_view import HumanView, render_modes
from occsora_sim.envs.imagination import Imagination, Imagined
from occsora_sim.envs.infos import describe
from occsora_sim.envs.options import read_limit, read_options, read_seeds
from occsora_sim.envs.render import pictures_per_second, render_row
from occsora_sim.envs.simulation import DriveSimulation
from occsora_sim.envs.spaces import action_space, observation_space
from occsora_sim.envs.starts import open_starts
from occsora_sim.envs.state import DriveState
from occsora_sim.envs.worlds import close_world, make_world
from occsora_sim.errors import ActionError, ConfigurationError, NotResetError

Observation = dict[str, np.ndarray]


class DriveEnv(gym.Env):
    """Drive a car through a world of occupancy. Options: see `DriveConfig`.

    An episode terminates with an at-fault collision, with the whole footprint off the road, or at the goal;
    it is truncated after `seconds`. `info["reward_terms"]` names what the reward is made of.
    """

    metadata: ClassVar[dict[str, Any]] = {  # type: ignore[misc]
        "render_modes": ["human", "rgb_array"],
        "render_fps": 1,
    }

    def __init__(self, *, render_mode: str | None = None, **options: Any) -> None:
        limit = read_limit(options.pop("max_episode_steps", None))
        if render_mode not in (None, "human", "rgb_array"):
            raise ConfigurationError(f"render_mode={render_mode!r}: choose None, 'human' or 'rgb_array'")
        self.config = make_config(options)
        if self.config.output != "numpy":
            raise ConfigurationError(
                'output="torch": a single environment gives arrays; make a batch of one with gymnasium.make_vec'
            )
        self._view = HumanView() if render_mode == "human" else None
        world = make_world(self.config)
        self.simulation = DriveSimulation(self.config, world, open_starts(self.config, world), limit)
        self.render_mode = render_mode
        self.metadata = {  # type: ignore[misc]
            "render_modes": render_modes(),
            "render_fps": pictures_per_second(self.simulation),
        }
        self.action_space = action_space(self.simulation)
        self.observation_space = observation_space(self.simulation)
        self.imagination = Imagination(self.simulation)
        self.state: DriveState | None = None
        self._drawn: set[int] = set()  # starts, of this pass through all of them
        self._ended = False

    def reset(
        self, *, seed: Any = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Begin an episode.

        Args:
            seed: of all that is drawn. Without one the draws go on: no start is drawn twice before all were.
            options: `start`: the start's index, or "generate" to begin from nothing; `place` and `vehicles`: the
                episode's scene prompt, in the place of the environment's (`DriveConfig`); `road_users`: those that
                are placed, moved, removed or scripted, a list of mappings (`envs.road_user_edit`).

        Raises:
            ConfigurationError: a seed or an option that cannot be, or is not known.

        """
        asked = read_options(options, 1, vector=False)
        if seed is None and self._np_random is None:
            seed = self.config.seed
        seed = read_seeds(seed, 1)[0]
        super().reset(seed=seed)
        if seed is not None:
            self._drawn.clear()
        self.state = self.simulation.launch(
            [self.np_random], asked.start, [asked.prompt], [self._drawn], asked.road_users
        )
        self._ended = False
        if self._view is not None:
            self._view.show(self.simulation, self.state, new=True)
        return self._observation(), describe(self.state, self.simulation.config)[0]

    def step(self, action: Any) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Drive on with `action`: (a,), or the number of a manoeuvre.

        Raises:
            ActionError: wrong shape, not finite, or outside the space.
            NotResetError: before `reset`, or after the episode's end.

        """
        if self.state is None:
            raise NotResetError("step: the environment was not reset; call reset() first")
        if self._ended:
            raise NotResetError("step: the episode has ended; call reset() to begin the next")
        if np.shape(action) != self.action_space.shape:
            raise ActionError(
                f"action: shape {np.shape(action)}, expected {self.action_space.shape}; see action_space"
            )
        values = self.simulation.check([action], 1)
        self.state, outcome = self.simulation.step(self.state, values)
        terminated, truncated = bool(outcome.terminated[0]), bool(outcome.truncated[0])
        self._ended = terminated or truncated
        info = describe(self.state, self.simulation.config, outcome)[0]
        if self._view is not None:
            self._view.show(self.simulation, self.state)
        return self._observation(), float(outcome.reward[0]), terminated, truncated, info

    def imagine(
        self, plans: np.ndarray, *, frames: bool = False, shared: bool = False, room: float = 0.0,
        until: int | None = None,
    ) -> Imagined:  # fmt: skip
        """What k sequences of h actions would bring from here: plans (k, h, a), or (k, h) manoeuvres.

        Nothing is driven. The arrays of the answer have the axis k first; see `envs.imagination`.

        Raises:
            ActionError: wrong shape, or an action outside the space.
            NotResetError: before the first `reset`.

        """
        if self.state is None:
            raise NotResetError("imagine: the environment was not reset; call reset() first")
        return self.imagination(
            self.state, np.asarray(plans)[None], frames=frames, shared=shared, room=room, until=until
        ).map(lambda value: value[0])

    def render(self) -> np.ndarray | None:  # type: ignore[override]
        """A bird's-eye picture (h, w, 3) uint8; None without a render mode, and with "human", whose window `reset` and
        `step` fill.
        """
        if self.render_mode is None:
            return None
        if self.state is None:
            raise NotResetError("render: the environment was not reset; call reset() first")
        if self.render_mode == "human":
            return None
        return render_row(self.simulation, self.state, 0)

    def close(self) -> None:
        """Close the window, if there is one, and let go of what the world holds."""
        if self._view is not None:
            self._view.close()
        close_world(self.config, self.simulation.world)

    def _observation(self) -> Observation:
        assert self.state is not None
        return {name: value[0] for name, value in self.simulation.observe(self.state).items()}
