"""Training batches drawn ahead by other processes, so that a GPU need not wait for the CPU."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Generic, Protocol, Self, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset

from occsora_sim.errors import ConfigurationError
from occsora_sim.grid import Grid
from occsora_sim.scenes.source import open_scenes
from occsora_sim.training.loop import LoopConfig
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

    def draw(self, count: int, step: int) -> Drawn_co:
        """A batch of `count` for training step `step`; the same for the same step."""
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
        open_scenes(scenes), grid, history=history, future=future, seed=seed,
        device="cpu" if loop.workers else loop.device, workers=loop.workers,
    )  # fmt: skip
    return Prefetcher(sampler, loop.workers, loop.device)


class _Batches(Dataset[Drawn]):
    """Batches of `count` by step number."""

    def __init__(self, sampler: Sampler[Drawn], count: int) -> None:
        self.sampler, self.count = sampler, count

    def __getitem__(self, step: int) -> Drawn:
        return self.sampler.draw(self.count, step)


class Prefetcher(Generic[Drawn]):
    """Draws what `sampler.draw` draws, of consecutive steps ahead of time.

    Args:
        sampler: of batches; on the CPU if there are processes.
        workers: processes; 0: none, the sampler is asked when a batch is needed.
        device: where the batches are wanted.

    Raises:
        ConfigurationError: there are processes and a sampler on another device.

    """

    def __init__(self, sampler: Sampler[Drawn], workers: int, device: torch.device | str) -> None:
        self.sampler, self.workers, self.device = sampler, workers, torch.device(device)
        if workers and sampler.device.type != "cpu":
            raise ConfigurationError(
                f"prefetcher: the sampler draws on {sampler.device}; workers need the CPU"
            )
        self._next: tuple[int, int] | None = None  # (count, step) that the running processes give next
        self._batches: Iterator[Drawn] = iter(())

    def draw(self, count: int, step: int) -> Drawn:
        """A batch of `count` for training step `step`, on the device; steps in a row come without a wait."""
        if not self.workers:
            return self.sampler.draw(count, step).to(self.device)
        if self._next != (count, step):
            self._batches = iter(
                DataLoader(
                    _Batches(self.sampler, count),
                    batch_size=None,
                    sampler=itertools.count(step),
                    num_workers=self.workers,
                    prefetch_factor=BATCHES_AHEAD,
                    pin_memory=self.device.type == "cuda",
                    multiprocessing_context="fork",
                )
            )
        self._next = (count, step + 1)
        return next(self._batches).to(self.device)
