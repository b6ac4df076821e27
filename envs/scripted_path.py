"""Motions of edited road users: straight on, along a path, or into the ego's lane."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from occsora_sim.errors import ConfigurationError

PAST = 5.0
"""How long before the start a placed road user has been there, at constant speed [s]."""

LANE = 3.5
"""How far beside the ego's route one stands that cuts in, where nobody says where [m]."""

_STEP = 0.1  # between two poses of a manoeuvre [s]


@dataclass(frozen=True, kw_only=True)
class Motion:
    """Poses in straight lines from one to the next; before and after them constant velocities.

    Attributes:
        time: (n,) seconds since the start, from 0 on.
        pose: (n, 3) float64 world poses: x, y [m], yaw [rad].
        before: (2,) velocity until the start [m/s].
        after: (2,) velocity from the last pose on [m/s].

    """

    time: np.ndarray
    pose: np.ndarray
    before: np.ndarray
    after: np.ndarray

    @property
    def fastest(self) -> float:
        """The highest speed between two of the poses [m/s]."""
        if len(self.time) < 2:
            return 0.0
        return float((np.hypot(*np.diff(self.pose[:, :2], axis=0).T) / np.diff(self.time)).max())

    def sampled(self, time: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Track states (t, 5) float32 at times (t,) since the start [s], and whether it is there then (t,)."""
        yaw = np.unwrap(self.pose[:, 2])
        x, y, yaw = (np.interp(time, self.time, values) for values in (*self.pose[:, :2].T, yaw))
        early, late = np.minimum(time, 0.0), np.maximum(time - self.time[-1], 0.0)
        xy = np.stack((x, y), axis=-1) + early[:, None] * self.before + late[:, None] * self.after
        slopes = np.diff(self.pose[:, :2], axis=0) / np.diff(self.time)[:, None]
        table = np.concatenate((self.before[None], slopes, self.after[None]))
        piece = np.searchsorted(self.time, time - 1e-6)  # 0: until the start; n: after the last pose
        yaw = (yaw + np.pi) % (2 * np.pi) - np.pi
        return np.concatenate((xy, yaw[:, None], table[piece]), axis=-1).astype(np.float32), time >= -PAST


def drive_path(
    here: np.ndarray, time: Sequence[float], path: Sequence[np.ndarray], speed: float | None
) -> Motion:
    """From the pose `here` (3,) along poses at `time` [s], then on as at the end; until the start at `speed` [m/s]
    along the yaw, None: as fast as the path begins.
    """
    times, poses = np.array([0.0, *time]), np.stack([here, *path])
    slopes = np.diff(poses[:, :2], axis=0) / np.diff(times)[:, None]
    if speed is None:
        speed = float(np.hypot(*slopes[0]))
    before = speed * np.array([np.cos(here[2]), np.sin(here[2])])
    return Motion(time=times, pose=poses, before=before, after=slopes[-1] if len(slopes) else before)


def cut_in(
    here: np.ndarray, route: np.ndarray, ego: np.ndarray, side: str, seconds: float, speed: float, horizon: float,
    beside: float | None, where: str,
) -> Motion:  # fmt: skip
    """From one side into the middle of the lane that a route follows, then on along it.

    Args:
        here: (3,) world pose where it begins.
        route: (r, 2) world points [m].
        ego: (3,) the ego's world pose.
        side: "left" or "right" of the route.
        seconds: how long it takes.
        speed: along the route [m/s].
        horizon: for how long the motion is asked [s].
        beside: begin LANE beside the route instead, so far ahead of the ego along it [m].
        where: what a message begins with.

    Raises:
        ConfigurationError: `here` is not on that side of the route.

    """
    sign = 1.0 if side == "left" else -1.0
    if beside is None:
        station, offset = _project(route, here[:2])
        if offset * sign < 0.5:
            raise ConfigurationError(
                f"{where}: cannot cut in from the {side}: it is {abs(offset):.1f} m to the "
                f"{'left' if offset >= 0 else 'right'} of the route"
            )
    else:
        station, offset = _project(route, ego[:2])[0] + beside, sign * LANE
    time = np.append(
        np.arange(0.0, seconds, _STEP), np.arange(seconds, max(horizon, seconds) + 2 * _STEP, _STEP)
    )
    part = np.clip(time / seconds, 0.0, 1.0)
    aside = offset * (1 - part**2 * (3 - 2 * part))
    xy = _beside(route, station + speed * time, aside)
    way = np.gradient(xy, time, axis=0)
    yaw = np.arctan2(way[:, 1], way[:, 0])
    if beside is None:
        yaw[0] = here[2]
    before = speed * np.array([np.cos(yaw[0]), np.sin(yaw[0])])
    return Motion(time=time, pose=np.concatenate((xy, yaw[:, None]), axis=-1), before=before, after=way[-1])


def _project(route: np.ndarray, point: np.ndarray) -> tuple[float, float]:
    """How far along a route (r, 2) a point (2,) lies, and how far to its left [m]."""
    step = np.diff(route, axis=0)
    length = np.hypot(*step.T)
    along = ((point - route[:-1]) * step).sum(-1) / np.maximum(length, 1e-9) ** 2
    foot = route[:-1] + np.clip(along, 0, 1)[:, None] * step
    k = int(np.hypot(*(point - foot).T).argmin())
    away = point - foot[k]
    left = float(np.hypot(*away) * np.sign(step[k, 0] * away[1] - step[k, 1] * away[0]))
    return float(length[:k].sum() + np.clip(along[k], 0, 1) * length[k]), left


def _beside(route: np.ndarray, station: np.ndarray, offset: np.ndarray) -> np.ndarray:
    """Points (n, 2) so far along a route and so far to its left [m]; beyond its end straight on."""
    step = np.diff(route, axis=0)
    length = np.hypot(*step.T)
    route, step = route[np.append(True, length > 1e-6)], step[length > 1e-6]
    at = np.append(0.0, np.cumsum(length[length > 1e-6]))
    heading = np.unwrap(np.arctan2(step[:, 1], step[:, 0]))
    yaw = np.interp(station, (at[:-1] + at[1:]) / 2, heading)
    ahead, left = np.stack((np.cos(yaw), np.sin(yaw)), -1), np.stack((-np.sin(yaw), np.cos(yaw)), -1)
    point = np.stack([np.interp(station, at, route[:, k]) for k in range(2)], axis=-1)
    return point + np.maximum(station - at[-1], 0.0)[:, None] * ahead + offset[:, None] * left
