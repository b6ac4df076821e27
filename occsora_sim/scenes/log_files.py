"""The scene files and logs of a folder, however deep they lie, and what its databases name elsewhere."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from occsora_sim.errors import SceneError
from occsora_sim.scenes import file, occ3d, scenarionet, shards
from occsora_sim.scenes.log_index import INDEX_FILES, LogIndex, has_index, read_index
from occsora_sim.scenes.offers import first_of


@dataclass(frozen=True, kw_only=True)
class SceneFiles:
    """What a folder holds.

    Attributes:
        files: scene files, shards and logs, in the order of their paths.
        missing: logs that a database names and that are not there.
        occ3d: folders of Occ3D inside.
        notes: what else is left out, and why, a line each.

    """

    files: tuple[Path, ...] = ()
    missing: tuple[Path, ...] = ()
    occ3d: tuple[Path, ...] = ()
    notes: tuple[str, ...] = ()


def find_scene_files(folder: Path) -> SceneFiles:
    """Look through a folder and all folders in it, links followed; hidden ones are passed over.

    A ScenarioNet database decides which logs in and below it are meant, and where others lie. One whose index cannot be
    read decides nothing.
    """
    files: dict[Path, Path] = {}  # by where they really lie: several databases may name one log
    missing: dict[Path, None] = {}
    inside: list[Path] = []
    notes: list[str] = []
    databases: dict[Path, LogIndex] = {}
    unnamed: dict[Path, list[Path]] = {}
    for place, names in _walk(folder, inside):
        database = next((one for one in databases if place.is_relative_to(one)), None)
        if database is None and has_index(place):
            try:
                databases[place] = index = read_index(place)
            except SceneError as error:
                notes.append(f"{error}; the logs in its folder are read without it")
            else:
                database = place
                files.update((path.resolve(), path) for path in index.logs)
                missing.update(dict.fromkeys(index.missing))
        for name in names:
            path = place / name
            if name.endswith((file.SUFFIX, shards.SUFFIX)) or (
                name.endswith(scenarionet.SUFFIX) and database is None
            ):
                files.setdefault(path.resolve(), path)
            elif name.endswith(scenarionet.SUFFIX) and database is not None:
                unnamed.setdefault(database, []).append(path)
    for database, paths in unnamed.items():
        if left := [path for path in paths if path.resolve() not in files]:
            notes.append(
                f"{database}: {len(left)} logs that its index does not name are left out: {first_of(left)}"
            )
    return SceneFiles(
        files=tuple(sorted(files.values(), key=lambda path: Path(os.path.relpath(path, folder)).as_posix())),
        missing=tuple(missing),
        occ3d=tuple(inside),
        notes=tuple(notes),
    )


def _walk(folder: Path, inside: list[Path]) -> Iterator[tuple[Path, list[str]]]:
    """Each folder with the names of its files, from the top, but for index files and what is hidden; folders of Occ3D
    are added to `inside` and not entered.
    """
    entered: set[str] = set()
    for place, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        if real in entered:  # a link that leads back
            folders.clear()
            continue
        entered.add(real)
        here = Path(place)
        if here != folder and occ3d.FRAMES in folders and occ3d.is_occ3d(here):
            inside.append(here)
            folders.clear()
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield here, sorted(name for name in names if not name.startswith(".") and name not in INDEX_FILES)
