"""Writing a file so that it is there whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from occsora_sim.errors import ConfigurationError


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """A temporary name beside `path`, with its suffix, to write to; renamed to `path` at the end.

    Makes the folder. After an exception the temporary file is gone and what was at `path` is untouched.

    Raises:
        ConfigurationError: the folder cannot be made or written to.

    """
    path = Path(path)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.touch()
    except OSError as error:
        raise ConfigurationError(
            f"{path}: cannot be written ({error.strerror}); choose another place"
        ) from error
    try:
        yield temporary
        try:
            os.replace(temporary, path)
        except OSError as error:
            raise ConfigurationError(
                f"{path}: cannot be written ({error.strerror}); choose another name"
            ) from error
    finally:
        temporary.unlink(missing_ok=True)
