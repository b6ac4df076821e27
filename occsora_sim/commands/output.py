"""Where a command writes: checked before the work starts, written to a temporary name and renamed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

from occsora_sim.atomic_file import atomic_path, check_folder, is_stream
from occsora_sim.errors import ConfigurationError, OccSoraError


def output_folder(path: Path) -> Path:
    """Make the folder `path` (and its parents) and see that files can be made in it.

    Raises:
        ConfigurationError: it is a file, or cannot be made or written.

    """
    try:
        check_folder(path)
    except (FileExistsError, NotADirectoryError) as error:
        raise ConfigurationError(f"{path}: a file is in the way; choose another folder") from error
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror}; choose a folder that can be written") from error
    return path


def output_file(path: Path) -> Path:
    """See that the file `path` can be written: its folder is made, and it is no folder itself.

    Raises:
        ConfigurationError: it cannot be written.

    """
    if path.is_dir():
        raise ConfigurationError(f"{path}: is a folder; give the name of a file")
    if not is_stream(path):
        output_folder(path.parent)
    return path


def write_json(path: Path, content: Any) -> None:
    """Write `content` as JSON, whole or not at all.

    Raises:
        ConfigurationError: the place cannot be written.
        ValueError: `content` holds NaN or infinity.

    """
    text = json.dumps(content, indent=2, allow_nan=False) + "\n"
    output_file(path)
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


class Outputs:
    """Writes the outputs of a command one after another: one that fails loses none of the others.

    Use as `with Outputs() as outputs:`; at the end of the block the failures, if any, are raised as one error.
    """

    def __init__(self) -> None:
        self._failures: list[str] = []

    def write(self, write: Callable[..., object], *arguments: Any) -> bool:
        """Call `write(*arguments)`; returns whether it succeeded."""
        try:
            write(*arguments)
        except OccSoraError as error:
            self._failures.append(str(error))
            return False
        return True

    def __enter__(self) -> Outputs:
        """Begin."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Raise the failures, unless something else has ended the block.

        Raises:
            ConfigurationError: an output could not be written.

        """
        if error is None and self._failures:
            raise ConfigurationError("; ".join(dict.fromkeys(self._failures)))
