"""Writing a file so that it is there whole or not at all."""

from __future__ import annotations

import csv
import itertools
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from occsora_sim.errors import ConfigurationError, OccSoraError

_NUMBERS = itertools.count()


@contextmanager
def atomic_path(path: str | Path, kind: type[OccSoraError] = ConfigurationError) -> Iterator[Path]:
    """A temporary name beside `path`, with its suffix, to write to; renamed to `path` at the end.

    Makes the folder. After an exception the temporary file is gone and what was at `path` is untouched. A link is
    followed and stays; what is no file (a pipe, a device) cannot be renamed to, and is written itself.

    Raises:
        OccSoraError: of this `kind`: the folder cannot be made, or the file not be written (a full disk, say).

    """
    path = Path(path)
    if is_stream(path):
        with _named(path, path, kind):
            yield path
        return
    target = path.resolve() if path.is_symlink() else path
    temporary = target.with_name(f".{target.stem[:40]}.{os.getpid()}.{next(_NUMBERS)}.tmp{target.suffix}")
    with _named(path, None, kind):
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary.touch()
    try:
        with _named(path, temporary, kind):
            yield temporary
            os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def is_stream(path: Path) -> bool:
    """Whether `path` is something that is written to as it comes: a pipe, a device, the standard output."""
    if str(path) in ("/dev/stdout", "/dev/stderr"):
        return True
    return path.exists() and not path.is_file() and not path.is_dir()


def check_folder(path: Path) -> None:
    """Make the folder `path` (and its parents) and see that files can be made in it.

    Raises:
        OSError: it is a file, or cannot be made or written.

    """
    path.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=path):
        pass


def write_rows(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Write `rows` as a CSV file under a line of `columns`, whole or not at all.

    Raises:
        ConfigurationError: the file cannot be written.

    """
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(columns))
        writer.writeheader()
        writer.writerows(rows)


@contextmanager
def _named(path: Path, written: Path | None, kind: type[OccSoraError]) -> Iterator[None]:
    """Turn what the system refuses while `path` is made into an error that names it.

    While a file is `written`, an error that names another one is that file's, and passes.
    """
    try:
        yield
    except OSError as error:
        if written is not None and isinstance(error.filename, str) and error.filename != str(written):
            raise
        reason = error.strerror or " ".join(str(error).split())
        raise kind(f"{path}: cannot be written ({reason}); make room or choose another place") from error
