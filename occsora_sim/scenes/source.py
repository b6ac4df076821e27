"""Where scenes come from: towns of a seed, scene files, folders of them. `READERS` is the place for more."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path

from occsora_sim import errors
from occsora_sim.errors import OccSoraError, SceneError
from occsora_sim.scenes.file import SUFFIX, VERSION, load_scene, save_scene
from occsora_sim.scenes.scene import Scene

CACHE_VARIABLE = "OCCSORA_SIM_CACHE"
"""Environment variable that names the cache folder."""

NO_GENERATOR = frozenset(
    {
        "boxes.py", "drivable.py", "file.py", "live_town.py", "log_dressing.py", "log_egos.py", "log_map.py",
        "log_tracks.py", "occ3d.py", "pickle_names.py", "raster.py", "recorded.py", "road_users.py",
        "safe_pickle.py", "scenarionet.py", "source.py", "start.py", "validation.py", "voxel_scene.py",
        "voxeliser.py",
    }
)  # fmt: skip
"""Modules of this folder that cannot change what a town is."""

_TOWNS = re.compile(r"traffic:(\d+)(?:-(\d+))?")


@dataclass(frozen=True, kw_only=True)
class Reader:
    """One kind of source.

    Attributes:
        form: how such a spec looks, for messages.
        accepts: whether a spec is of this kind; the first reader that accepts it reads it.
        read: the scenes of a spec; the folder is the cache.

    """

    form: str
    accepts: Callable[[str], bool]
    read: Callable[[str, Path], list[Scene]]


def open_scenes(spec: str | Path, cache: Path | None = None) -> list[Scene]:
    """The scenes that `spec` names.

    Args:
        spec: "traffic:A-B" (the towns of seeds A to B, both included), "traffic:A", a scene file, or a folder
            of scene files (in the order of their names).
        cache: where towns are kept; by default $OCCSORA_SIM_CACHE or ~/.cache/occsora-sim/towns.

    Raises:
        SceneError: the spec has no known form, or a scene is missing, damaged or foreign.
        MissingDependencyError: a town must be made and SUMO is not installed.

    """
    text = str(spec)
    for reader in READERS:
        if reader.accepts(text):
            return reader.read(text, cache or default_cache())
    forms = ", ".join(reader.form for reader in READERS)
    raise SceneError(f"scenes {text!r}: there is no such file or folder; give one of: {forms}")


def default_cache() -> Path:
    """The folder that keeps towns: $OCCSORA_SIM_CACHE, or ~/.cache/occsora-sim/towns."""
    named = os.environ.get(CACHE_VARIABLE)
    return Path(named) if named else Path.home() / ".cache" / "occsora-sim" / "towns"


def town_path(seed: int, cache: Path) -> Path:
    """The file that keeps the town of `seed`: its name changes with whatever could change the town."""
    return cache / f"town-{seed}-{_generator_key()}{SUFFIX}"


@functools.cache
def _generator_key() -> str:
    """A digest of the default configuration, the generator's code, SUMO's version and the file format's."""
    from occsora_sim.scenes.town import TownConfig, sumo_version

    settings = {"config": asdict(TownConfig()), "sumo": sumo_version(), "file": VERSION}
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    folder = Path(__file__).parent
    code = [path for path in sorted(folder.glob("*.py")) if path.name not in NO_GENERATOR]
    for path in [*code, folder.parent / "vehicle.py"]:
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def make_missing_towns(seeds: Sequence[int], cache: Path, done: Callable[[int], None]) -> None:
    """Make the towns that the cache does not hold, one after another; `done(seed)` follows each."""
    from occsora_sim.scenes.traffic import make_town

    for seed in seeds:
        save_scene(make_town(seed), town_path(seed, cache))
        done(seed)


def _read_towns(spec: str, cache: Path) -> list[Scene]:
    match = _TOWNS.fullmatch(spec)
    first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
    if last < first:
        raise SceneError(f"scenes {spec!r}: give traffic:A-B with seeds A <= B, or traffic:A")
    seeds = range(first, last + 1)
    scenes: dict[int, Scene] = {}
    for seed in seeds:
        try:
            scenes[seed] = load_scene(town_path(seed, cache))
        except SceneError:  # not yet made, or damaged: the cache is ours to mend
            continue
    missing = [seed for seed in seeds if seed not in scenes]
    if len(missing) == 1:
        make_missing_towns(missing, cache, lambda seed: None)
    elif missing:
        _make_in_parallel(missing, cache)
    scenes.update({seed: load_scene(town_path(seed, cache)) for seed in missing})
    return [scenes[seed] for seed in seeds]


def _make_in_parallel(seeds: Sequence[int], cache: Path) -> None:
    """Make towns in worker processes, with a progress bar.

    The workers are interpreters of their own that run this module (SUMO allows one simulation in a process).
    multiprocessing would run the caller's script again, so it must be guarded; nobody should need to know.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    workers = min(len(seeds), os.cpu_count() or 1)
    running: list[subprocess.Popen[str]] = []

    with Progress(*columns, console=Console(stderr=True)) as progress, ThreadPoolExecutor(workers) as pool:
        task = progress.add_task("making towns", total=len(seeds))

        def work(share: Sequence[int]) -> None:
            command = [sys.executable, "-m", __name__, str(cache), *map(str, share)]
            environment = {**os.environ, "OMP_NUM_THREADS": "1"}
            with subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
            ) as process:
                running.append(process)
                assert process.stdout is not None and process.stderr is not None
                for line in process.stdout:
                    if line.startswith("made "):
                        progress.advance(task)
                report = process.stderr.read()
            if process.returncode:
                raise _worker_error(report, process.returncode)

        jobs = [pool.submit(work, seeds[k::workers]) for k in range(workers)]
        try:
            for job in as_completed(jobs):
                job.result()
        except BaseException:
            for process in running:
                process.terminate()
            raise


def _worker_error(report: str, status: int) -> OccSoraError:
    """What stopped a worker, from its last words: "ClassName: message" for an error of ours."""
    last = (report.strip().splitlines() or [f"it ended with status {status}"])[-1]
    name, _, message = last.partition(": ")
    kind = getattr(errors, name, None)
    if isinstance(kind, type) and issubclass(kind, OccSoraError):
        return kind(message)
    return SceneError(f"a process that makes towns failed ({last}); try one town alone: traffic:A")


def _read_folder(spec: str, cache: Path) -> list[Scene]:
    paths = sorted(Path(spec).glob(f"*{SUFFIX}"))
    if not paths:
        raise SceneError(f"{spec}: the folder holds no scene file (*{SUFFIX})")
    return [load_scene(path) for path in paths]


READERS: tuple[Reader, ...] = (
    Reader(
        form="traffic:A-B or traffic:A (towns of seeds A to B)",
        accepts=lambda spec: spec.startswith("traffic:"),
        read=_read_towns,
    ),
    Reader(
        form=f"a folder of scene files (*{SUFFIX})",
        accepts=lambda spec: spec != "" and Path(spec).is_dir(),
        read=_read_folder,
    ),
    Reader(
        form=f"a scene file (*{SUFFIX})",
        accepts=lambda spec: Path(spec).is_file(),
        read=lambda spec, cache: [load_scene(spec)],
    ),
)
"""The kinds of source, asked in this order. Logs of other formats join here."""


if __name__ == "__main__":
    try:
        make_missing_towns(
            [int(seed) for seed in sys.argv[2:]],
            Path(sys.argv[1]),
            lambda seed: print("made", seed, flush=True),
        )
    except OccSoraError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        sys.exit(2)
