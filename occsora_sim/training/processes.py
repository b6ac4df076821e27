"""Training in many processes that torchrun started: who this one is, its parts of a batch, what all agree on.

One process needs none of it: it is the first of one, and every function here gives back what it was given.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel

from occsora_sim.errors import ConfigurationError, OccSoraError, SceneError, SceneWarning
from occsora_sim.scenes.recorded import Recorded
from occsora_sim.scenes.shards import read_shard, shards_of
from occsora_sim.scenes.source import open_scenes, parts_of

WAIT = timedelta(hours=6)
"""How long the others wait while one works alone: towns are made and pools drawn by the first. A process that dies is
noticed at once, whatever this is.
"""

Kind = TypeVar("Kind")
Rows = TypeVar("Rows", bound=Sequence[Any] | Tensor | np.ndarray)


@dataclass(frozen=True, kw_only=True)
class Part:
    """What one backward pass is about: one of the equal parts of a step's batch.

    There are as many as processes times `--accumulate`. Where the rows of a batch are chosen by (seed, step) and each
    part takes its own, they are the same however many parts there are; noise belongs to the part.

    Attributes:
        index: which one, of all processes together.
        of: how many there are.

    """

    index: int = 0
    of: int = 1

    def cut(self, rows: Rows) -> Rows:
        """Its rows of those of a whole batch."""
        count = len(rows)
        return rows[count * self.index // self.of : count * (self.index + 1) // self.of]  # type: ignore[return-value]

    def size(self, count: int) -> int:
        """How many of `count` rows are its own."""
        return len(self.cut(range(count)))

    def seeds(self, *seeds: int) -> tuple[int, ...]:
        """Seeds of its own; those of the batch where it is all of it."""
        return seeds if self.of == 1 else (*seeds, self.index)

    def noise(self, rng: np.random.Generator) -> np.random.Generator:
        """A generator of its own; that of the batch where it is all of it."""
        return rng if self.of == 1 else np.random.default_rng((int(rng.integers(2**63)), self.index))

    def generator(self, seed: int) -> torch.Generator:
        """The generator of its noise; that of the batch for the first part."""
        return torch.Generator().manual_seed(
            seed + self.index * 2_654_435_761
        )  # torch looks at the low 32 bits


WHOLE = Part()
"""A batch in one part."""

StepLoss = Callable[[int, Part, torch.Generator], tuple[Tensor, Mapping[str, float | Tensor]]]
"""(step, part, generator) -> loss of the part's rows of the batch of that step and what to log: numbers, and pictures
(3, height, width) uint8. It is read from the device only when it is written. The batch must follow from the step alone,
so that resuming is exact."""


def together() -> bool:
    """Whether this process trains with others."""
    return dist.is_available() and dist.is_initialized()


def rank() -> int:
    """Which process this is; the first, 0, writes files and lines."""
    return dist.get_rank() if together() else 0


def count() -> int:
    """How many processes train together."""
    return dist.get_world_size() if together() else 1


def parts(accumulate: int) -> tuple[Part, ...]:
    """The parts of a batch that are this process's."""
    first, of = rank() * accumulate, count() * accumulate
    return tuple(Part(index=first + number, of=of) for number in range(accumulate))


@contextmanager
def joined(device: str) -> Iterator[None]:
    """Within the block this process trains with the others that torchrun started; alone where it started none.

    Gradients go through NCCL between GPUs, each process on the GPU of its local rank, and through Gloo between CPUs.

    Raises:
        ConfigurationError: `device` names one GPU, and there are several processes.
        OccSoraError: another process has ended.

    """
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        yield
        return
    if device.startswith("cuda"):
        if device != "cuda":
            raise ConfigurationError(f"--device {device}: each process takes a GPU of its own; give cuda")
        local = int(os.environ["LOCAL_RANK"])
        if local >= torch.cuda.device_count():
            raise ConfigurationError(
                f"process {local} of this machine has no GPU, there are {torch.cuda.device_count()}; start no more "
                "processes than GPUs"
            )
        torch.cuda.set_device(local)
    backend = "cpu:gloo,cuda:nccl" if device == "cuda" else "gloo"
    store, number, size = next(rendezvous("env://", timeout=WAIT))
    # torchrun keeps its store when it begins again: without a name of its own, a process could look for another at the
    # address that this one had before.
    attempt = dist.PrefixStore(f"attempt {os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}", store)
    try:
        dist.init_process_group(backend, store=attempt, rank=number, world_size=size, timeout=WAIT)
        if number:
            warnings.simplefilter("ignore", SceneWarning)  # the first one tells
        yield
    except RuntimeError as error:
        if not isinstance(error, dist.DistError) and "gloo" not in str(error).lower():
            raise
        raise OccSoraError(
            f"process {number}: another process of this training has ended; the same command goes on from the last "
            "checkpoint"
        ) from error
    dist.destroy_process_group()


def refuse_many(command: str) -> None:
    """See that torchrun has not started several processes of a command that runs in one.

    Raises:
        ConfigurationError: it has.

    """
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        raise ConfigurationError(f"{command} runs in one process; start it without torchrun")


def from_first(call: Callable[..., Kind], *arguments: Any) -> Kind:
    """What `call(*arguments)` returns in the first process, in all of them."""
    if not together():
        return call(*arguments)
    box = [call(*arguments) if rank() == 0 else None]
    dist.broadcast_object_list(box, src=0)
    return box[0]  # type: ignore[return-value]


@contextmanager
def first_alone() -> Iterator[None]:
    """The first process runs the block alone; then, with its files there, the others do."""
    if rank():
        dist.barrier()
    yield
    if together() and rank() == 0:
        dist.barrier()


def open_share(spec: str) -> list[Recorded]:
    """The scenes of `spec`, as `open_scenes`; of shards each process has its share, every so many-th.

    Raises:
        SceneError: as `open_scenes`, or there are fewer shards than processes.

    """
    scenes: list[Recorded] = []
    with first_alone():  # who makes and keeps the towns that are missing
        for part in parts_of(spec):
            shards = shards_of(part)
            if shards and len(shards) < count():
                raise SceneError(
                    f"{part}: {len(shards)} shards are too few for {count()} processes; make more of them "
                    "(`scenes make --shards`)"
                )
            own = shards[rank() :: count()]
            scenes += [scene for one in own for scene in read_shard(one)] if own else open_scenes(part)
    return scenes


def mean(logs: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The mean of each number over the parts of all processes that tell it."""
    told: list[Any] = [list(logs)]
    if together():
        told = [None] * count()
        dist.all_gather_object(told, list(logs))
    values: dict[str, list[float]] = {}
    for part in (part for process in told for part in process):
        for name, value in part.items():
            values.setdefault(name, []).append(value)
    return {name: sum(each) / len(each) for name, each in values.items()}


class Parallel:
    """A step's loss whose gradients are averaged over all processes, by DistributedDataParallel.

    Args:
        model: whose parameters are trained; each has a gradient in every step.
        step_loss: of them.

    """

    def __init__(self, model: nn.Module, step_loss: StepLoss) -> None:
        self._loss: StepLoss | DistributedDataParallel = step_loss
        if together():
            self._loss = DistributedDataParallel(_Loss(model, step_loss))

    def __call__(self, step: int, part: Part, generator: torch.Generator) -> tuple[Tensor, Mapping[str, Any]]:
        """The loss of a part."""
        return self._loss(step, part, generator)

    def held_back(self, part: Part, last: Part) -> AbstractContextManager[None]:
        """A block for the loss of a part and its gradients: they stay in this process until those of its `last`."""
        if isinstance(self._loss, DistributedDataParallel) and part != last:
            return self._loss.no_sync()
        return nullcontext()


class _Loss(nn.Module):
    """A step's loss as a module, since DistributedDataParallel watches a call of one."""

    def __init__(self, model: nn.Module, step_loss: StepLoss) -> None:
        super().__init__()
        self.model, self.step_loss = model, step_loss

    def forward(self, step: int, part: Part, generator: torch.Generator) -> tuple[Tensor, Mapping[str, Any]]:
        return self.step_loss(step, part, generator)
