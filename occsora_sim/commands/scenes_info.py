"""`occsora-sim scenes info`."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro

from occsora_sim.commands.output import write_json

if TYPE_CHECKING:
    from occsora_sim.scenes.scene import Scene


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of `scenes info`.

    Attributes:
        scenes: a scene file, a folder of them, or `traffic:A-B`.
        json: also write what is printed to this file.

    """

    scenes: tyro.conf.Positional[str]
    json: Path | None = None


def describe(scene: Scene) -> dict[str, Any]:
    """What is in a scene, as JSON types; lengths in seconds and metres."""
    import numpy as np

    from occsora_sim.grid import CLASSES

    corners = scene.polygon_points
    extent = corners.max(axis=0) - corners.min(axis=0) if len(corners) else np.zeros(2)
    lanes = np.diff(scene.lane_points, axis=0, prepend=scene.lane_points[:1])
    lanes[scene.lane_offsets[:-1]] = 0.0  # no length between one lane's end and the next one's beginning
    return {
        "name": scene.name,
        "seconds": round((scene.steps - 1) * scene.dt, 3),
        "hertz": round(1 / scene.dt, 3),
        "extent": [round(float(side), 1) for side in extent],
        "polygons": len(scene.polygon_class),
        "lane_metres": round(float(np.hypot(lanes[:, 0], lanes[:, 1]).sum()), 1),
        "tracks": dict(Counter(CLASSES[label] for label in scene.track_class)),
        "ego_motions": dict(Counter(scene.ego_kind)),
        "attributes": dict(scene.attributes),
    }


def run(options: Options) -> None:
    """Print one line a scene, and write all that is known to --json."""
    from rich.console import Console
    from rich.table import Table

    from occsora_sim.scenes.source import open_scenes

    found = [describe(scene) for scene in open_scenes(options.scenes)]
    table = Table("scene", "length [s]", "extent [m]", "polygons", "lanes [km]", "tracks", "ego motions")
    for scene in found:
        table.add_row(
            scene["name"],
            f"{scene['seconds']:g} at {scene['hertz']:g} Hz",
            " x ".join(f"{side:.0f}" for side in scene["extent"]),
            str(scene["polygons"]),
            f"{scene['lane_metres'] / 1000:.1f}",
            ", ".join(f"{count} {name}" for name, count in sorted(scene["tracks"].items())),
            ", ".join(f"{count} {name}" for name, count in sorted(scene["ego_motions"].items())),
        )
    Console().print(table)
    if options.json:
        write_json(options.json, {"scenes": found})
