"""`occsora-sim scenes make`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from occsora_sim.commands.output import output_folder


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of `scenes make`.

    Attributes:
        scenes: what to make: `traffic:A-B`, the towns of the seeds A to B; or a log or a folder of logs, to be written
            as scene files.
        out: folder for the scene files, one a scene.

    """

    scenes: str = "traffic:0-7"
    out: Path = Path("scenes")


def run(options: Options) -> None:
    """Make the scenes and write each to its file as soon as it is made."""
    from occsora_sim.errors import SceneError
    from occsora_sim.scenes.file import SUFFIX, save_scene
    from occsora_sim.scenes.scene import Scene
    from occsora_sim.scenes.source import each_scene

    folder = output_folder(options.out)
    for scene in each_scene(options.scenes):
        if not isinstance(scene, Scene):
            raise SceneError(
                f"{options.scenes}: {scene.name} is a voxel sequence, which has no scene file; use it as it is"
            )
        path = folder / f"{scene.name}{SUFFIX}"
        save_scene(scene, path)
        print(f"{path}  {path.stat().st_size / 1e6:.2f} MB", flush=True)
