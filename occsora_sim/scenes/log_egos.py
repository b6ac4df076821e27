"""The ego motions of a log: the recording car's, and those of the vehicles that it saw drive; with their routes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from occsora_sim.scenes.ego_motion import REAR_AXLE
from occsora_sim.scenes.log_map import LogLane
from occsora_sim.scenes.log_tracks import LogTracks, longest_run
from occsora_sim.scenes.road_users import DRIVES

SIGHT = 50.0
"""How far from the recording car another vehicle can be the ego [m]: farther off, nobody saw what is around it."""

SHORTEST = 3.0
"""Least time that another vehicle is seen, to be an ego [s]."""

LEAST_WAY = 8.0
"""Least way that another vehicle drives, to be an ego [m]."""

_AHEAD = 150.0  # how far a route goes on beyond what was driven [m]
_BEHIND = 10.0  # and begins before it
_BESIDE = 3.0  # how far off its lane's middle a vehicle may end [m]
_MOST = 20_000  # points of a line, however long a damaged one may be
_JOINT = 2.0  # gap between a lane's end and the next one's beginning [m]


@dataclass(frozen=True, kw_only=True)
class LogEgos:
    """Ego motions: pose (e, T, 3), valid (e, T), track (e,), and the route (r, 2) of each; as in `Scene`."""

    pose: np.ndarray
    valid: np.ndarray
    track: np.ndarray
    route: tuple[np.ndarray, ...]


def find_egos(tracks: LogTracks, lanes: list[LogLane], rear_axle: float | None) -> LogEgos:
    """The recording car first, then the others by how far they drive.

    Args:
        tracks: of the log.
        lanes: along which routes go on.
        rear_axle: distance [m] of the recording car's box centre ahead of its rear axle, where that is known.

    """
    sdc = tracks.sdc
    way = np.linalg.norm(
        tracks.state[..., :2] - tracks.state[sdc, :, :2], axis=-1
    )  # (k, T) from the recording car
    rows: list[tuple[float, int, np.ndarray]] = []
    for k, label in enumerate(tracks.label):
        valid = tracks.valid[k].copy()
        if k != sdc:
            if label not in DRIVES:
                continue
            valid &= tracks.valid[sdc] & (way[k] <= SIGHT)
        run = longest_run(valid)
        kept = np.zeros_like(valid)
        kept[run] = True
        points = tracks.state[k, run, :2]
        driven = float(np.linalg.norm(np.diff(points, axis=0), axis=1).sum())
        # A box that trembles in its place goes no way from end to end.
        far = float(np.linalg.norm(points - points[:1], axis=1).max(initial=0.0))
        if k == sdc:
            rows.append((np.inf, k, kept))
        elif min(driven, 2 * far) >= LEAST_WAY and kept.sum() * tracks.dt >= SHORTEST:
            rows.append((driven, k, kept))
    rows.sort(key=lambda row: (-row[0], row[1]))
    poses = []
    for _, k, kept in rows:
        ahead = rear_axle if k == sdc and rear_axle is not None else REAR_AXLE * float(tracks.size[k, 0])
        yaw = tracks.state[k, :, 2]
        axle = tracks.state[k, :, :2] - ahead * np.stack((np.cos(yaw), np.sin(yaw)), axis=-1)
        pose = np.concatenate((axle, yaw[:, None]), axis=1)
        poses.append(np.where(kept[:, None], pose, 0.0))
    return LogEgos(
        pose=np.stack(poses),
        valid=np.stack([kept for _, _, kept in rows]),
        track=np.array([k for _, k, _ in rows]),
        route=tuple(find_route(pose[kept], lanes) for pose, (_, _, kept) in zip(poses, rows, strict=True)),
    )


def find_route(pose: np.ndarray, lanes: list[LogLane]) -> np.ndarray:
    """The way that was driven, (n, 3) poses, and the lanes on from its end; a point about every metre, (r, 2) [m]."""
    heading = np.array([np.cos(pose[0, 2]), np.sin(pose[0, 2])])
    points = [pose[0, :2] - _BEHIND * heading]
    for point in pose[:, :2]:
        if np.linalg.norm(point - points[-1]) >= 0.5:
            points.append(point)
    last = pose[-1]
    direction = np.array([np.cos(last[2]), np.sin(last[2])])
    beyond = _lanes_ahead(last[:2], direction, lanes)
    # The lane begins far enough beyond the end that the line to it bends gently, and never behind.
    beyond = beyond[((beyond - last[:2]) @ direction > 3.0) | (np.arange(len(beyond)) > 8)]
    if not len(beyond):
        beyond = last[:2] + direction * np.arange(1.0, _BEHIND + 1)[:, None]
    return resampled(np.concatenate((np.array(points), beyond)), 1.0)


def _lanes_ahead(point: np.ndarray, direction: np.ndarray, lanes: list[LogLane]) -> np.ndarray:
    """Centre lines from `point` on, straight ahead where they fork, for _AHEAD metres or to the map's end; (n, 2)."""
    best: tuple[float, np.ndarray] | None = None
    for lane in lanes:
        offset = np.linalg.norm(lane.line - point, axis=1)
        if offset.min() > 10.0:
            continue
        line = resampled(lane.line, 1.0)
        offset = np.linalg.norm(line - point, axis=1)
        nearest = int(offset.argmin())
        turn = float(_directions(line)[nearest] @ direction)
        if offset[nearest] <= _BESIDE and turn > 0.8:
            cost = float(offset[nearest]) + 5.0 * (1.0 - turn)
            if best is None or cost < best[0]:
                best = cost, line[nearest:]
    if best is None:
        return np.zeros((0, 2))
    parts, metres = [best[1]], float(len(best[1]))
    while metres < _AHEAD:
        end, along = parts[-1][-1], _directions(parts[-1])[-1]
        options = []
        for lane in lanes:
            if np.abs(lane.line[0] - end).max() <= _JOINT and len(lane.line) > 1:
                onwards = resampled(lane.line, 1.0)
                begin = float(_directions(onwards)[0] @ along)
                if begin > 0.5 and len(onwards) > 1:
                    options.append((float(_directions(onwards)[-1] @ along), onwards))
        if not options:
            break
        onwards = max(options, key=lambda option: option[0])[1]
        parts.append(onwards[1:] if len(onwards) > 2 else onwards)
        metres += len(onwards)
    return np.concatenate(parts)[: int(_AHEAD)]


def _directions(line: np.ndarray) -> np.ndarray:
    """Unit vectors along a line (n, 2), one a point."""
    if len(line) < 2:
        return np.tile(np.array([1.0, 0.0]), (len(line), 1))
    along = np.gradient(line, axis=0)
    return np.asarray(along / np.maximum(np.linalg.norm(along, axis=1, keepdims=True), 1e-9))


def resampled(points: np.ndarray, spacing: float) -> np.ndarray:
    """The polyline (n, 2) with a point about every `spacing` [m], ends included; _MOST points at most."""
    step = np.linalg.norm(np.diff(points, axis=0), axis=1)
    points = points[np.concatenate(([True], step > 1e-6))]
    station = np.concatenate(([0.0], np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))))
    at = np.linspace(0, station[-1], int(np.clip(station[-1] / spacing + 1.5, 2, _MOST)))
    return np.stack([np.interp(at, station, points[:, k]) for k in range(2)], axis=-1)
