"""Standard output and error of a command, whose reader may go away before the command is done."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO


class PatientStream:
    """A text stream that goes on, silently, once nobody reads it any more (`occsora-sim ... | head`).

    What a command writes to files is then still written. Everything else is the stream's own.

    Args:
        stream: the stream.
        name: of it in the error when it leads to a full disk, say; None: it then goes on silently, too.

    """

    def __init__(self, stream: TextIO, name: str | None) -> None:
        self._stream, self._name = stream, name

    def write(self, text: str) -> int:
        """Write `text`; returns its length."""
        self._do(lambda: self._stream.write(text))
        return len(text)

    def flush(self) -> None:
        """Hand on what is buffered."""
        self._do(self._stream.flush)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _do(self, work: Any) -> None:
        try:
            work()
        except OSError as error:
            # Where the stream has a descriptor, it leads nowhere from now on: what is still buffered goes there, at
            # the end of Python too.
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)
            if self._name is not None and not isinstance(error, BrokenPipeError):
                raise OSError(error.errno, error.strerror, self._name) from error


@contextmanager
def patient_streams() -> Iterator[None]:
    """Within the block, standard output and error are `PatientStream`s."""
    output, error = sys.stdout, sys.stderr
    sys.stdout = PatientStream(output, "standard output")  # type: ignore[assignment]
    sys.stderr = PatientStream(error, None)  # type: ignore[assignment]
    try:
        yield
    finally:
        sys.stdout, sys.stderr = output, error
