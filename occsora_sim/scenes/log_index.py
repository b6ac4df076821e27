"""The index of a ScenarioNet database: which logs belong to it, and where they lie (Li et al. 2023, ScenarioNet).

Databases that were filtered, merged or split hold the two index files alone; their logs lie elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from occsora_sim.errors import SceneError
from occsora_sim.scenes.safe_pickle import load_plain, short_text

SUMMARY = "dataset_summary.pkl"
"""Name of each log -> what is in it."""

MAPPING = "dataset_mapping.pkl"
"""Name of each log -> its folder, seen from the database; where the file is missing, the database itself."""

INDEX_FILES = (SUMMARY, MAPPING)
"""Files beside the logs of a database that are no logs."""


@dataclass(frozen=True, kw_only=True)
class LogIndex:
    """What a database names: the logs that are there and those that are missing, in the order of their names."""

    logs: tuple[Path, ...]
    missing: tuple[Path, ...]


def has_index(folder: Path) -> bool:
    """Whether a folder is a ScenarioNet database."""
    return any((folder / name).is_file() for name in INDEX_FILES)


def read_index(folder: Path) -> LogIndex:
    """The logs of a database.

    Raises:
        SceneError: an index file is damaged, asks for more than plain data, or is no index; one line that names it.

    """
    mapping = _table(folder / MAPPING)  # first: the summary of a large database takes minutes to read
    names = _table(folder / SUMMARY) if mapping is None else mapping
    logs: list[Path] = []
    missing: list[Path] = []
    for name in sorted(names or {}):
        place = "" if mapping is None else mapping.get(name)
        if not isinstance(place, str) or "\0" in place + name:
            raise SceneError(
                f"{folder / MAPPING}: names no folder for {short_text(name)}; index the database again"
            )
        path = folder / place / name
        (logs if path.is_file() else missing).append(path)
    return LogIndex(logs=tuple(logs), missing=tuple(missing))


def _table(path: Path) -> dict[str, Any] | None:
    """The content of an index file; None if there is none."""
    if not path.is_file():
        return None
    content = load_plain(path)
    if not isinstance(content, dict) or not all(isinstance(name, str) for name in content):
        raise SceneError(f"{path}: is no index of logs; index the database again")
    return content
