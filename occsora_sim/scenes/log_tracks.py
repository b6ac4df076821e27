"""The tracks of a log: boxes at regular times, whatever shapes and rates the log writes them in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from occsora_sim.grid import FRAME_SECONDS
from occsora_sim.scenes.road_users import label_of, size_of
from occsora_sim.scenes.safe_pickle import short_text

RESAMPLED = 0.1
"""Time step [s] of a log whose own does not divide the time between two frames."""

TIME_UNITS = (1.0, 1e-3, 1e-6, 1e-9)
"""Seconds, milli-, micro- and nanoseconds; which one a log means shows in the time between two of its steps."""

_DEFAULT_STEP = 0.1  # [s]; that of the format where a log does not say
_VELOCITY_SPAN = 0.2  # [s] to either side; shorter, and the noise of the boxes is all that is left
_LONGEST_LOG = 20_000  # steps


@dataclass(frozen=True, kw_only=True)
class LogTracks:
    """What moved, and what stood.

    Attributes:
        dt: time step [s].
        state: (k, T, 5) float64: box centre x, y [m], yaw [rad], velocity x, y [m/s], in the log's frame.
        valid: (k, T) bool.
        size: (k, 3) float64 [m].
        label: (k,) uint8.
        sdc: index of the recording car.

    """

    dt: float
    state: np.ndarray
    valid: np.ndarray
    size: np.ndarray
    label: np.ndarray
    sdc: int


def read_times(metadata: dict[str, Any], length: int, faults: list[str]) -> np.ndarray:
    """Seconds since the first step, (T,); regular where the log gives no times.

    Times in micro- or nanoseconds are known by their size.
    """
    if metadata.get("ts") is not None:
        times = _numbers(metadata["ts"], length, 1)
        if times is None or not np.isfinite(times).all() or (np.diff(times[:, 0]) <= 0).any():
            faults.append(f"metadata.ts is not {length} rising times")
            return np.arange(length) * _DEFAULT_STEP
        usual = float(np.median(np.diff(times[:, 0]))) if length > 1 else 0.0
        unit = next((unit for unit in TIME_UNITS if usual * unit <= 5.0), TIME_UNITS[-1])
        return np.asarray((times[:, 0] - times[0, 0]) * unit)
    rate = metadata.get("sample_rate")
    step = _DEFAULT_STEP
    if isinstance(rate, int | float) and 0 < rate < 1000:
        step = float(rate) if rate <= 2 else 1 / float(rate)  # some write seconds, some Hz
    return np.arange(length) * step


def read_tracks(
    tracks: dict[Any, Any], sdc: Any, times: np.ndarray, faults: list[str], *, rear_axle: float | None = None
) -> LogTracks | None:
    """All tracks that are ever valid, at regular times.

    Args:
        tracks: `tracks` of the log: by name, each with type, state, metadata.
        sdc: name of the recording car.
        times: (T,) seconds.
        faults: what is wrong is added here, with its place.
        rear_axle: distance [m] of the recording car's box centre ahead of the point whose positions the log holds; None
            where the log holds those of the box.

    Returns:
        None if there is no recording car to be found.

    """
    names = {short_text(name): name for name in tracks}
    wanted = short_text(sdc)
    rows: dict[str, tuple[np.ndarray, np.ndarray, tuple[float, float, float], int]] = {}
    for text, name in names.items():
        row = _read_track(f"tracks[{text}]", tracks[name], len(times), faults, text == wanted, rear_axle)
        if row is not None:
            rows[text] = row
    if wanted not in rows:
        if wanted not in names:
            faults.append(f"metadata.sdc_id {wanted!r} is no track")
        elif not any(fault.startswith(f"tracks[{wanted}]") for fault in faults):
            faults.append(f"tracks[{wanted}] of the recording car is never valid")
        return None
    pose = np.stack([row[0] for row in rows.values()])
    valid = np.stack([row[1] for row in rows.values()])
    dt, pose, valid = _regular(times, pose, valid)
    return LogTracks(
        dt=dt,
        state=np.concatenate((pose, _velocity(pose, valid, dt)), axis=-1),
        valid=valid,
        size=np.array([row[2] for row in rows.values()]),
        label=np.array([row[3] for row in rows.values()], dtype=np.uint8),
        sdc=list(rows).index(wanted),
    )


def _read_track(
    place: str, track: Any, length: int, faults: list[str], is_sdc: bool, rear_axle: float | None
) -> tuple[np.ndarray, np.ndarray, tuple[float, float, float], int] | None:
    """Pose (T, 3), validity (T,), size and label of a track; None if it is never valid, no object, or faulty."""
    state = track.get("state") if isinstance(track, dict) else None
    if not isinstance(state, dict):
        faults.append(f"{place}.state is missing")
        return None
    if "object_state" in state and "position" not in state:
        return None  # a traffic light among the tracks
    columns = {}
    for name, width, needed in (
        ("position", 2, True), ("heading", 1, True), ("valid", 1, False),
        ("length", 1, False), ("width", 1, False), ("height", 1, False),
    ):  # fmt: skip
        if state.get(name) is None:
            if needed:
                faults.append(f"{place}.state.{name} is missing")
                return None
            continue
        values = _numbers(state[name], length, width)
        if values is None:
            faults.append(f"{place}.state.{name} is not {length} rows of {width} numbers or more")
            return None
        columns[name] = values
    pose = np.concatenate((columns["position"], columns["heading"]), axis=1)
    valid = columns["valid"][:, 0] > 0.5 if "valid" in columns else np.ones(length, dtype=bool)
    if not np.isfinite(pose[valid]).all() or (np.abs(pose[valid]) > 1e9).any():
        faults.append(f"{place}.state holds a position or heading that is not finite where it is valid")
        return None
    if not valid.any():
        return None
    size = [
        float(np.median(columns[n][valid])) if n in columns else 0.0 for n in ("length", "width", "height")
    ]
    if is_sdc and size[1] > size[0]:
        size[:2] = size[1::-1]  # nuScenes' conversion writes the recording car's the other way round
    metadata = track.get("metadata")
    detail = short_text(metadata.get("type") if isinstance(metadata, dict) else None)
    label = label_of(short_text(track.get("type")), detail, size[0])
    if label is None:
        return None
    if is_sdc and rear_axle is not None:
        pose[:, :2] += rear_axle * np.stack((np.cos(pose[:, 2]), np.sin(pose[:, 2])), axis=-1)
    pose[~valid] = 0.0
    return pose, valid, size_of(label, size), label


def _numbers(values: Any, length: int, width: int) -> np.ndarray | None:
    """`values` as (length, width) float64, whether written as (T,), (T, 1) or wider; None if they are not that."""
    try:
        if isinstance(values, list | tuple):
            values = [row[:width] if isinstance(row, list | tuple) else row for row in values]
        array = np.asarray(values)
        if array.dtype.kind not in "biufO":
            return None
        array = np.asarray(array, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        return None
    if array.ndim == 1 and width == 1:
        array = array[:, None]
    if array.ndim != 2 or array.shape[0] != length or array.shape[1] < width:
        return None
    return array[:, :width].copy()


def _regular(times: np.ndarray, pose: np.ndarray, valid: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """The time step [s], poses (k, T', 3) and validity at regular times that meet every frame's."""
    step = float(np.median(np.diff(times))) if len(times) > 1 else _DEFAULT_STEP
    per_frame = round(FRAME_SECONDS / step) if step <= FRAME_SECONDS else 0
    even = len(times) == 1 or float(np.abs(times - step * np.arange(len(times))).max()) <= 0.25 * step
    if per_frame and even and abs(per_frame * step / FRAME_SECONDS - 1) < 0.01:
        return FRAME_SECONDS / per_frame, pose, valid
    count = min(int(times[-1] / RESAMPLED + 1e-6) + 1, _LONGEST_LOG)
    at = np.arange(count) * RESAMPLED
    after = np.clip(np.searchsorted(times, at - 1e-9), 1, len(times) - 1)
    before = after - 1
    span = times[after] - times[before]
    share = np.clip((at - times[before]) / span, 0.0, 1.0)
    yaw = np.unwrap(pose[..., 2], axis=1)
    pose = np.concatenate((pose[..., :2], yaw[..., None]), axis=-1)
    made = pose[:, before] * (1 - share)[:, None] + pose[:, after] * share[:, None]
    # Beside a gap in time nothing is known; exactly at a step, the other one does not matter.
    sure = (valid[:, before] | (share > 1 - 1e-6)) & (valid[:, after] | (share < 1e-6))
    sure &= (span < 1.5 * max(step, RESAMPLED)) | (share < 1e-6) | (share > 1 - 1e-6)
    made[~sure] = 0.0
    return RESAMPLED, made, sure


def _velocity(pose: np.ndarray, valid: np.ndarray, dt: float) -> np.ndarray:
    """Mean velocity (k, T, 2) [m/s] over _VELOCITY_SPAN to either side, as far as the track is valid there."""
    reach = max(1, round(_VELOCITY_SPAN / dt))
    steps = np.arange(valid.shape[1])
    first, last = _run_bounds(valid)
    early, late = np.maximum(steps - reach, first), np.minimum(steps + reach, last)
    early, late = np.where(valid, early, 0), np.where(valid, late, 0)
    moved = np.take_along_axis(pose[..., :2], late[..., None], 1) - np.take_along_axis(
        pose[..., :2], early[..., None], 1
    )
    return np.asarray(moved / (np.maximum(late - early, 1) * dt)[..., None])


def _run_bounds(valid: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """First and last step (k, T) of the run of valid steps around each step; of no meaning where it is not valid."""
    steps = np.arange(valid.shape[1])
    first = np.maximum.accumulate(np.where(valid, -1, steps), axis=1) + 1
    last = np.minimum.accumulate(np.where(valid, valid.shape[1], steps)[:, ::-1], axis=1)[:, ::-1] - 1
    return first, last


def longest_run(valid: Sequence[bool] | np.ndarray) -> slice:
    """The longest run of true values (T,); empty if there is none."""
    flags = np.concatenate(([False], np.asarray(valid, dtype=bool), [False])).astype(np.int8)
    begin, end = np.flatnonzero(np.diff(flags) == 1), np.flatnonzero(np.diff(flags) == -1)
    if not len(begin):
        return slice(0, 0)
    best = int((end - begin).argmax())
    return slice(int(begin[best]), int(end[best]))
