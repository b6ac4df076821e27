"""How far a part of a training is: a bar on a terminal, lines of text elsewhere; always on standard error. Of several
processes the first alone tells.
"""

from __future__ import annotations

import sys
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from occsora_sim.training.processes import rank

_QUIET = 10.0
"""Seconds between two lines of `show` where there is no terminal."""


class Report:
    """A context in which progress is shown under a title."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.terminal = rank() == 0 and sys.stderr.isatty()
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            console=Console(stderr=True),
            disable=not self.terminal,
        )
        self._task = self._bar.add_task(title, total=1.0)
        self._said = -_QUIET

    def __enter__(self) -> Report:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def show(self, share: float, text: str) -> None:
        """`share` of the work, in [0, 1], is done: move the bar, or print a line now and then."""
        if self.terminal:
            self._bar.update(self._task, completed=share, description=f"{self.title}: {text}")
        elif time.monotonic() - self._said >= _QUIET:
            self._said = time.monotonic()
            say(f"{self.title}: {text}")


def say(text: str) -> None:
    """Print a line on standard error."""
    if rank() == 0:
        print(text, file=sys.stderr, flush=True)


def clock(spent: float, left: float | None) -> str:
    """Seconds that have passed and that are left: "[1.5 min, 3.0 h left]"."""
    return f"[{duration(spent)}]" if left is None else f"[{duration(spent)}, {duration(left)} left]"


def duration(seconds: float) -> str:
    """In minutes, or in hours from two hours on."""
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
