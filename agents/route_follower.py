"""A rule-based driver: pure pursuit along the observed route, and braking for what is in its way."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from occsora_sim.agents.protocol import Observation
from occsora_sim.errors import ConfigurationError
from occsora_sim.grid import (
    BARRIER,
    DYNAMIC,
    FRAME_SECONDS,
    MANMADE,
    OCC3D,
    OTHERS,
    TRAFFIC_CONE,
    VEGETATION,
    Grid,
)
from occsora_sim.vehicle import Vehicle

STATIC = (OTHERS, BARRIER, TRAFFIC_CONE, MANMADE, VEGETATION)


@dataclass(frozen=True, kw_only=True)
class RouteFollowerConfig:
    """How the route follower drives.

    Attributes:
        speed: cruising speed [m/s].
        lateral: lateral acceleration allowed in curves [m/s2].
        acceleration: usual acceleration [m/s2].
        braking: usual braking [m/s2], positive.
        hardest: emergency braking [m/s2], positive.
        headway: time gap to a leader [s].
        gap: distance kept to anything in the way [m].
        margin: added to each side of the ego's width for road users [m].
        static_margin: the same for what stands still [m].
        min_voxels: fewer obstacle voxels in a metre of the corridor are noise.
        change: largest change of acceleration between decisions, unless it brakes hard [m/s2].
        preview: pursuit distance in seconds of travel [s].
        least_preview: and at least this [m].

    """

    speed: float = 9.0
    lateral: float = 2.0
    acceleration: float = 1.8
    braking: float = 2.5
    hardest: float = 7.0
    headway: float = 1.2
    gap: float = 2.5
    margin: float = 0.45
    static_margin: float = 0.1
    min_voxels: int = 2
    change: float = 2.0
    preview: float = 1.3
    least_preview: float = 5.0


@dataclass(kw_only=True)
class RouteFollower:
    """Follows the route with pure pursuit (Coulter 1992) and the intelligent driver model (Treiber 2000).

    The speed in a curve of curvature k is sqrt(lateral / k), reached in time by braking before it. Obstacle
    voxels in the corridor along the route are a leader: its distance is that of the nearest, its speed the
    change of this distance between the last two frames.
    """

    config: RouteFollowerConfig = field(default_factory=RouteFollowerConfig)
    vehicle: Vehicle = field(default_factory=Vehicle)
    grid: Grid = OCC3D
    _last: np.ndarray | None = None

    def reset(self, n: int) -> None:
        """Forget the last accelerations."""
        self._last = None

    def act(self, observation: Observation) -> np.ndarray:
        """Controls (n, 2) in [-1, 1]."""
        occupancy, ego, route = observation["occupancy"], observation["ego"], observation["route"]
        if occupancy.shape[2:] != self.grid.shape:
            raise ConfigurationError(
                f"route follower: made for a grid of {self.grid.shape}, observed {occupancy.shape[2:]}; "
                "pass grid=world.grid"
            )
        rows = [self._drive(*row) for row in zip(occupancy, ego, route, strict=True)]
        wanted = np.array(rows, dtype=np.float64).reshape(-1, 2)
        acceleration, steering = wanted[:, 0], wanted[:, 1]
        limits = np.where(acceleration >= 0, self.vehicle.max_acceleration, -self.vehicle.min_acceleration)
        controls = np.stack((acceleration / limits, steering / self.vehicle.max_steering), axis=-1)
        return np.clip(controls, -1.0, 1.0).astype(np.float32)

    def _drive(self, occupancy: np.ndarray, ego: np.ndarray, route: np.ndarray) -> tuple[float, float]:
        """Acceleration [m/s2] and steering [rad] for one row."""
        c = self.config
        speed, before = float(max(ego[0], 0.0)), float(ego[1])
        path = np.concatenate((np.zeros((1, 2)), route.astype(np.float64)))
        arc = np.concatenate(([0.0], np.cumsum(np.linalg.norm(np.diff(path, axis=0), axis=1))))
        steering = self._pursue(path, arc, speed)
        allowed = min(c.speed, self._curve_speed(path, arc))
        free = c.acceleration * (1 - (speed / max(allowed, 0.5)) ** 4)
        free = float(np.clip(free, -c.braking, c.acceleration))
        gap, leader = self._leader(occupancy, path, arc, speed)
        closing = speed - leader
        wish = c.gap + max(
            0.0, speed * c.headway + speed * closing / (2 * np.sqrt(c.acceleration * c.braking))
        )
        pull = free - c.acceleration * (wish / max(gap, 0.1)) ** 2 if np.isfinite(gap) else free
        need = max(closing, 0.0) ** 2 / (2 * max(gap - 1.0, 0.1)) if np.isfinite(gap) else 0.0
        if need > c.braking:  # it takes more than usual braking to keep clear
            return float(-min(1.2 * need, c.hardest)), steering
        pull = float(np.clip(pull, -c.braking - 1.0, c.acceleration))
        return float(np.clip(pull, before - c.change, before + c.change)), steering

    def _pursue(self, path: np.ndarray, arc: np.ndarray, speed: float) -> float:
        """Steering [rad] of the arc through the route point at the preview distance."""
        reach = max(self.config.least_preview, self.config.preview * speed)
        target = np.array([np.interp(reach, arc, path[:, axis]) for axis in (0, 1)])
        curvature = 2 * target[1] / max(float(target @ target), 1.0)
        limit = self.vehicle.max_steering
        return float(np.clip(np.arctan(self.vehicle.wheelbase * curvature), -limit, limit))

    def _curve_speed(self, path: np.ndarray, arc: np.ndarray) -> float:
        """The speed [m/s] from which every curve ahead can still be taken at its own."""
        c = self.config
        edge = np.diff(path[1:], axis=0)
        size = np.linalg.norm(edge, axis=1)
        edge, size, where = edge[size > 0.5], size[size > 0.5], arc[2:][size > 0.5]
        if len(edge) < 4:
            return c.speed
        heading = np.unwrap(np.arctan2(edge[:, 1], edge[:, 0]))
        curvature = np.abs(heading[2:] - heading[:-2]) / (size[1:-1] + 0.5 * (size[2:] + size[:-2]))
        slow = np.sqrt(c.lateral / np.maximum(curvature, 1e-3))
        # The whole decision is driven before the next one: start braking a second early.
        before = np.maximum(where[1:-1] - c.speed, 0.0)
        return float(np.sqrt(slow**2 + 2 * 0.8 * c.braking * before).min())

    def _leader(
        self, occupancy: np.ndarray, path: np.ndarray, arc: np.ndarray, speed: float
    ) -> tuple[float, float]:
        """Free distance before the front bumper [m] (inf if clear) and the speed of what bounds it [m/s]."""
        now, moves = self._clearance(occupancy[-1], path, arc)
        if not np.isfinite(now) or not moves or len(occupancy) < 2:
            return now, 0.0
        back = path - np.array([-speed * FRAME_SECONDS, 0.0])  # the route as it lay in the frame before
        back = np.concatenate((np.zeros((1, 2)), back[back[:, 0] > 0]))
        steps = np.concatenate(([0.0], np.cumsum(np.linalg.norm(np.diff(back, axis=0), axis=1))))
        before, moved = self._clearance(occupancy[-2], back, steps)
        if not np.isfinite(before) or not moved:
            return now, 0.0
        return now, float(np.clip(speed + (now - before) / FRAME_SECONDS, 0.0, speed))

    def _clearance(self, frame: np.ndarray, path: np.ndarray, arc: np.ndarray) -> tuple[float, bool]:
        """Distance along the path from front bumper to first obstacle [m], and whether it is a road user."""
        c, grid = self.config, self.grid
        heights = (np.arange(grid.shape[2]) + 0.5) * grid.voxel + grid.lower[2]
        lower = np.array(grid.lower[:2])
        first = np.clip(((path.min(axis=0) - 3.0 - lower) // grid.voxel).astype(int), 0, grid.shape[:2])
        last = np.clip(((path.max(axis=0) + 3.0 - lower) // grid.voxel).astype(int) + 1, 0, grid.shape[:2])
        part = frame[first[0] : last[0], first[1] : last[1]]  # all that can be near the path
        layers = part[:, :, (heights > 0.2) & (heights < 1.8)]
        columns = [np.isin(layers, labels).sum(axis=2) for labels in (DYNAMIC, STATIC)]
        cells = np.argwhere((columns[0] + columns[1]) > 0)
        if not len(cells):
            return np.inf, False
        points = (cells + first + 0.5) * grid.voxel + lower
        near = ((points > path.min(axis=0) - 3.0) & (points < path.max(axis=0) + 3.0)).all(axis=1)
        cells, points = cells[near], points[near]
        along, aside = _project(points, path, arc)
        users = columns[0][cells[:, 0], cells[:, 1]] > 0
        margin = np.where(users, c.margin, c.static_margin)
        # What stands before the ego itself counts too, for it turns towards the route only slowly.
        straight = (np.abs(points[:, 1]) < self.vehicle.width / 2 + 0.1) & (
            points[:, 0] < self.vehicle.front + 3
        )
        along = np.where(straight, points[:, 0], along)
        inside = (straight | (aside < self.vehicle.width / 2 + margin)) & (along > self.vehicle.front - 0.5)
        if not inside.any():
            return np.inf, False
        weight = (columns[0] + columns[1])[cells[:, 0], cells[:, 1]][inside]
        order = np.argsort(along[inside], kind="stable")
        enough = np.cumsum(weight[order]) >= c.min_voxels
        if not enough.any():
            return np.inf, False
        nearest = order[int(np.argmax(enough))]
        distance = along[inside][nearest] - grid.voxel / 2 - self.vehicle.front
        return float(max(distance, 0.0)), bool(users[inside][nearest])


def _project(points: np.ndarray, path: np.ndarray, arc: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Arc length along the path and distance aside, each (n,) [m], of points (n, 2); inf past the end."""
    start, edge = path[:-1], np.diff(path, axis=0)
    size = np.linalg.norm(edge, axis=1)
    keep = size > 1e-6
    start, edge, size, base = start[keep], edge[keep], size[keep], arc[:-1][keep]
    if not len(size):
        return np.zeros(len(points)), np.full(len(points), np.inf)
    t = ((points[:, None] - start) * edge).sum(axis=-1) / size**2  # (n, segments)
    past = t[:, -1] > 1.0
    t = np.clip(t, 0.0, 1.0)
    aside = np.linalg.norm(points[:, None] - (start + edge * t[..., None]), axis=-1)
    best = aside.argmin(axis=1)
    rows = np.arange(len(points))
    along = base[best] + t[rows, best] * size[best]
    return along, np.where(past & (best == len(size) - 1), np.inf, aside[rows, best])
