"""Where a command writes: checked before the work starts, written to a temporary name and renamed."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from occsora_sim.errors import ConfigurationError


def output_folder(path: Path) -> Path:
    """Make the folder `path` (and its parents) and see that files can be made in it.

    Raises:
        ConfigurationError: it is a file, or cannot be made or written.

    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
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
    output_folder(path.parent)
    return path


def write_json(path: Path, content: Any) -> None:
    """Write `content` as JSON, whole or not at all.

    Raises:
        ConfigurationError: the place cannot be written.
        ValueError: `content` holds NaN or infinity.

    """
    from occsora_sim.rendering.atomic_file import atomic_path

    text = json.dumps(content, indent=2, allow_nan=False) + "\n"
    output_file(path)
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
