"""Batches of episodes in workers of a Ray cluster, for a learner; what a worker that died had done is done again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np

from occsora_sim.cluster import Told, Workers, open_workers
from occsora_sim.envs.vector import DriveVectorEnv
from occsora_sim.errors import ClusterError


@contextmanager
def remote_envs(
    ray: str, make: Callable[..., DriveVectorEnv], sizes: Sequence[int], device: str = "cpu"
) -> Iterator[list[RemoteEnv]]:
    """Environments of so many episodes each, `make(num_envs=...)`, each in a worker of its own, for the block.

    Args:
        ray: address of the cluster, see `cluster.open_crew`.
        make: makes one, there; and here one of a single episode, whose spaces and options alone are used.
        sizes: how many episodes each has.
        device: that they compute on.

    Raises:
        ClusterError: the cluster does not answer, or has not so many workers.
        MissingDependencyError: Ray is not installed.

    """
    with open_workers(ray, device=device) as workers:
        if len(sizes) > workers.total:
            raise ClusterError(f"--workers {len(sizes)}: --ray {ray} has room for {workers.total}")
        like = make(num_envs=1)
        yield [RemoteEnv(workers, partial(make, num_envs=size), like, size) for size in sizes]


class RemoteEnv:
    """A `DriveVectorEnv` in another process, as `LearnerEnv` uses it.

    A worker is asked for the last of all steps since the episodes began, so what it answers depends on nothing that a
    worker that died has taken along: the one in its place drives them again.

    Args:
        workers: of the cluster.
        make: makes the environment there.
        like: one of the same options, here.
        num_envs: how many episodes.

    """

    def __init__(
        self, workers: Workers, make: Callable[[], DriveVectorEnv], like: DriveVectorEnv, num_envs: int
    ) -> None:
        self.config, self.simulation, self.num_envs = like.config, like.simulation, num_envs
        self.single_action_space = like.single_action_space
        self._workers, self._worker = workers, workers.add(workers.send(partial(Episodes, make)))
        self._seeds: Any = None
        self._actions: list[np.ndarray] = []

    def reset(self, *, seed: Any = None) -> tuple[Any, dict[str, Any]]:
        """Begin all episodes; without a seed with that of the options."""
        self._seeds, self._actions = self.config.seed if seed is None else seed, []
        return self._last()

    def step(self, actions: np.ndarray) -> tuple[Any, ...]:
        """Drive on."""
        self._actions.append(actions)
        return self._last()

    def close(self) -> None:
        """Nothing is held here; whoever opened the workers lets them go."""

    def _last(self) -> Any:
        return self._workers.run(self._worker, last_step, (self._seeds, self._actions))


class Episodes:
    """What a worker holds: an environment, its seeds, and the actions since its episodes began."""

    def __init__(self, make: Callable[[], DriveVectorEnv]) -> None:
        self.env = make()
        self.seeds: Any = None
        self.actions: list[np.ndarray] = []


def last_step(held: Episodes, unit: tuple[Any, list[np.ndarray]], told: Told) -> Any:
    """What comes of the last of the actions (none: of the beginning), whatever this worker has done before."""
    seeds, actions = unit
    known = len(held.actions)
    result: Any = None
    if not actions or held.seeds != seeds or known >= len(actions) or not _same(held.actions, actions):
        result = held.env.reset(seed=seeds)
        held.seeds, held.actions, known = seeds, [], 0
    for action in actions[known:]:
        result = held.env.step(action)
        held.actions.append(action)
    return result


def _same(one: Sequence[np.ndarray], other: Sequence[np.ndarray]) -> bool:
    """Whether the longer begins with the shorter."""
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=False))
