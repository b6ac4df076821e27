"""Scenes on the disk: which format a file or folder is of, reading all of a folder, and finding all that is wrong."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from occsora_sim.errors import SceneError, SceneWarning
from occsora_sim.scenes import file, occ3d, scenarionet, shards
from occsora_sim.scenes.log_files import SceneFiles, find_scene_files
from occsora_sim.scenes.log_index import INDEX_FILES
from occsora_sim.scenes.offers import NAMED, first_of
from occsora_sim.scenes.recorded import Recorded

FORMS: str = (
    f"a scene file (*{file.SUFFIX}), a shard of them (*{shards.SUFFIX}), a ScenarioNet log (*{scenarionet.SUFFIX}), a "
    "folder of such files, a "
    f"ScenarioNet database, or an Occ3D-nuScenes folder ({occ3d.FRAMES}/ with {occ3d.ANNOTATIONS} beside it)"
)
"""What can be read, for messages."""


@dataclass(frozen=True, kw_only=True)
class Checked:
    """What was found in one file, or in the annotations of an Occ3D folder.

    Attributes:
        path: of it.
        faults: what is wrong, a line each with its place; empty for a sound one.

    """

    path: Path
    faults: tuple[str, ...] = ()


def is_file_or_folder(spec: str) -> bool:
    """Whether there is something of this name on the disk."""
    return spec != "" and "\\0" not in spec and Path(spec).exists()


def read(path: Path) -> list[Recorded]:
    """All scenes of a file or folder. What a folder should hold and does not is named in a `SceneWarning`.

    Raises:
        SceneError: what is there is of no known format, or cannot be read; one line that names every such file.

    """
    if path.is_file():
        return _read_file(path)
    if occ3d.is_occ3d(path):
        return list(occ3d.read_occ3d(path))
    scenes: list[Recorded] = []
    faults: list[str] = []
    found = require_files(path)
    for one in found.files:
        try:
            scenes += _read_file(one)
        except SceneError as error:
            faults.append(str(error).replace(str(one), os.path.relpath(one, path), 1))
    if faults:
        more = " (see `scenes validate`)" if len(faults) > NAMED else ""
        raise SceneError(
            f"{path}: {len(faults)} of {len(found.files)} files cannot be used: {first_of(faults, ' | ')}{more}"
        )
    return scenes


def require_files(folder: Path) -> SceneFiles:
    """The scene files and logs of a folder; what is missing or left out is named in a `SceneWarning`.

    Raises:
        SceneError: there are none.

    """
    found = find_scene_files(folder)
    if not found.files and found.missing:
        raise SceneError(
            f"{folder}: none of the {len(found.missing)} logs that its index names is there: "
            f"{first_of(found.missing)}; copy the logs there, or index the database again"
        )
    if not found.files:
        parts = [
            *found.notes,
            f"there is an Occ3D folder in it, give {found.occ3d[0]}" if found.occ3d else "",
        ]
        raise SceneError(
            "; ".join([f"{folder}: the folder holds no scene file", *filter(None, parts), f"give {FORMS}"])
        )
    notes = list(found.notes)
    if found.missing:
        notes.append(
            f"{folder}: {len(found.missing)} logs that its index names are missing: {first_of(found.missing)}"
        )
    if found.occ3d:
        notes.append(f"{folder}: Occ3D folders are read by themselves, and left out: {first_of(found.occ3d)}")
    for note in notes:
        warnings.warn(note, SceneWarning, stacklevel=3)
    return found


def missing_logs(path: Path) -> tuple[Path, ...]:
    """The logs that the databases of a folder name and that are not there."""
    return find_scene_files(path).missing if path.is_dir() and not occ3d.is_occ3d(path) else ()


def check(path: Path) -> Iterator[Checked]:
    """Go through every file of a file or folder, one result each.

    Raises:
        SceneError: there is nothing to check.

    """
    if path.is_file():
        yield _check_file(path)
    elif occ3d.is_occ3d(path):
        yield from _check_occ3d(path)
    else:
        found = find_scene_files(path)
        if not found.missing:
            require_files(path)
        for one in found.files:
            yield _check_file(one)
        for one in found.missing:
            yield Checked(path=one, faults=("is missing, and the index of its database names it",))


def count(path: Path) -> int | None:
    """How many results `check` will give; None where that takes reading."""
    if path.is_file():
        return 1
    if occ3d.is_occ3d(path):
        return None
    found = find_scene_files(path)
    return len(found.files) + len(found.missing)


def _read_file(path: Path) -> list[Recorded]:
    if path.suffix == shards.SUFFIX:
        return list(shards.read_shard(path))
    if path.suffix == scenarionet.SUFFIX:
        if path.name in INDEX_FILES:
            raise SceneError(f"{path}: an index of logs, no log; give its folder")
        return [scenarionet.read_scenarionet(path)]
    return [file.load_scene(path)]


def _check_file(path: Path) -> Checked:
    try:
        if path.suffix == scenarionet.SUFFIX and path.name not in INDEX_FILES:
            return Checked(path=path, faults=tuple(scenarionet.examine_scenarionet(path)[1]))
        _read_file(path)
    except SceneError as error:
        return Checked(path=path, faults=(_without(error, path),))
    return Checked(path=path)


def _check_occ3d(folder: Path) -> Iterator[Checked]:
    """The annotations, then every frame that they name and that should be there."""
    try:
        scenes, faults = occ3d.examine_occ3d(folder)
    except SceneError as error:
        yield Checked(path=folder, faults=(_without(error, folder),))
        return
    yield Checked(path=folder, faults=tuple(faults))
    for scene in scenes:
        for absent in scene.missing:
            yield Checked(path=absent, faults=("is missing, and should be there",))
        for path in scene.files:
            if path is None:
                continue
            try:
                scene.read(path)
            except SceneError as error:
                yield Checked(path=path, faults=(_without(error, path),))
            else:
                yield Checked(path=path)


def _without(error: SceneError, path: Path) -> str:
    """An error's message without the path that it begins with."""
    return str(error).removeprefix(f"{path}: ")
