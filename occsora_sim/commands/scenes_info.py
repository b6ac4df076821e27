"""`occsora-sim scenes info`."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro

from occsora_sim.commands.output import Outputs, output_file, write_json

if TYPE_CHECKING:
    from occsora_sim.scenes.recorded import Recorded


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of `scenes info`.

    Attributes:
        scenes: a scene file, a log, a folder of them, an Occ3D-nuScenes folder, or `traffic:A-B`.
        picture: also draw the scenes from above, each from its first ego, into this PNG file.
        json: also write what is printed to this file.

    """

    scenes: tyro.conf.Positional[str]
    picture: Path | None = None
    json: Path | None = None


def describe(scene: Recorded) -> dict[str, Any]:
    """What is in a scene, as JSON types; lengths in seconds and metres."""
    import numpy as np

    from occsora_sim.grid import CLASSES
    from occsora_sim.scenes.scene import Scene

    found = {
        "name": scene.name,
        "source": scene.attributes.get("source", "unknown"),
        "seconds": round((scene.steps - 1) * scene.dt, 3),
        "hertz": round(1 / scene.dt, 3),
        "ego_motions": dict(Counter(scene.ego_kind)),
        "ego_seconds": round(float(scene.ego_valid.sum()) * scene.dt, 1),
        "attributes": dict(scene.attributes),
    }
    if not isinstance(scene, Scene):
        known = [step for step, path in enumerate(scene.files) if path is not None]
        looked = sorted({known[0], known[len(known) // 2], known[-1]})
        labels = np.unique(np.concatenate([np.unique(scene.frame(step).labels) for step in looked]))
        classes = [CLASSES[label] for label in labels if label < len(CLASSES) - 1]
        return {
            **found,
            "frames": len(known),
            "gaps": scene.attributes.get("gaps", "none"),
            "classes": classes,
        }
    corners = scene.polygon_points
    extent = corners.max(axis=0) - corners.min(axis=0) if len(corners) else np.zeros(2)
    lanes = np.diff(scene.lane_points, axis=0, prepend=scene.lane_points[:1])
    lanes[scene.lane_offsets[:-1]] = 0.0  # no length between one lane's end and the next one's beginning
    used = np.unique(np.concatenate((scene.polygon_class, scene.track_class)))
    return {
        **found,
        "extent": [round(float(side), 1) for side in extent],
        "polygons": len(scene.polygon_class),
        "lane_metres": round(float(np.hypot(lanes[:, 0], lanes[:, 1]).sum()), 1),
        "tracks": dict(Counter(CLASSES[label] for label in scene.track_class)),
        "classes": [CLASSES[label] for label in used if label < len(CLASSES) - 1],
    }


def run(options: Options) -> None:
    """Print one line a scene; draw --picture; write all that is known to --json."""
    from rich.console import Console
    from rich.table import Table

    from occsora_sim.scenes.formats import missing_logs
    from occsora_sim.scenes.source import open_scenes, parts_of

    for path in (options.picture, options.json):
        if path:
            output_file(path)
    scenes = open_scenes(options.scenes)
    found = [describe(scene) for scene in scenes]
    seconds, driven = sum(one["seconds"] for one in found), sum(one["ego_seconds"] for one in found)
    title = f"{len(found)} scenes, {seconds:g} s; {driven:g} s of ego motion"
    table = Table("scene", "source", "length", "place", "holds", "ego motions", title=title)
    for one in found:
        table.add_row(
            one["name"],
            one["source"],
            f"{one['seconds']:g} s at {one['hertz']:g} Hz",
            _place(one),
            _counts(one["tracks"]) if "tracks" in one else ", ".join(one["classes"]),
            f"{_counts(one['ego_motions'])}; {one['ego_seconds']:g} s",
        )
    missing = [path for part in parts_of(options.scenes) for path in missing_logs(Path(part))]
    missing += [path for scene in scenes for path in getattr(scene, "missing", ())]
    with Outputs() as outputs:
        if options.json:
            report = {"scenes": found, "missing": [str(path) for path in missing]}
            outputs.write(write_json, options.json, report)
        Console(markup=False, emoji=False).print(table)  # names may hold [ and :
        for path in missing:
            print(f"missing: {path}")
        if options.picture:
            from occsora_sim.rendering.contact_sheet import write_contact_sheet

            if outputs.write(write_contact_sheet, scenes, options.picture):
                print(options.picture)


def _place(one: dict[str, Any]) -> str:
    if "frames" in one:
        return f"{one['frames']} frames; gaps: {one['gaps']}"
    sides = " x ".join(f"{side:.0f}" for side in one["extent"])
    return f"{sides} m, {one['polygons']} polygons, {one['lane_metres'] / 1000:.1f} km of lanes"


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))
