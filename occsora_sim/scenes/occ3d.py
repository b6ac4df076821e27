"""Occ3D-nuScenes folders: `gts/<scene>/<frame>/labels.npz` beside `annotations.json` (Tian et al. 2023, Occ3D).

OccWorld (Zheng et al. 2023) keeps `gts` alone: the frames can be looked at, but nothing says when and where they were
seen.

Occ3D-Waymo is refused: its own description names no ego poses and no times, and without them nothing moves.
"""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from occsora_sim.bounded_json import parse_json
from occsora_sim.errors import SceneError, SceneWarning
from occsora_sim.grid import FRAME_SECONDS, OCC3D
from occsora_sim.scenes.log_egos import find_route
from occsora_sim.scenes.log_tracks import TIME_UNITS
from occsora_sim.scenes.occ3d_frame import read_labels
from occsora_sim.scenes.offers import first_of
from occsora_sim.scenes.safe_pickle import short_text
from occsora_sim.scenes.voxel_scene import VoxelScene

ANNOTATIONS = "annotations.json"
FRAMES = "gts"
LABELS = "labels.npz"

MAX_BYTES = 1 << 29
"""Largest annotations file [bytes]."""

MAX_VALUES = 40_000_000
"""Most values in it; the whole of Occ3D-nuScenes has about 20 million."""

MAX_STEPS = 20_000
"""Longest scene, gaps included; one of nuScenes has 40."""

_UNKNOWN = "the order and the ego poses of the frames, which can be looked at but not driven in"
_REMEDY = f"put the {ANNOTATIONS} of Occ3D-nuScenes beside {FRAMES}/"
_LONGEST_NAME = 255  # of a file or folder [bytes], on all usual systems


def is_occ3d(folder: Path) -> bool:
    """Whether a folder is the root of a download, its `gts`, or one scene of it; also if it is Occ3D-Waymo's."""
    return _root(folder) is not None or _is_waymo(folder)


def read_occ3d(folder: str | Path) -> list[VoxelScene]:
    """The scenes of a folder, in the order of their names; frames in the order of their times.

    Scenes of which no frame is on the disk are left out, as a download may be a part of the whole; a `SceneWarning`
    names them. A frame that is missing in another is a gap in time (`VoxelScene.missing`, and "gaps" of its
    attributes). Without annotations there are frames, but no ego motion. Frames are read when asked for.

    Raises:
        SceneError: the folder is not of this layout, or its annotations are damaged; one line that names the first
            fault's place.

    """
    scenes, faults = examine_occ3d(folder)
    if faults:
        more = f" and {len(faults) - 1} more faults (see `scenes validate`)" if len(faults) > 1 else ""
        raise SceneError(f"{folder}: {faults[0]}{more}; mend the folder or fetch it again")
    if not scenes:
        raise SceneError(
            f"{folder}: no frame of the annotations is there; put {FRAMES}/<scene>/<frame>/{LABELS} beside them"
        )
    return scenes


def examine_occ3d(folder: str | Path) -> tuple[list[VoxelScene], list[str]]:
    """The scenes of a folder that can be used, and all faults of its annotations, a line each with its place.

    Raises:
        SceneError: the folder is not of this layout, or its annotations cannot be read at all.

    """
    folder = Path(folder)
    root = _root(folder)
    if root is None:
        if _is_waymo(folder):
            raise SceneError(
                f"{folder}: Occ3D-Waymo gives no ego poses and no times with its frames, so they cannot be a scene; "
                "give an Occ3D-nuScenes folder, or Waymo's logs in the ScenarioNet format"
            )
        raise SceneError(f"{folder}: no Occ3D-nuScenes folder; give one with {ANNOTATIONS} and {FRAMES}/")
    if not (root / ANNOTATIONS).is_file():
        _leave_out(f"{root}: {ANNOTATIONS} is missing, and with it {_UNKNOWN}; {_REMEDY}")
        return [_read_frames(place) for place in _scene_folders(root, folder)], []
    infos = _annotations(root / ANNOTATIONS).get("scene_infos")
    if not isinstance(infos, dict):
        raise SceneError(f"{root / ANNOTATIONS}: scene_infos is missing; fetch it again")
    wanted = [folder.name] if folder.parent.name == FRAMES else sorted(infos)
    scenes: list[VoxelScene] = []
    faults: list[str] = []
    absent: list[str] = []
    for name in wanted:
        before = len(faults)
        if not _is_name(name):
            faults.append(f"scene_infos[{short_text(name)}] is no name of a scene")
            continue
        there = (root / FRAMES / name).is_dir()
        scene = _read_scene(root, name, infos.get(name), faults) if there else None
        if scene is not None:
            scenes.append(scene)
        elif len(faults) == before:
            absent.append(name)
    unknown = [place.name for place in _scene_folders(root, folder) if place.name not in infos]
    for what, names in (("have no frame on the disk", absent), (f"are not in {ANNOTATIONS}", unknown)):
        if names and scenes:
            _leave_out(f"{root}: {len(names)} scenes {what} and are left out: {first_of(names)}")
    return scenes, faults


def _leave_out(message: str) -> None:
    warnings.warn(message, SceneWarning, stacklevel=4)


def _scene_folders(root: Path, folder: Path) -> list[Path]:
    """The folders of scenes that `folder` means, in the order of their names."""
    if folder.parent.name == FRAMES:
        return [folder]
    return sorted(place for place in (root / FRAMES).iterdir() if place.is_dir() and _is_name(place.name))


def _read_frames(folder: Path) -> VoxelScene:
    """The scene of a folder without annotations: its frames in the order of their names, and no ego motion."""
    files = [place / LABELS for place in sorted(folder.iterdir()) if place.is_dir() and _is_name(place.name)]
    there = tuple(path for path in files if path.is_file())
    return VoxelScene(
        name=folder.name,
        dt=FRAME_SECONDS,
        grid=OCC3D,
        files=there,
        missing=tuple(path for path in files if path not in set(there)),
        read=read_labels,
        ego_pose=np.zeros((0, len(there), 3), dtype=np.float32),
        ego_valid=np.zeros((0, len(there)), dtype=bool),
        ego_track=np.zeros(0, dtype=np.int64),
        ego_kind=(),
        route_points=np.zeros((0, 2), dtype=np.float32),
        route_offsets=np.zeros(1, dtype=np.int64),
        attributes={
            "source": "occ3d-nuscenes",
            "folder": str(folder.parent.parent),
            "frames": str(len(there)),
            "gaps": "unknown",
            "lacks": f"{ANNOTATIONS} is missing, and with it {_UNKNOWN}",
        },
    )


def _root(folder: Path) -> Path | None:
    """The folder that holds `gts`, with annotations or frames: this one, or the one that it is a part of."""
    for root, part in (
        (folder, folder / FRAMES),
        (folder.parent, folder),
        (folder.parent.parent, folder.parent),
    ):
        if part.name == FRAMES and part.is_dir():
            frames = part.glob(f"*/*/{LABELS}")
            if (root / ANNOTATIONS).is_file() or next(frames, None) is not None:
                return root
    return None


def _is_waymo(folder: Path) -> bool:
    return any(True for pattern in ("*/*/*_04.npz", "*/*_04.npz", "*_04.npz") for _ in folder.glob(pattern))


def _annotations(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise SceneError(f"{path}: more than {MAX_BYTES} bytes; fetch it again")
        content = parse_json(path.read_bytes(), MAX_VALUES)
    except OSError as error:
        raise SceneError(f"{path}: {error.strerror}; fetch it again") from error
    except ValueError as error:
        what = (str(error).splitlines() or [""])[0][:120]
        raise SceneError(f"{path}: truncated or damaged ({what}); fetch it again") from error
    if not isinstance(content, dict):
        raise SceneError(f"{path}: holds no annotations; fetch it again")
    return content


def _read_scene(root: Path, name: str, info: Any, faults: list[str]) -> VoxelScene | None:
    """One scene; None if it is faulty, or none of its frames is there."""
    place = f"scene_infos[{short_text(name)}]"
    if not isinstance(info, dict) or not info:
        faults.append(f"{place} is missing")
        return None
    before = len(faults)
    rows = []
    for token, frame in info.items():
        row = _read_frame(root, name, token, frame, f"{place}[{short_text(token)}]", faults)
        rows += [row] if row is not None else []
    if len(faults) > before:
        return None
    rows.sort(key=lambda row: row[0])
    stamps = np.array([row[0] for row in rows], dtype=np.float64)
    if (np.diff(stamps) <= 0).any():
        first = int((np.diff(stamps) <= 0).argmax())
        faults.append(f"{place} has two frames of the timestamp {rows[first][0]}")
        return None
    kept = [k for k, row in enumerate(rows) if row[2].is_file()]
    if not kept:
        return None
    dt, steps = _steps(stamps)
    steps = steps[kept] - steps[kept[0]]
    if steps[-1] >= MAX_STEPS:
        far = rows[kept[int(np.diff(steps).argmax()) + 1]][0]
        faults.append(
            f"{place} lasts {steps[-1] * dt:.3g} s; the timestamp {far} lies too far from the one before"
        )
        return None
    pose = np.array([rows[k][1] for k in kept])
    origin = pose[0, :2].copy()
    pose[:, :2] -= origin
    scene = _assemble(root, name, dt, steps, pose, [rows[k][2] for k in kept], origin)
    return replace(scene, missing=tuple(row[2] for k, row in enumerate(rows) if k not in set(kept)))


def _read_frame(
    root: Path, name: str, token: str, frame: Any, place: str, faults: list[str]
) -> tuple[int, tuple[float, float, float], Path] | None:
    """Timestamp, pose (x, y, yaw) and file of a frame, whether it is on the disk or not."""
    if not isinstance(frame, dict) or not _is_name(token):
        faults.append(f"{place} is no frame")
        return None
    stamp = frame.get("timestamp")
    text = str(stamp) if isinstance(stamp, int | str) and not isinstance(stamp, bool) else ""
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        faults.append(f"{place}.timestamp is not a number of microseconds")
        return None
    ego = frame.get("ego_pose")
    translation = _numbers(ego.get("translation") if isinstance(ego, dict) else None, 3)
    rotation = _numbers(ego.get("rotation") if isinstance(ego, dict) else None, 4)
    if translation is None:
        faults.append(f"{place}.ego_pose.translation is not 3 finite numbers")
        return None
    length = math.sqrt(sum(part * part for part in rotation)) if rotation is not None else 0.0
    if rotation is None or not 0.9 < length < 1.1:
        faults.append(f"{place}.ego_pose.rotation is not a quaternion of length 1")
        return None
    path = root / FRAMES / name / token / LABELS
    pose = (translation[0], translation[1], yaw_of([part / length for part in rotation]))
    return int(text), pose, path


def _is_name(text: str) -> bool:
    """Whether a folder inside another one can be called so."""
    try:
        size = len(os.fsencode(text))
    except UnicodeEncodeError:  # half a character
        return False
    return 0 < size <= _LONGEST_NAME and not set(text) & set("/\\\0") and not text.startswith(".")


def _numbers(value: Any, count: int) -> list[float] | None:
    if not isinstance(value, list) or len(value) != count:
        return None
    if any(
        isinstance(part, bool) or not isinstance(part, int | float) or not abs(part) < 1e9 for part in value
    ):
        return None
    return [float(part) for part in value]


def yaw_of(quaternion: Sequence[float]) -> float:
    """Heading [rad] of a unit quaternion (w, x, y, z): the direction of its x axis, seen from above."""
    w, x, y, z = quaternion
    return math.atan2(2.0 * (w * z + x * y), 1.0 - 2.0 * (y * y + z * z))


def _steps(stamps: np.ndarray) -> tuple[float, np.ndarray]:
    """The time step [s] that divides the time between two frames, and the step (n,) of each time."""
    if len(stamps) < 2:
        return FRAME_SECONDS, np.zeros(len(stamps), dtype=np.int64)
    usual = float(np.median(np.diff(stamps)))
    unit = next((unit for unit in TIME_UNITS if usual * unit <= 5.0), TIME_UNITS[-1])
    dt = FRAME_SECONDS / max(1, round(FRAME_SECONDS / (usual * unit)))
    # From frame to frame, so that clocks that tick a little off do not add up to a gap.
    ahead = np.maximum(1, np.round(np.diff(stamps) * unit / dt))
    return dt, np.concatenate(([0], np.cumsum(ahead))).astype(np.int64)


def _assemble(
    root: Path,
    name: str,
    dt: float,
    steps: np.ndarray,
    pose: np.ndarray,
    files: Sequence[Path],
    origin: np.ndarray,
) -> VoxelScene:
    """The scene of the frames at `steps` (n,) with poses (n, 3); each run without a gap is one ego motion."""
    count = int(steps[-1]) + 1
    breaks = np.flatnonzero(np.diff(steps) > 1)
    begins, ends = np.append(0, breaks + 1), np.append(breaks + 1, len(steps))
    ego_pose = np.zeros((len(begins), count, 3), dtype=np.float32)
    ego_valid = np.zeros((len(begins), count), dtype=bool)
    routes = []
    for motion, (begin, end) in enumerate(zip(begins, ends, strict=True)):
        ego_pose[motion, steps[begin:end]] = pose[begin:end]
        ego_valid[motion, steps[begin:end]] = True
        routes.append(find_route(pose[begin:end], []))
    paths: list[Path | None] = [None] * count
    for step, file in zip(steps, files, strict=True):
        paths[int(step)] = file
    gaps = [f"{steps[k] * dt:g} to {steps[k + 1] * dt:g} s" for k in breaks]
    return VoxelScene(
        name=name,
        dt=dt,
        grid=OCC3D,
        files=tuple(paths),
        read=read_labels,
        ego_pose=ego_pose,
        ego_valid=ego_valid,
        ego_track=np.full(len(begins), -1, dtype=np.int64),
        ego_kind=("expert",) * len(begins),
        route_points=np.concatenate(routes).astype(np.float32),
        route_offsets=np.concatenate(([0], np.cumsum([len(route) for route in routes]))).astype(np.int64),
        attributes={
            "source": "occ3d-nuscenes",
            "folder": str(root),
            "frames": str(len(steps)),
            "gaps": "; ".join(gaps) or "none",
            "origin": f"{origin[0]:.3f}, {origin[1]:.3f}",
        },
    )
