"""Wrappers that a learner wants, each for the single and for the vector environment: image, flat, frame stack.

Where Gymnasium has the wrapper, it is Gymnasium's own that is put on. Its vector wrappers of observations refuse
same-step autoreset or step through the rows one by one, so for vector environments those here transform the whole
batch at once, the last observations in `infos["final_obs"]` included.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from gymnasium.vector import VectorEnv
from gymnasium.vector.utils import batch_space, iterate

from occsora_sim.constants import constant
from occsora_sim.envs.spaces import BOUNDS
from occsora_sim.errors import ConfigurationError

AnyEnv = gym.Env | VectorEnv
Transform = Callable[[Any], Any]
"""From a batch of observations to a batch of others."""

E = TypeVar("E", gym.Env, VectorEnv)


def image(env: E, pool: int = 1) -> E:
    """The bird's-eye image alone, (4 f + 1, x / pool, y / pool) uint8, for convolutional policies.

    Args:
        env: with the observation "birdseye".
        pool: this many voxels a side become one pixel, the brightest of them, so that nothing thin is lost.

    Raises:
        ConfigurationError: the environment does not observe "birdseye", or `pool` does not divide its size.

    """
    return _transformed(
        env, _image_space(_single_space(env), pool), lambda batch: _pooled(batch["birdseye"], pool)
    )


def learner(env: E, pool: int = 1) -> E:
    """A Dict that Stable-Baselines3 takes as it is: the bird's-eye image, every other part a vector in [-1, 1].

    Labels stay labels (uint8), as one long vector; the bird's-eye view is the better thing to learn from.

    Takes tensors, too, and leaves them on their device.

    Args:
        env: with any observation.
        pool: as for `image`.

    Raises:
        ConfigurationError: as for `image`.

    """
    space = _single_space(env)
    if not isinstance(space, spaces.Dict):
        raise ConfigurationError(
            f"learner: the observation is {space}; wrap the environment itself, whose is a Dict"
        )
    parts: dict[str, spaces.Space] = {}
    for name, part in space.spaces.items():
        assert isinstance(part, spaces.Box)
        size = (int(np.prod(part.shape)),)
        if name == "birdseye":
            parts[name] = _image_space(space, pool)
        elif part.dtype == np.uint8:
            parts[name] = spaces.Box(part.low.ravel(), part.high.ravel(), size, np.uint8)
        else:
            parts[name] = spaces.Box(-1.0, 1.0, size, np.float32)

    return _transformed(env, spaces.Dict(parts), lambda batch: learner_batch(batch, pool))


def learner_batch(batch: dict[str, Any], pool: int = 1) -> dict[str, Any]:
    """What `learner` makes of a batch of observations, arrays or tensors, of any of the environment's parts."""
    out = {}
    for name, value in batch.items():
        if name == "birdseye":
            out[name] = _pooled(value, pool)
        elif value.dtype in (np.uint8, torch.uint8):
            out[name] = value.reshape(len(value), -1)
        elif isinstance(value, torch.Tensor):
            most = constant(tuple(np.ravel(BOUNDS[name]).tolist()), value.device)
            out[name] = (value / most).flatten(1)
        else:
            out[name] = (value / BOUNDS[name]).reshape(len(value), -1).astype(np.float32)
    return out


def flat(env: E) -> E:
    """Everything that is observed as one vector, as `gymnasium.wrappers.FlattenObservation` makes it.

    With "ego" and "route" alone it is 44 numbers; an occupancy is hundreds of thousands.
    """
    if not isinstance(env, VectorEnv):
        return gym.wrappers.FlattenObservation(env)
    _need_arrays(env, "flat")
    space = env.single_observation_space

    def change(batch: Any) -> np.ndarray:
        rows = iterate(
            batch_space(space, len(next(iter(batch.values())) if isinstance(batch, dict) else batch)), batch
        )
        return np.stack([np.asarray(spaces.flatten(space, row)) for row in rows])

    return VectorTransform(env, spaces.flatten_space(space), change)  # type: ignore[return-value]


def frame_stack(env: E, size: int) -> E:
    """The last `size` observations, oldest first, stacked on a new first axis; the first is repeated at the beginning.

    Single environments get `gymnasium.wrappers.FrameStackObservation`; it has no vector version, so this has one.

    Raises:
        ConfigurationError: `size` is below 1.

    """
    if size < 1:
        raise ConfigurationError(f"frame_stack: size {size} must be 1 or more")
    if isinstance(env, VectorEnv):
        _need_arrays(env, "frame_stack")
        return VectorFrameStack(env, size)  # type: ignore[return-value]
    return gym.wrappers.FrameStackObservation(env, size)  # type: ignore[return-value]


class VectorTransform(gym.vector.VectorWrapper):
    """Passes every batch of observations, the last ones of same-step autoreset too, through a function."""

    def __init__(self, env: VectorEnv, space: spaces.Space, transform: Transform) -> None:
        super().__init__(env)
        self.transform = transform
        self.single_observation_space = space
        self.observation_space = batch_space(space, env.num_envs)

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """As the environment's."""
        observation, infos = self.env.reset(seed=seed, options=options)
        return self.transform(observation), infos

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """As the environment's."""
        observation, reward, terminated, truncated, infos = self.env.step(actions)
        last = infos.get("final_obs")
        if isinstance(last, dict):  # a batch of tensors
            infos["final_obs"] = self.transform(last)
        elif last is not None:
            for row in np.flatnonzero(infos["_final_obs"]):
                last[row] = _first(self.transform(_batch_of_one(last[row])))
        return self.transform(observation), reward, terminated, truncated, infos


class VectorFrameStack(gym.vector.VectorWrapper):
    """The last observations of every row; a row that begins anew forgets what was before."""

    def __init__(self, env: VectorEnv, size: int) -> None:
        super().__init__(env)
        self.size = size
        self.single_observation_space = batch_space(env.single_observation_space, size)
        self.observation_space = batch_space(self.single_observation_space, env.num_envs)
        self._stack: Any = None
        self._over = np.zeros(env.num_envs, dtype=bool)

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """As the environment's."""
        observation, infos = self.env.reset(seed=seed, options=options)
        self._stack = _map(lambda value: np.repeat(value[:, None], self.size, axis=1), observation)
        self._over[:] = False
        return _map(np.copy, self._stack), infos

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """As the environment's."""
        observation, reward, terminated, truncated, infos = self.env.step(actions)
        final = np.asarray(infos.get("_final_obs", np.zeros(self.num_envs, dtype=bool)))
        for row in np.flatnonzero(final):
            last = _batch_of_one(infos["final_obs"][row])
            infos["final_obs"][row] = _first(
                _map(_push, _map(lambda value, row=row: value[row : row + 1], self._stack), last)
            )
        fresh = self._over | final  # what is observed now is the first of a new episode
        self._stack = _map(lambda old, new: _push(old, new, fresh), self._stack, observation)
        self._over = (np.asarray(terminated) | np.asarray(truncated)) & ~final
        return _map(np.copy, self._stack), reward, terminated, truncated, infos


def _push(stack: np.ndarray, newest: np.ndarray, fresh: np.ndarray | None = None) -> np.ndarray:
    """(n, s, ...) and (n, ...) -> (n, s, ...): the newest put at the end; `fresh` (n,) rows hold nothing else."""
    out = np.concatenate((stack[:, 1:], newest[:, None]), axis=1)
    if fresh is not None and fresh.any():
        out[fresh] = newest[fresh][:, None]
    return out


def _map(function: Callable[..., np.ndarray], *observations: Any) -> Any:
    """`function` on every array of observations that are arrays, or dictionaries of them."""
    if isinstance(observations[0], dict):
        return {name: function(*(each[name] for each in observations)) for name in observations[0]}
    return function(*observations)


def _batch_of_one(observation: Any) -> Any:
    return _map(lambda value: np.asarray(value)[None], observation)


def _first(batch: Any) -> Any:
    return _map(lambda value: value[0], batch)


def _single_space(env: AnyEnv) -> spaces.Space:
    return env.single_observation_space if isinstance(env, VectorEnv) else env.observation_space


def _transformed(env: E, space: spaces.Space, transform: Transform) -> E:
    if isinstance(env, VectorEnv):
        return VectorTransform(env, space, transform)  # type: ignore[return-value]
    return gym.wrappers.TransformObservation(  # type: ignore[return-value]
        env, lambda observation: _first(transform(_batch_of_one(observation))), space
    )


def _need_arrays(env: VectorEnv, name: str) -> None:
    """Refuse an environment that gives tensors."""
    if getattr(getattr(env.unwrapped, "config", None), "output", "numpy") == "torch":
        raise ConfigurationError(f'{name}: takes arrays; make the environment with output="numpy"')


def _image_space(space: spaces.Space, pool: int) -> spaces.Box:
    if not isinstance(space, spaces.Dict) or "birdseye" not in space.spaces:
        raise ConfigurationError(
            'image: the environment observes no "birdseye"; make it with observation=("birdseye", ...)'
        )
    channels, *size = space["birdseye"].shape  # type: ignore[misc]
    if pool < 1 or any(edge % pool for edge in size):
        raise ConfigurationError(
            f"image: pool {pool} does not divide the image's {size[0]} x {size[1]} voxels"
        )
    return spaces.Box(0, 255, (channels, *(edge // pool for edge in size)), np.uint8)


def _pooled(value: Any, pool: int) -> Any:
    """(n, c, x, y) -> (n, c, x / pool, y / pool): the largest of each square, of an array or a tensor."""
    n, channels, x, y = value.shape
    squares = value.reshape(n, channels, x // pool, pool, y // pool, pool)
    return squares.amax(dim=(3, 5)) if isinstance(squares, torch.Tensor) else squares.max(axis=(3, 5))
