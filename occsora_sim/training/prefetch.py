"""Training batches drawn ahead by other processes, so that a GPU need not wait for the CPU."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Generic, Protocol, Self, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset

from occsora_sim.errors import ConfigurationError
from occsora_sim.grid import Grid
from occsora_sim.training.loop import LoopConfig
from occsora_sim.training.processes import WHOLE, Part, open_share, parts
from occsora_sim.training.windows import Windows, WindowSampler

BATCHES_AHEAD = 3
"""Batches that each process holds ready."""


class Batch(Protocol):
    """Tensors of a training step."""

    def to(self, device: torch.device) -> Self:
        """The same on `device`."""
        ...

    def pin_memory(self) -> Self:
        """The same in memory that a GPU reads directly."""
        ...


Drawn = TypeVar("Drawn", bound=Batch)
Drawn_co = TypeVar("Drawn_co", bound=Batch, covariant=True)


class Sampler(Protocol[Drawn_co]):
    """What draws batches by step number, on a device."""

    device: torch.device

    def draw(self, count: int, step: int, part: Part = WHOLE) -> Drawn_co:
        """A part of the batch of `count` for training step `step`; the same for the same step."""
        ...


def open_windows(
    scenes: str, grid: Grid, loop: LoopConfig, *, history: int, future: int, seed: int
) -> Prefetcher[Windows]:
    """The windows of `scenes` (any spec that `open_scenes` takes), drawn by the processes that `loop` gives and brought
    to its device; the rest as for `WindowSampler`.

    Raises:
        SceneError: the scenes cannot be read, or hold no window.

    """
    sampler = WindowSampler(
        open_share(scenes), grid, history=history, future=future, seed=seed,
        device="cpu" if loop.workers else loop.device, workers=loop.workers,
    )  # fmt: skip
    return Prefetcher(sampler, loop.workers, loop.device, parts(loop.accumulate))


class _Batches(Dataset[Drawn]):
    """The parts of batches of `count`, in the order of the steps."""

    def __init__(self, sampler: Sampler[Drawn], count: int, own: Sequence[Part]) -> None:
        self.sampler, self.count, self.own = sampler, count, own

    def __getitem__(self, number: int) -> Drawn:
        step, part = divmod(number, len(self.own))
        return self.sampler.draw(self.count, step, self.own[part])


class Prefetcher(Generic[Drawn]):
    """Draws what `sampler.draw` draws, of consecutive steps ahead of time.

    Args:
        sampler: of batches; on the CPU if there are processes.
        workers: processes; 0: none, the sampler is asked when a batch is needed.
        device: where the batches are wanted.
        own: the parts of a batch that this process asks for, in this order in each step.

    Raises:
        ConfigurationError: there are processes and a sampler on another device.

    """

    def __init__(
        self,
        sampler: Sampler[Drawn],
        workers: int,
        device: torch.device | str,
        own: Sequence[Part] = (WHOLE,),
    ) -> None:
        self.sampler, self.workers, self.device, self.own = sampler, workers, torch.device(device), own
        if workers and sampler.device.type != "cpu":
            raise ConfigurationError(
                f"prefetcher: the sampler draws on {sampler.device}; workers need the CPU"
            )
        self._next: tuple[int, int] | None = None  # (count, number) that the running processes give next
        self._batches: Iterator[Drawn] = iter(())

    def draw(self, count: int, step: int, part: Part = WHOLE) -> Drawn:
        """A part of the batch of `count` for training step `step`, on the device; in turn they come without a wait."""
        if not self.workers:
            return self.sampler.draw(count, step, part).to(self.device)
        number = step * len(self.own) + self.own.index(part)
        if self._next != (count, number):
            self._batches = iter(
                DataLoader(
                    _Batches(self.sampler, count, self.own),
                    batch_size=None,
                    sampler=itertools.count(number),
                    num_workers=self.workers,
                    prefetch_factor=BATCHES_AHEAD,
                    pin_memory=self.device.type == "cuda",
                    multiprocessing_context="fork",
                )
            )
        self._next = (count, number + 1)
        return next(self._batches).to(self.device)
