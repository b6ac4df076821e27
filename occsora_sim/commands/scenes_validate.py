"""`occsora-sim scenes validate`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro

from occsora_sim.commands.output import output_file, write_json


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of `scenes validate`.

    Attributes:
        path: a scene file, a log, a folder of them, or an Occ3D-nuScenes folder.
        json: also write the faults to this file.

    """

    path: tyro.conf.Positional[Path]
    json: Path | None = None


def run(options: Options) -> None:
    """Print a line a fault.

    Raises:
        SceneError: there are faults, or nothing to check.

    """
    from rich.console import Console
    from rich.progress import Progress

    from occsora_sim.errors import SceneError
    from occsora_sim.scenes import formats

    if options.json:
        output_file(options.json)
    if not options.path.exists():
        raise SceneError(f"{options.path}: there is no such file or folder; give {formats.FORMS}")
    files, faulty, total = 0, 0, formats.count(options.path)
    faults: list[dict[str, str]] = []
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("files", total=total)
        for checked in formats.check(options.path):
            files += 1
            faulty += bool(checked.faults)
            faults += [{"path": str(checked.path), "fault": fault} for fault in checked.faults]
            for fault in checked.faults:
                print(f"{checked.path}: {fault}", flush=True)
            progress.advance(task)
    if options.json:
        write_json(options.json, {"files": files, "faulty": faulty, "faults": faults})
    if faults:
        raise SceneError(f"{options.path}: {len(faults)} faults in {faulty} of {files} files")
    print(f"{options.path}: {files} files, no fault")
