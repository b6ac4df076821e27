"""Where scenes come from: what is made from a seed, scene files, logs, folders. `READERS` is the place for more."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from queue import SimpleQueue
from threading import Event

from occsora_sim import errors
from occsora_sim.atomic_file import check_folder
from occsora_sim.errors import OccSoraError, SceneError
from occsora_sim.interruption import ended_by_signals
from occsora_sim.scenes import formats, made, occ3d, shards
from occsora_sim.scenes.file import SUFFIX, VERSION, load_scene, save_scene
from occsora_sim.scenes.recorded import Recorded
from occsora_sim.scenes.scene import Scene

CACHE_VARIABLE = "OCCSORA_SIM_CACHE"
"""Environment variable that names the cache folder."""

OTHER_KINDS = frozenset(
    {
        "amounts.py", "drafts.py", "live_town.py", "made.py", "mix.py", "motorway.py", "roundabout.py", "scenario.py",
        "stage.py", "sumo_events.py", "sumo_pool.py", "sumo_worker.py",
    }
)  # fmt: skip
"""Modules of this folder that make places and scenarios, and cannot change what a usual town is."""

NO_GENERATOR = frozenset(
    {
        "blank.py", "drivable.py", "file.py", "formats.py", "log_dressing.py", "log_egos.py",
        "log_files.py", "log_index.py", "log_map.py", "log_tracks.py", "occ3d.py", "occ3d_frame.py", "offers.py",
        "pickle_names.py", "raster.py", "recorded.py", "road_users.py", "safe_pickle.py", "scenarionet.py",
        "shards.py", "source.py", "start.py", "town_folder.py", "tracks.py", "voxel_scene.py", "voxeliser.py",
    }
)  # fmt: skip
"""Modules of this folder that cannot change what is made from a seed."""


@dataclass(frozen=True, kw_only=True)
class Reader:
    """One kind of source.

    Attributes:
        form: how such a spec looks, for messages.
        accepts: whether a spec is of this kind; the first reader that accepts it reads it.
        read: the scenes of a spec; the folder is the cache, None the usual one.

    """

    form: str
    accepts: Callable[[str], bool]
    read: Callable[[str, Path | None], Sequence[Recorded]]


def open_scenes(spec: str | Path, cache: Path | None = None) -> list[Recorded]:
    """The scenes that `spec` names.

    Args:
        spec: "traffic:A-B" (the towns of seeds A to B, both included), "traffic:A", another kind of place or a scenario
            instead of traffic ("motorway:A-B", "scenario:jaywalker:A-B"; see `made.KINDS`), more or less of somebody in
            it ("traffic:A-B,density=2,truck=0.3"; see `amounts.Amounts`), a scene file, a shard of them (.tar) or a
            pattern of shards ("scenes/*.tar"), a ScenarioNet log (.pkl), a folder of such files (in the order of their
            names), or an Occ3D-nuScenes folder. Several are joined by "+":
            "traffic:0-95+motorway:0-9", one after another.
        cache: where towns are kept; by default $OCCSORA_SIM_CACHE or ~/.cache/occsora-sim/towns.

    Returns:
        Vector scenes; voxel sequences from Occ3D folders.

    Raises:
        SceneError: the spec has no known form, or a scene is missing, damaged or foreign; of a folder, all files that
            cannot be read are named.
        MissingDependencyError: a town must be made and SUMO is not installed.

    """
    parts = [(part, _reader(part)) for part in parts_of(str(spec))]  # all are known before one is read
    return [scene for part, reader in parts for scene in reader.read(part, cache)]


def _reader(spec: str) -> Reader:
    """The reader that accepts a spec.

    Raises:
        SceneError: there is none.

    """
    for reader in READERS:
        if reader.accepts(spec):
            return reader
    forms = ", ".join(reader.form for reader in READERS)
    raise SceneError(f"scenes {spec!r}: there is no such file or folder; give one of: {forms}")


def each_scene(spec: str | Path, cache: Path | None = None) -> Iterator[Recorded]:
    """The scenes that `spec` names, one after another; towns in the order in which they are ready, those of the cache
    first. Arguments and errors as of `open_scenes`.
    """
    text = str(spec)
    if len(parts := parts_of(text)) > 1:
        for part in parts:
            yield from each_scene(part, cache)
    elif made.is_made(text):
        yield from (scene for _, scene in _each_town(text, cache))
    else:
        yield from open_scenes(text, cache)


def single_specs(spec: str) -> list[str]:
    """Specs that name the scenes of `spec` one by one, as far as can be told before they are read.

    Raises:
        SceneError: what is to be made cannot be read, or a folder holds no scene.

    """
    singles: list[str] = []
    for part in parts_of(spec):
        if made.is_made(part):
            kind, seeds = made.parse(part)
            place, comma, amounts = kind.partition(",")
            singles += [f"{place}:{seed}{comma}{amounts}" for seed in seeds]
        elif Path(part).is_dir() and not occ3d.is_occ3d(Path(part)):
            singles += map(str, formats.require_files(Path(part)).files)
        else:
            singles.append(part)
    return singles


def parts_of(spec: str) -> list[str]:
    """The specs that `spec` joins; one that is a path is never taken apart."""
    return [spec] if Path(spec).exists() else spec.split("+")


def default_cache() -> Path:
    """The folder that keeps towns: $OCCSORA_SIM_CACHE, or ~/.cache/occsora-sim/towns."""
    named = os.environ.get(CACHE_VARIABLE)
    if named:
        return Path(named)
    try:
        return Path.home() / ".cache" / "occsora-sim" / "towns"
    except RuntimeError as error:
        raise SceneError(f"no home folder to keep towns in; set {CACHE_VARIABLE} to a folder") from error


def town_path(seed: int, cache: Path, kind: str = made.USUAL) -> Path:
    """The file that keeps what is made from `seed`: its name changes with whatever could change that."""
    if kind == made.USUAL:
        return cache / f"town-{seed}-{_generator_key()}{SUFFIX}"
    return cache / f"{kind.replace(':', '-')}-{seed}-{_generator_key(NO_GENERATOR)}{SUFFIX}"


@functools.cache
def _generator_key(without: frozenset[str] = NO_GENERATOR | OTHER_KINDS) -> str:
    """A digest of the configurations, the generator's code, SUMO's version and the file format's."""
    from occsora_sim.scenes.town import TownConfig, sumo_version

    settings = {"config": asdict(TownConfig()), "sumo": sumo_version(), "file": VERSION}
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    folder = Path(__file__).parent
    code = [path for path in sorted(folder.glob("*.py")) if path.name not in without]
    for path in [*code, folder.parent / "vehicle.py"]:
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def make_missing_towns(
    seeds: Sequence[int], cache: Path, done: Callable[[int], None], kind: str = made.USUAL
) -> None:
    """Make the towns that the cache does not hold, one after another; `done(seed)` follows each."""
    for seed in seeds:
        town, path = made.make(kind, seed), town_path(seed, cache, kind)
        try:
            save_scene(town, path)
        except SceneError as error:
            raise SceneError(f"{error} ({CACHE_VARIABLE} names the cache that keeps towns)") from error
        done(seed)


def _read_towns(spec: str, cache: Path | None) -> list[Scene]:
    towns = dict(_each_town(spec, cache))
    return [towns[seed] for seed in sorted(towns)]


def _each_town(spec: str, cache: Path | None) -> Iterator[tuple[int, Scene]]:
    """The seeds and towns of a spec as they are ready."""
    kind, seeds = made.parse(spec)
    cache = cache or default_cache()
    missing = []
    for seed in seeds:
        try:
            town = load_scene(town_path(seed, cache, kind))
        except SceneError:  # not yet made, or damaged: the cache is ours to mend
            missing.append(seed)
        else:
            yield seed, town
    if missing:
        _check_cache(cache)
    if len(missing) == 1:
        make_missing_towns(missing, cache, lambda seed: None, kind)
        yield missing[0], load_scene(town_path(missing[0], cache, kind))
    elif missing:
        for seed in _made_in_parallel(missing, cache, kind):
            yield seed, load_scene(town_path(seed, cache, kind))


def _check_cache(cache: Path) -> None:
    """See that towns can be kept, before the first one is made.

    Raises:
        SceneError: the cache cannot be made or written.

    """
    try:
        check_folder(cache)
    except OSError as error:
        raise SceneError(
            f"{cache}: the cache that keeps towns cannot be written ({error.strerror}); set {CACHE_VARIABLE} to a "
            "folder that can"
        ) from error


def _made_in_parallel(seeds: Sequence[int], cache: Path, kind: str) -> Iterator[int]:
    """Make towns in worker processes, with a progress bar; the seed of each as soon as the cache holds its town.

    The workers are interpreters of their own that run this module (SUMO allows one simulation in a process).
    multiprocessing would run the caller's script again, so it must be guarded; nobody should need to know.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    workers = min(len(seeds), os.cpu_count() or 1)
    running: list[subprocess.Popen[str]] = []
    news: SimpleQueue[int | None] = SimpleQueue()  # a seed, or that a worker has ended
    stopping = Event()

    def work(share: Sequence[int]) -> None:
        command = [sys.executable, "-m", __name__, str(cache), kind, *map(str, share)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
        ) as process:
            running.append(process)
            if stopping.is_set():  # it began while the others were told to end
                process.terminate()
            assert process.stdout is not None and process.stderr is not None
            for line in process.stdout:
                if line.startswith("made "):
                    news.put(int(line.split()[1]))
            report = process.stderr.read()
        if process.returncode:
            raise _worker_error(report, process.returncode)

    console = Console(stderr=True)
    bar = Progress(*columns, console=console, disable=not console.is_terminal)
    with bar as progress, ThreadPoolExecutor(workers) as pool:
        task = progress.add_task("making towns", total=len(seeds))
        try:
            jobs = [pool.submit(work, seeds[k::workers]) for k in range(workers)]
            for job in jobs:
                job.add_done_callback(lambda _: news.put(None))
            working = workers
            while working:
                seed = news.get()
                if seed is not None:
                    progress.advance(task)
                    yield seed
                else:
                    working -= 1
                    for job in jobs:
                        if job.done():
                            job.result()
        except BaseException:
            stopping.set()
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


def _read_shards(spec: str, cache: Path | None) -> list[Scene]:
    return [scene for path in shards.shards_of(spec) for scene in shards.read_shard(path)]


READERS: tuple[Reader, ...] = (
    Reader(
        form=", ".join(made.FORMS),
        accepts=made.is_made,
        read=_read_towns,
    ),
    Reader(
        form=f"a pattern of shards (scenes/*{shards.SUFFIX})",
        accepts=lambda spec: not Path(spec).exists() and bool(shards.shards_of(spec)),
        read=_read_shards,
    ),
    Reader(
        form=formats.FORMS,
        accepts=formats.is_file_or_folder,
        read=lambda spec, cache: formats.read(Path(spec)),
    ),
)
"""The kinds of source, asked in this order."""


if __name__ == "__main__":
    try:
        with ended_by_signals():
            make_missing_towns(
                [int(seed) for seed in sys.argv[3:]],
                Path(sys.argv[1]),
                lambda seed: print("made", seed, flush=True),
                sys.argv[2],
            )
    except OccSoraError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
