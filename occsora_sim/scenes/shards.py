"""Shards: tar files of WebDataset with many scene files each, for data sets that no folder of files would bear."""

from __future__ import annotations

import glob
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType

from occsora_sim.atomic_file import atomic_path
from occsora_sim.errors import MissingDependencyError, SceneError
from occsora_sim.quantities import written
from occsora_sim.scenes.file import MAX_BYTES, read_scene, write_scene
from occsora_sim.scenes.file import SUFFIX as SCENE_SUFFIX
from occsora_sim.scenes.scene import Scene

SUFFIX = ".tar"


def shards_of(spec: str) -> list[Path]:
    """The shards that `spec` names, in the order of their names: one, a folder of them alone, or a pattern with *; none
    where it names anything else.
    """
    path = Path(spec)
    if path.is_file():
        return [path] if path.suffix == SUFFIX else []
    if path.is_dir():
        names = [one for one in path.iterdir() if not one.name.startswith(".")]
        return sorted(names) if names and all(one.suffix == SUFFIX for one in names) else []
    return sorted(map(Path, glob.glob(spec))) if spec.endswith(SUFFIX) else []


def write_shard(scenes: Iterable[Scene], path: Path) -> int:
    """Write scenes to a shard, whole or not at all. Returns how many there are.

    Raises:
        SceneError: a scene breaks a rule of `Scene`, or the file cannot be written.
        MissingDependencyError: WebDataset is not installed.

    """
    count = 0
    with atomic_path(path, SceneError) as temporary, temporary.open("wb") as file:
        with _webdataset("writer").TarWriter(file, encoder=False, mtime=0, user="", group="") as writer:
            for scene in scenes:
                # WebDataset's keys end at the first dot, and names of scenes may hold one.
                key = {"__key__": f"{count:06d}"}
                writer.write({**key, SCENE_SUFFIX[1:]: write_scene(scene, f"{path}: {scene.name}")})
                count += 1
    return count


def read_shard(path: Path) -> Iterator[Scene]:
    """The scenes of a shard, in the order in which they were written.

    Raises:
        SceneError: the file is truncated, compressed or no tar file, or a scene in it is unusable; one line.
        MissingDependencyError: WebDataset is not installed.

    """
    files = _webdataset("tariterators").tar_file_iterator
    count = 0
    try:
        with path.open("rb") as file:
            if file.read(512)[257:262] != b"ustar":  # so it is not unpacked to who knows how much, either
                raise SceneError(f"{path}: no tar file; give a shard that `scenes make --shards` wrote")
            file.seek(0)
            with tarfile.open(fileobj=file, mode="r:") as archive:
                for entry in archive:
                    if (
                        entry.issparse() or entry.size > MAX_BYTES
                    ):  # a sparse one can stand for any number of zeros
                        raise SceneError(
                            f"{path}: {written(entry.name)} is no scene file of a shard; make it again"
                        )
            file.seek(0)
            for member in files(file, select_files=lambda name: name.endswith(SCENE_SUFFIX)):
                yield read_scene(member["data"], path / member["fname"])
                count += 1
    except OSError as error:
        raise SceneError(f"{path}: {error.strerror or error}; give a shard (*{SUFFIX})") from error
    except (tarfile.TarError, EOFError) as error:
        raise SceneError(f"{path}: truncated or damaged ({error}); make it again") from error
    if not count:
        raise SceneError(f"{path}: holds no scene file; give a shard that `scenes make --shards` wrote")


def _webdataset(module: str) -> ModuleType:
    try:
        import webdataset.tariterators
        import webdataset.writer
    except ImportError as error:
        raise MissingDependencyError(
            'WebDataset is not installed: pip install "occsora-sim[train]"'
        ) from error
    return getattr(webdataset, module)
