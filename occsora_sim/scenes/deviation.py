"""Off-expert driving: a kinematic car on a recorded path that brakes late, drifts, leaves its lane."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

DEVIATIONS: tuple[str, ...] = ("late_brake", "drift", "leave_lane", "near_miss", "standstill")
"""The kinds of off-expert motion."""

STEP = 0.1
"""Integration step [s]."""

_FRONT, _HALF_WIDTH = 3.1, 0.9  # of the ego car, from its rear axle [m]
_MAX_CURVATURE, _CURVATURE_RATE = 0.2, 0.25  # [1/m], [1/(m s)]: 0.5 rad of steering at a wheelbase of 2.6 m
_MAX_LATERAL = 5.0  # [m/s2]
_NEAR = 24  # boxes that a driver looks at
_COMFORT_BRAKE, _ACCELERATION = 2.5, 2.0  # [m/s2]


@dataclass(frozen=True, kw_only=True)
class Paths:
    """n reference paths, padded to one length, sampled every `spacing` metres.

    Attributes:
        points: (n, p, 2) [m].
        yaw: (n, p) [rad].
        speed: (n, p) usual speed [m/s].
        count: (n,) number of samples in use.
        spacing: [m].

    """

    points: np.ndarray
    yaw: np.ndarray
    speed: np.ndarray
    count: np.ndarray
    spacing: float = 0.5


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What n drivers do wrong, at each integration step.

    Attributes:
        offset: (n, s) wanted distance left of the path [m].
        factor: (n, s) of the usual speed.
        brake: (n, s) deceleration [m/s2] commanded whatever else holds; 0 for none.
        headway: (n,) time gap kept to what is ahead [s].
        late: (n,) bool: brakes only when it must, then hard.

    """

    offset: np.ndarray
    factor: np.ndarray
    brake: np.ndarray
    headway: np.ndarray
    late: np.ndarray


def draw_plan(rng: np.random.Generator, kinds: list[str], steps: int) -> Plan:
    """A plan for each driver, by the kind of deviation; normal driving lies between the events."""
    n = len(kinds)
    offset, factor, brake = np.zeros((n, steps)), np.ones((n, steps)), np.zeros((n, steps))
    headway, late = np.full(n, 1.0), np.zeros(n, dtype=bool)
    clock = np.arange(steps) * STEP
    for i, kind in enumerate(kinds):
        late[i] = kind == "late_brake"
        if kind == "drift":
            period, amplitude = rng.uniform(7, 15), rng.uniform(0.8, 2.0)
            offset[i] = amplitude * np.sin(2 * np.pi * clock / period) * np.clip(clock / 3, 0, 1)
            factor[i] = rng.uniform(0.8, 1.15)
        if kind == "near_miss":
            headway[i] = 0.25
            factor[i] = rng.choice([0.65, 1.25, 1.35])
        if kind == "late_brake":
            factor[i] = rng.uniform(1.05, 1.3)
        when = rng.uniform(1.0, 6.0) if kind != "standstill" else rng.uniform(0.0, 2.0)
        while when < clock[-1]:
            length = {
                "late_brake": rng.uniform(1.5, 4.0),
                "drift": 1.0,
                "leave_lane": rng.uniform(3.0, 6.0),
                "near_miss": rng.uniform(3.0, 6.0),
                "standstill": rng.uniform(5.0, 20.0),
            }[kind]
            now = (clock >= when) & (clock < when + length)
            if kind == "late_brake":
                brake[i, now] = rng.uniform(4.0, 7.5)
            elif kind == "leave_lane":
                offset[i, now] = rng.choice([-1, -1, 1]) * rng.uniform(2.4, 3.8)
                if rng.random() < 0.35:
                    brake[i, now & (clock > when + length * 0.5)] = rng.uniform(2.0, 5.0)
            elif kind == "near_miss":
                offset[i, now] = rng.choice([-1, 1, 1]) * rng.uniform(1.2, 3.2)
            elif kind == "standstill":
                brake[i, now] = rng.uniform(1.5, 4.0)
            when += length + rng.uniform(4.0, 11.0)
    return Plan(offset=offset, factor=factor, brake=brake, headway=headway, late=late)


def drive(
    paths: Paths,
    plan: Plan,
    speed: np.ndarray,
    begin: np.ndarray,
    state: np.ndarray,
    valid: np.ndarray,
    size: np.ndarray,
    own: np.ndarray,
    dt: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Drive n cars along their paths, among recorded traffic that does not react.

    Args:
        paths: n paths; each car starts at its path's beginning.
        plan: what each does.
        speed: (n,) first speed [m/s].
        begin: (n,) first frame of each car.
        state: (k, T, 5) boxes of the others, as in `Scene.track_state`.
        valid: (k, T).
        size: (k, 3) [m].
        own: (n,) the box that each car replaces.
        dt: time between two frames [s].

    Returns:
        Pose (n, T, 3) of the rear axle, and whether each is valid (n, T): from `begin` to its path's end.

    """
    n, frames = len(speed), valid.shape[1]
    rows, per_frame = np.arange(n), round(dt / STEP)
    xy, yaw, v = paths.points[:, 0].copy(), paths.yaw[:, 0].copy(), speed.copy()
    curvature, station, offset = np.zeros(n), np.zeros(n), np.zeros(n)
    pose, alive = np.zeros((n, frames, 3)), np.zeros((n, frames), dtype=bool)
    end = (paths.count - 1) * paths.spacing
    near = np.zeros((n, 0), dtype=int)

    def sample(at: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        index = np.clip(at / paths.spacing, 0, paths.count - 1.001)
        low = index.astype(int)
        part = index - low
        point = paths.points[rows, low] * (1 - part)[:, None] + paths.points[rows, low + 1] * part[:, None]
        return point, paths.yaw[rows, low], paths.speed[rows, low]

    for step in range(frames * per_frame):
        frame, within = divmod(step, per_frame)
        after, part = min(frame + 1, frames - 1), within / per_frame
        if within == 0:
            pose[:, frame, :2], pose[:, frame, 2] = xy, yaw
            alive[:, frame] = (begin <= frame) & (station < end - 6)
            # Only the nearest boxes can be in the way before the next frame.
            there = valid[:, frame] & valid[:, after]
            distance = ((state[None, :, frame, :2] - xy[:, None]) ** 2).sum(-1)
            distance[:, ~there] = np.inf
            distance[rows, own] = np.inf
            near = np.argsort(distance, axis=1, kind="stable")[:, :_NEAR]
            present = np.take_along_axis(distance, near, 1) < 45.0**2
            now, then = state[near, frame], state[near, after]
            length, width = size[near, 0], size[near, 1]
        running = (begin <= frame) & (station < end - 6)
        box = now * (1 - part) + then * part
        box[..., 2] = now[..., 2]

        # The nearest thing ahead, in a corridor bent like the present steering.
        heading = np.stack((np.cos(yaw), np.sin(yaw)), -1)
        delta = box[..., :2] - xy[:, None]
        ahead = (delta * heading[:, None]).sum(-1)
        left = delta[..., 1] * heading[:, None, 0] - delta[..., 0] * heading[:, None, 1]
        turn = box[..., 2] - yaw[:, None]
        cos, sin = np.abs(np.cos(turn)), np.abs(np.sin(turn))
        reach = cos * length / 2 + sin * width / 2
        wide = sin * length / 2 + cos * width / 2
        gap = ahead - reach - _FRONT
        aside = np.abs(left - curvature[:, None] * ahead**2 / 2) - wide
        relevant = present & (gap > -1.5) & (ahead < 40) & (aside < _HALF_WIDTH + 0.25)
        gap = np.where(relevant, gap, 1e3)
        first = gap.argmin(1)
        gap = np.maximum(gap[rows, first], 0.1)
        closing = v - (box[rows, first, 3:5] * heading).sum(-1)

        # Intelligent driver model (Treiber et al., 2000), except for those who brake late.
        usual = sample(station + 0.8 * v)[2]
        wanted = np.maximum(usual * plan.factor[:, step], 0.5)
        free = _ACCELERATION * (1 - (v / wanted) ** 4)
        desired = 2.0 + v * plan.headway + v * closing / (2 * np.sqrt(_ACCELERATION * _COMFORT_BRAKE))
        follow = free - _ACCELERATION * (np.maximum(desired, 0) / gap) ** 2
        needed = np.maximum(closing, 0) ** 2 / (2 * np.maximum(gap - 1.0, 0.1))
        hard = np.where((needed > 5.0) | (gap < 1.2), -7.5, free)
        acceleration = np.clip(np.where(plan.late, hard, follow), -8.0, 2.5)
        forced = plan.brake[:, step]
        acceleration = np.where(forced > 0, np.minimum(-forced, acceleration), acceleration)

        # Pure pursuit of the path, moved aside.
        offset += np.clip(plan.offset[:, step] - offset, -1.6 * STEP, 1.6 * STEP)
        look = np.clip(0.9 * v, 4.0, 9.0)
        target, direction, _ = sample(station + look)
        target = target + offset[:, None] * np.stack((-np.sin(direction), np.cos(direction)), -1)
        delta_xy = target - xy
        across = delta_xy[:, 1] * heading[:, 0] - delta_xy[:, 0] * heading[:, 1]
        wish = 2 * across / np.maximum((delta_xy**2).sum(-1), 4.0)
        limit = np.minimum(_MAX_CURVATURE, _MAX_LATERAL / np.maximum(v, 1.0) ** 2)
        wish = np.clip(wish, -limit, limit)
        curvature += np.clip(wish - curvature, -_CURVATURE_RATE * STEP, _CURVATURE_RATE * STEP)

        after_v = np.where(running, np.maximum(v + acceleration * STEP, 0), v)
        metres = np.where(running, (v + after_v) / 2 * STEP, 0)
        middle = yaw + curvature * metres / 2
        xy = xy + metres[:, None] * np.stack((np.cos(middle), np.sin(middle)), -1)
        yaw, v = yaw + curvature * metres, after_v
        on_path, direction, _ = sample(station)
        tangent = np.stack((np.cos(direction), np.sin(direction)), -1)
        step_along = ((xy - on_path) * tangent).sum(-1)
        station = station + np.where(running, np.clip(step_along, 0, 1.5 * metres + 0.05), 0)
    return pose, alive
