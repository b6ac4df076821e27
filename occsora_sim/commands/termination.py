"""SIGTERM, which batch systems and containers send: it ends a command as Ctrl-C does."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Terminated(KeyboardInterrupt):
    """SIGTERM was received. It is a kind of Ctrl-C so that all that cleans up after one cleans up after the other."""


@contextmanager
def terminable() -> Iterator[None]:
    """Within this context SIGTERM raises `Terminated`; a process that is forked within it ends silently, as usual.

    Nothing changes where somebody else handles or ignores the signal, or outside the main thread.
    """
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return
    here = os.getpid()

    def stop(number: int, frame: FrameType | None) -> None:
        if os.getpid() == here:
            raise Terminated
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
