"""`occsora-sim scenes make`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from occsora_sim.commands.output import output_folder


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of `scenes make`.

    Attributes:
        scenes: what to make: `traffic:A-B`, the towns of the seeds A to B.
        out: folder for the scene files, one a scene.

    """

    scenes: str = "traffic:0-7"
    out: Path = Path("scenes")


def run(options: Options) -> None:
    """Make the scenes and write them to files."""
    from occsora_sim.scenes.file import SUFFIX, save_scene
    from occsora_sim.scenes.source import open_scenes

    folder = output_folder(options.out)
    for scene in open_scenes(options.scenes):
        path = folder / f"{scene.name}{SUFFIX}"
        save_scene(scene, path)
        print(f"{path}  {path.stat().st_size / 1e6:.2f} MB")
