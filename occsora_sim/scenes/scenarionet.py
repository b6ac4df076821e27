"""Logs in the format of ScenarioNet and MetaDrive: nuScenes, nuPlan, Waymo, Argoverse 2 and Lyft in one form.

A log is a pickled dict; it is read as plain data (`safe_pickle`). The format: Li et al. 2023, ScenarioNet, section 3;
its revisions differ in the shapes of fields, (T,) or (T, 1), lists or arrays, and all are read.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

import numpy as np

from occsora_sim.errors import SceneError
from occsora_sim.scenes.drivable import Canvas, find_road
from occsora_sim.scenes.file import check_scene
from occsora_sim.scenes.ground import MARGIN, Polygon
from occsora_sim.scenes.log_dressing import dress_log
from occsora_sim.scenes.log_egos import LogEgos, find_egos
from occsora_sim.scenes.log_map import LogLane, read_map
from occsora_sim.scenes.log_tracks import LogTracks, read_times, read_tracks
from occsora_sim.scenes.safe_pickle import load_plain, short_text
from occsora_sim.scenes.scene import Scene
from occsora_sim.vehicle import Vehicle

SUFFIX = ".pkl"

AT_REAR_AXLE = ("nuscenes",)
"""Data sets whose logs give the recording car's position at its rear axle, not at its box's centre."""

MAX_AREA = 2.5e6
"""Largest rectangle around the egos [m2]."""

MAX_STEPS = 20_000
"""Longest log."""


def read_scenarionet(path: str | Path) -> Scene:
    """Read a log.

    The recording car is the first ego; others follow by how far they drove. Static layers that the log does not hold
    are made up from a seed, that of the log's name (`log_dressing`). The world frame begins where the recording car
    does, and is parallel to the log's.

    Raises:
        SceneError: the file is missing, damaged, asks for more than plain data, or does not hold a log; one line that
            names the file and the first fault's place.

    """
    scene, faults = examine_scenarionet(path)
    if scene is None:
        more = f" and {len(faults) - 1} more faults (see `scenes validate`)" if len(faults) > 1 else ""
        raise SceneError(f"{path}: {faults[0]}{more}; mend the log or take it away")
    return scene


def examine_scenarionet(path: str | Path) -> tuple[Scene | None, list[str]]:
    """The scene of a log, or everything that is wrong with it, a line each with its place.

    Raises:
        SceneError: the file is missing, damaged, or asks for more than plain data.

    """
    data = load_plain(path)
    faults: list[str] = []
    parts = ("metadata", "tracks", "map_features")
    if not isinstance(data, dict) or any(not isinstance(data.get(part), dict) for part in parts):
        return None, [f"this is no log: it lacks one of {', '.join(parts)}"]
    metadata = data["metadata"]
    length = _length(data, metadata)
    if length is None:
        return None, [f"length is not a number of steps from 1 to {MAX_STEPS}"]
    dataset = short_text(metadata.get("dataset")) or "unknown"
    car = Vehicle()
    centre = car.length / 2 - car.rear_overhang if dataset.lower() in AT_REAR_AXLE else None
    times = read_times(metadata, length, faults)
    tracks = read_tracks(data["tracks"], metadata.get("sdc_id"), times, faults, rear_axle=centre)
    log_map = read_map(data["map_features"], faults)
    if tracks is None or faults:
        return None, faults
    origin = tracks.state[tracks.sdc, int(tracks.valid[tracks.sdc].argmax()), :2].copy()
    tracks.state[..., :2] -= np.where(tracks.valid[..., None], origin, 0.0)
    log_map = log_map.moved(origin)
    egos = find_egos(tracks, log_map.lanes, _rear_axle(metadata) if centre is None else centre)
    points = egos.pose[egos.valid][:, :2]
    lower, upper = points.min(0) - MARGIN, points.max(0) + MARGIN
    if float((upper - lower).prod()) > MAX_AREA:
        size = " x ".join(f"{side:.0f}" for side in upper - lower)
        sdc = short_text(metadata.get("sdc_id"))
        return None, [f"tracks[{sdc}] spans {size} m; cut the log into shorter ones"]
    name = _file_name(
        short_text(data.get("id")) or short_text(metadata.get("scenario_id")) or Path(path).stem
    )
    canvas = Canvas((*lower.tolist(), *upper.tolist()))
    driven = tracks.state[tracks.sdc][tracks.valid[tracks.sdc]][:, :2]
    road = find_road(canvas, log_map, driven)
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")
    polygons = dress_log(np.random.default_rng(seed), canvas, road, log_map, tracks)
    lanes = [lane for lane in log_map.lanes if canvas.at(lane.line)[2].any()]
    lights = data.get("dynamic_map_states")
    scene = Scene(
        name=name,
        dt=tracks.dt,
        ego_kind=("expert",) * len(egos.track),
        attributes={
            "source": "scenarionet",
            "dataset": dataset,
            "file": Path(path).name,
            "map": short_text(metadata.get("map")),
            "origin": f"{origin[0]:.3f}, {origin[1]:.3f}",
            "made_up": "what is no road, from the name"
            + ("" if log_map.outlines else "; the road, from its lanes"),
            "traffic_lights": f"{len(lights) if isinstance(lights, dict) else 0}, not read",
        },
        **_map_arrays(polygons, lanes),
        **_motion_arrays(tracks, egos, canvas),
    )
    check_scene(
        {field: value for field, value in vars(scene).items() if isinstance(value, np.ndarray)},
        scene.dt,
        scene.ego_kind,
        str(path),
    )
    return scene, []


def _length(data: dict[Any, Any], metadata: dict[Any, Any]) -> int | None:
    """Number of steps; older files hold it in the tracks alone."""
    length = data.get("length")
    if length is None:
        sdc = short_text(metadata.get("sdc_id"))
        track = next((track for name, track in data["tracks"].items() if short_text(name) == sdc), None)
        state = track.get("state") if isinstance(track, dict) else None
        position = state.get("position") if isinstance(state, dict) else None
        length = len(position) if isinstance(position, np.ndarray | list) and np.ndim(position) else None
    if not isinstance(length, int | np.integer) or not 1 <= length <= MAX_STEPS:
        return None
    return int(length)


def _rear_axle(metadata: dict[Any, Any]) -> float | None:
    """Distance [m] of the recording car's centre from its rear axle, where the log tells (nuPlan's do)."""
    parameters = metadata.get("ego_vehicle_parameters")
    value = parameters.get("rear_axle_to_center") if isinstance(parameters, dict) else None
    return float(value) if isinstance(value, int | float) and 0.3 < value < 5.0 else None


def _file_name(name: str) -> str:
    """A name that can be a file's."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip(".-")[:100] or "log"


def _ragged(parts: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    offsets = np.concatenate(([0], np.cumsum([len(part) for part in parts]))).astype(np.int64)
    return np.concatenate([np.zeros((0, 2)), *parts]).astype(np.float32), offsets


def _map_arrays(polygons: list[Polygon], lanes: list[LogLane]) -> dict[str, np.ndarray]:
    points, offsets = _ragged([polygon.points for polygon in polygons])
    lane_points, lane_offsets = _ragged([lane.line for lane in lanes])
    return {
        "polygon_points": points,
        "polygon_offsets": offsets,
        "polygon_class": np.array([polygon.label for polygon in polygons], dtype=np.uint8),
        "polygon_z": np.array([polygon.z for polygon in polygons], dtype=np.float32),
        "lane_points": lane_points,
        "lane_offsets": lane_offsets,
        "lane_width": np.array([lane.width for lane in lanes], dtype=np.float32),
    }


def _motion_arrays(tracks: LogTracks, egos: LogEgos, canvas: Canvas) -> dict[str, np.ndarray]:
    """Tracks that come near the egos, and the egos; angles in [-pi, pi)."""
    k, t = np.nonzero(tracks.valid)
    near = np.zeros(len(tracks.label), dtype=bool)
    near[k[canvas.at(tracks.state[k, t, :2])[2]]] = True
    rows = np.flatnonzero(near)
    state, pose = tracks.state[rows].copy(), egos.pose.copy()
    for angle in (state[..., 2], pose[..., 2]):
        angle[:] = (angle + np.pi) % (2 * np.pi) - np.pi
    state[~tracks.valid[rows]] = 0.0
    pose[~egos.valid] = 0.0
    points, offsets = _ragged(list(egos.route))
    return {
        "track_state": state.astype(np.float32),
        "track_valid": tracks.valid[rows],
        "track_size": tracks.size[rows].astype(np.float32),
        "track_class": tracks.label[rows],
        "ego_pose": pose.astype(np.float32),
        "ego_valid": egos.valid,
        "ego_track": np.searchsorted(rows, egos.track).astype(np.int64),
        "route_points": points,
        "route_offsets": offsets,
    }
