"""Processes of a training, forked from a test that has all imported already."""

import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from occsora_sim.errors import OccSoraError
from occsora_sim.training.processes import joined


def begin(work: Callable[[], object], log: Path, environment: Mapping[str, str] | None = None) -> int:
    """Do `work` in a process of its own, what it prints going to `log`; returns its id.

    It ends with 0, with 2 after an `OccSoraError`, whose line is the last of the log, or with 1.
    """
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        torch.set_num_threads(1)
        os.environ.update(environment or {})
        file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, 1), os.dup2(file, 2)
        sys.stdout, sys.stderr = os.fdopen(1, "w", buffering=1), os.fdopen(2, "w", buffering=1)
        work()
        status = 0
    except OccSoraError as error:
        print(error, file=sys.stderr)
        status = 2
    except BaseException:
        sys.__excepthook__(*sys.exc_info())
    finally:
        os._exit(status)


def begin_together(
    count: int, work: Callable[[], object], folder: Path, environment: Mapping[str, str] | None = None,
    before: Callable[[], object] = lambda: None,
) -> list[int]:  # fmt: skip
    """Do `work` in so many processes that have joined as those of torchrun do; their ids. Logs: `folder`/RANK.txt.

    Each does `before` and then joins.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder.mkdir(parents=True, exist_ok=True)

    def join() -> None:
        before()
        with joined("cpu"):
            work()

    common = {
        "WORLD_SIZE": str(count),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        **(environment or {}),
    }
    return [
        begin(join, folder / f"{rank}.txt", {**common, "RANK": str(rank), "LOCAL_RANK": str(rank)})
        for rank in range(count)
    ]


def ends(children: list[int], seconds: float = 600.0) -> list[int]:
    """The exit statuses of processes, negative where a signal ended one; those that take longer are killed."""
    statuses: dict[int, int] = {}
    until = time.monotonic() + seconds
    while len(statuses) < len(children):
        for child in children:
            if child not in statuses and (found := os.waitpid(child, os.WNOHANG))[0]:
                statuses[child] = os.waitstatus_to_exitcode(found[1])
            elif child not in statuses and time.monotonic() > until:
                os.kill(child, signal.SIGKILL)
        time.sleep(0.01)
    return [statuses[child] for child in children]


def trained_together(count: int, work: Callable[[], object], folder: Path) -> None:
    """Do `work` in so many processes, and see that all end well."""
    statuses = ends(begin_together(count, work, folder))
    assert statuses == [0] * count, "\n".join(path.read_text() for path in sorted(folder.glob("*.txt")))
