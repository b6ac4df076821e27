"""The temporary folder that SUMO's files are written to, and what is said when it cannot be used."""

from __future__ import annotations

import os
import tempfile
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from occsora_sim.errors import SceneError


@contextmanager
def town_folder() -> Iterator[Path]:
    """A folder that is gone after the block.

    Raises:
        SceneError: as `temporary_files`.

    """
    with temporary_files(), tempfile.TemporaryDirectory(prefix="occsora-town-") as name:
        yield Path(name)


@contextmanager
def temporary_files() -> Iterator[None]:
    """Within the block, what the system refuses about temporary files is told with the folder and its variable.

    Raises:
        SceneError: there is no temporary folder, it is full, or a file in it is not whole.

    """
    try:
        yield
    except ElementTree.ParseError as error:
        raise SceneError(_message(f"SUMO left a file that is not whole ({error})")) from error
    except OSError as error:
        named = error.filename if isinstance(error.filename, str) else None
        if named is not None and not Path(named).is_relative_to(_folder() or "/"):
            raise
        raise SceneError(_message(error.strerror or str(error))) from error


def _folder() -> str | None:
    try:
        return tempfile.gettempdir()
    except OSError:
        return None


def _message(reason: str) -> str:
    where = _folder() or os.environ.get("TMPDIR") or "none"
    return f"temporary folder {where}: {reason}; set TMPDIR to a folder with room that can be written"
