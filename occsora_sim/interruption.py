"""An orderly end when the process is told to end: as Ctrl-C does it, with every file and child put away."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

ENDING = ("SIGTERM", "SIGHUP")
"""Signals that end a command; SIGHUP is that of a terminal that closes."""


class Terminated(KeyboardInterrupt):
    """The process was told to end by a signal of ENDING. `number` is the signal's."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Within the block, signals of ENDING raise `Terminated`, unless somebody has given them a meaning already.

    Without it they end Python at once: temporary files stay, and so do the processes that it has started. In threads
    other than the main one, which no signal reaches, it changes nothing.
    """
    here, previous = os.getpid(), {}

    def end(number: int, frame: FrameType | None) -> None:
        if os.getpid() == here:
            raise Terminated(number)
        signal.signal(number, signal.SIG_DFL)  # a process that was forked within the block ends silently
        os.kill(os.getpid(), number)

    if threading.current_thread() is threading.main_thread():
        for name in ENDING:
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) == signal.SIG_DFL:
                previous[number] = signal.signal(number, end)
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
