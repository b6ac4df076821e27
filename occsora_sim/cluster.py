"""Where work is done: in this process, or spread over a Ray cluster by the option --ray.

Work is cut into units. What comes of a unit depends on nothing but the unit and what every worker holds, so it does not
matter which worker does it, after which others, or how often: a unit whose worker dies is done again elsewhere.
"""

from __future__ import annotations

import logging
import os
import re
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import torch

from occsora_sim.errors import ClusterError, ConfigurationError, MissingDependencyError, OccSoraError

CONNECT_SECONDS = 10.0
"""How long a cluster's address may take to answer [s]."""

RETRIES = 3
"""How often a unit is begun again when its worker dies."""

Told = Callable[[], None]
"""What work calls whenever one of its parts is done."""

H = TypeVar("H")
H_co = TypeVar("H_co", covariant=True)
U = TypeVar("U")
R = TypeVar("R")


def untold() -> None:
    """Nobody wants to know how far the work is."""


def batches(units: int, size: int) -> list[range]:
    """The numbers of so many units, `size` at a time."""
    return [range(first, min(first + size, units)) for first in range(0, units, size)]


class Crew(Protocol[H_co]):
    """Whoever does the work. Every worker holds the same: a world, say."""

    def map(self, work: Callable[[H_co, U, Told], R], units: Sequence[U], told: Told = untold) -> Iterator[R]:
        """`work(held, unit, told)` of each unit, in the order of the units."""
        ...


@dataclass(frozen=True)
class Alone(Generic[H]):
    """Nobody but this process: one unit after another."""

    held: H

    def map(self, work: Callable[[H, U, Told], R], units: Sequence[U], told: Told = untold) -> Iterator[R]:
        """See `Crew`."""
        return (work(self.held, unit, told) for unit in units)


@contextmanager
def open_crew(ray: str | None, held: H, again: Callable[[], H], *, device: str = "cpu") -> Iterator[Crew[H]]:
    """A crew for the block.

    Args:
        ray: None for this process alone; `local` or `local:N` to start Ray on this machine with a worker for each CPU
            or N of them; or the address of a cluster, as `ray.init` takes it: `auto`, HOST:PORT, ray://HOST:PORT.
        held: what the work needs, as this process has it.
        again: makes the same in a worker, from nothing but what can be sent there.
        device: that the work computes on; a worker of a GPU has it to itself.

    Raises:
        ConfigurationError: no such address.
        ClusterError: the cluster does not answer, or lost a unit's worker again and again.
        MissingDependencyError: Ray is not installed.

    """
    if ray is None:
        yield Alone(held)
        return
    with open_workers(ray, device=device) as workers:
        yield _RayCrew(workers, again)


@contextmanager
def open_workers(ray: str, *, device: str = "cpu") -> Iterator[Workers]:
    """Workers of a cluster for the block; arguments and errors as of `open_crew`."""
    check_ray(ray, device)
    started = _join(ray)
    workers = Workers(gpu=device != "cpu")
    try:
        yield workers
    finally:
        workers.close()
        if started:
            import ray as library

            library.shutdown()


def check_ray(ray: str | None, device: str = "cpu") -> None:
    """See that --ray can be an address.

    Raises:
        ConfigurationError: it cannot.

    """
    if ray is None:
        return
    if not re.fullmatch(r"auto|local(:[1-9]\d*)?|(?!local:)(ray://)?[^\s:/]+:\d+", ray):
        raise ConfigurationError(f"--ray {ray}: give local, local:N, auto, HOST:PORT or ray://HOST:PORT")
    if device not in ("cpu", "cuda"):
        raise ConfigurationError(f"--ray with --device {device}: give cpu, or cuda and let Ray say which")


def _join(address: str) -> bool:
    """Connect to a cluster, or start one here. False where this process belongs to one already.

    Raises:
        ClusterError: it does not answer.
        MissingDependencyError: Ray is not installed.

    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is reported to anybody
    try:
        import ray
    except ImportError as error:
        raise MissingDependencyError('Ray is not installed: pip install "occsora-sim[ray]"') from error
    if ray.is_initialized():
        return False
    host, _, number = address.removeprefix("ray://").partition(":")
    options: dict[str, Any] = {"address": address}
    if host == "local":
        workers = int(number) if number else None
        options = {"address": host, "num_cpus": workers, "include_dashboard": False}
    ending = signal.getsignal(signal.SIGTERM)
    try:
        if host != "local" and number:  # Ray itself would try for minutes
            socket.create_connection((host, int(number)), timeout=CONNECT_SECONDS).close()
        ray.init(**options, log_to_driver=False, logging_level=logging.ERROR)
    except Exception as error:  # a node that does not start in time is one, by no other name
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ClusterError(
            f"--ray {address}: no cluster answers ({reason}); see `ray status` there"
        ) from error
    finally:
        if ending is not None:
            signal.signal(signal.SIGTERM, ending)  # Ray puts its own in the place of ours
    return True


class Workers:
    """Ray actors, each with something that it holds. Ray replaces those that die and begins their units again.

    Attributes:
        free: how many the cluster has room for now.
        total: how many it has room for when nobody else works there.

    """

    def __init__(self, gpu: bool) -> None:
        import ray

        self._ray, self._all = ray, []  # type: Any, list[Any]
        self._made_of: list[Any] = []  # a worker that is replaced is made of it again: Ray must not forget it
        unit = "GPU" if gpu else "CPU"
        self.free = max(1, int(ray.available_resources().get(unit, 0)))
        self.total = int(ray.cluster_resources().get(unit, 0))
        settings = {name: value for name, value in os.environ.items() if name.startswith("OCCSORA_SIM_")}
        self._here = (os.getcwd(), settings, torch.get_num_threads())
        self._kind = ray.remote(num_cpus=1, num_gpus=int(gpu), max_restarts=-1, max_task_retries=RETRIES)(
            _Worker
        )

    def send(self, value: Any) -> Any:
        """A reference to a value that is sent to a machine once, however many of its workers are handed it."""
        return self._ray.put(value)

    def add(self, again: Any) -> Any:
        """One worker more, of what `again` (sent) makes."""
        self._made_of.append(again)
        self._all.append(self._kind.remote(again, *self._here))
        return self._all[-1]

    def run(self, worker: Any, work: Callable[[H, U, Told], R], unit: U) -> R:
        """`work` of a unit by one worker, which may keep what it likes from unit to unit, and lose it."""
        with self.plainly():
            result, _ = self._ray.get(worker.run.remote(work, unit))
        return result

    @contextmanager
    def plainly(self) -> Iterator[None]:
        """Errors of workers as they would be here; that a worker was lost in one line."""
        try:
            yield
        except self._ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, OccSoraError):
                raise error.cause from None
            raise
        except self._ray.exceptions.RayError as error:
            lines = [line.strip() for line in f"{error}".splitlines()] or [type(error).__name__]
            reason = next((line for line in reversed(lines) if re.match(r"\w+Error: ", line)), lines[0])
            raise ClusterError(
                f"Ray: a worker was lost, and all that took its place ({reason}); see Ray's logs of that machine"
            ) from error

    def close(self) -> None:
        """Let all of them go."""
        while self._all:
            self._ray.kill(self._all.pop())


class _RayCrew(Generic[H]):
    """Workers that all hold the same. Ray's pool hands out the units."""

    def __init__(self, workers: Workers, again: Callable[[], H]) -> None:
        self._workers, self._again = workers, workers.send(again)
        self._ready: list[Any] = []

    def map(self, work: Callable[[H, U, Told], R], units: Sequence[U], told: Told = untold) -> Iterator[R]:
        """See `Crew`."""
        from ray.util import ActorPool

        while len(self._ready) < min(len(units), self._workers.free):
            self._ready.append(self._workers.add(self._again))
        sent = self._workers.send(work)
        pool: Any = ActorPool(self._ready[: len(units)])
        with self._workers.plainly():
            for result, parts in pool.map(lambda worker, unit: worker.run.remote(sent, unit), units):
                for _ in range(parts):
                    told()
                yield result


class _Worker:
    """A process of the cluster. It opens what it holds with its first unit, so that what fails then is told."""

    def __init__(self, again: Callable[[], Any], folder: str, settings: dict[str, str], threads: int) -> None:
        self._again, self._folder, self._settings, self._threads = again, folder, settings, threads
        self._held: tuple[Any, ...] = ()

    def run(self, work: Callable[[Any, Any, Told], Any], unit: Any) -> tuple[Any, int]:
        """What comes of a unit, and of how many parts it was."""
        if not self._held:
            try:
                os.chdir(self._folder)
            except OSError as error:
                raise ConfigurationError(
                    f"{self._folder}: a machine of the cluster has no such folder; begin in one that all of them share"
                ) from error
            os.environ.update(self._settings)
            torch.set_num_threads(self._threads)  # sums over threads depend on their number
            self._held = (self._again(),)
        parts: list[None] = []
        result = work(self._held[0], unit, lambda: parts.append(None))
        return result, len(parts)
