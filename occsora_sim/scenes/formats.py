"""Scenes on the disk: which format a file or folder is of, reading all of a folder, and finding all that is wrong."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from occsora_sim.errors import SceneError
from occsora_sim.scenes import file, occ3d, scenarionet
from occsora_sim.scenes.recorded import Recorded

FORMS: str = (
    f"a scene file (*{file.SUFFIX}), a ScenarioNet log (*{scenarionet.SUFFIX}), a folder of such files, or an "
    f"Occ3D-nuScenes folder ({occ3d.ANNOTATIONS} beside {occ3d.FRAMES}/)"
)
"""What can be read, for messages."""

NAMED = 12
"""Most files of a folder that one message names."""


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
    """All scenes of a file or folder.

    Raises:
        SceneError: what is there is of no known format, or cannot be read; one line that names every such file.

    """
    if path.is_file():
        return [_read_file(path)]
    if occ3d.is_occ3d(path):
        return list(occ3d.read_occ3d(path))
    scenes: list[Recorded] = []
    faults: list[str] = []
    found = scene_files(path)
    for one in found:
        try:
            scenes.append(_read_file(one))
        except SceneError as error:
            faults.append(str(error).replace(str(one), str(one.relative_to(path)), 1))
    if faults:
        more = f" | and {len(faults) - NAMED} more (see `scenes validate`)" if len(faults) > NAMED else ""
        raise SceneError(
            f"{path}: {len(faults)} of {len(found)} files cannot be used: {' | '.join(faults[:NAMED])}{more}"
        )
    return scenes


def scene_files(folder: Path) -> list[Path]:
    """The scene files and logs of a folder and of the folders in it, in the order of their names.

    Raises:
        SceneError: there are none.

    """
    found = [
        path
        for suffix in (file.SUFFIX, scenarionet.SUFFIX)
        for pattern in (f"*{suffix}", f"*/*{suffix}")
        for path in folder.glob(pattern)
        if path.is_file() and path.name not in scenarionet.INDEX_FILES and not path.name.startswith(".")
    ]
    if not found:
        raise SceneError(f"{folder}: the folder holds no scene file; give {FORMS}")
    return sorted(found, key=lambda path: path.relative_to(folder).as_posix())


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
        for one in scene_files(path):
            yield _check_file(one)


def count(path: Path) -> int | None:
    """How many results `check` will give; None where that takes reading."""
    if path.is_file():
        return 1
    return None if occ3d.is_occ3d(path) else len(scene_files(path))


def _read_file(path: Path) -> Recorded:
    if path.suffix == scenarionet.SUFFIX:
        if path.name in scenarionet.INDEX_FILES:
            raise SceneError(f"{path}: an index of logs, no log; give its folder")
        return scenarionet.read_scenarionet(path)
    return file.load_scene(path)


def _check_file(path: Path) -> Checked:
    try:
        if path.suffix == scenarionet.SUFFIX and path.name not in scenarionet.INDEX_FILES:
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
        if (missing := scene.attributes["missing"]) != "0":
            place = Path(scene.attributes["folder"]) / occ3d.FRAMES / scene.name
            yield Checked(path=place, faults=(f"{missing} frames of the annotations are not there",))
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
