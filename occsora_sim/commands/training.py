"""What all trainings by the one loop begin and end with: their processes, their device, where they write."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol, TypeVar

from occsora_sim.commands.output import output_folder
from occsora_sim.device import check_device
from occsora_sim.training.loop import LoopConfig
from occsora_sim.training.processes import joined, rank


class Training(Protocol):
    """Options of a training."""

    @property
    def out(self) -> Path:
        """Where it writes."""
        ...

    @property
    def loop(self) -> LoopConfig:
        """Steps, batch, device..."""
        ...


Options = TypeVar("Options", bound=Training)


def train(training: Callable[[Options], Path], options: Options) -> None:
    """Train in this process, or with those that torchrun started beside it; say where the weights are."""
    with joined(options.loop.device):
        check_device(options.loop.device)
        output_folder(options.out)
        path = training(options)
        if rank() == 0:
            print(path)
