"""What a small learner sees: the road ahead straightened along the route, as distances to what is in the way.

Every number is computed from the observation alone and is about as large as 1. Distances are measured along strips
beside the route, each as wide as the car, so that a bend looks like a straight road and little needs to be learned.
"""

from __future__ import annotations

import numpy as np

from occsora_sim.agents.protocol import Observation
from occsora_sim.errors import ConfigurationError
from occsora_sim.grid import DRIVEABLE, DYNAMIC, FRAME_SECONDS, FREE, NUM_CLASSES, OCC3D, Grid
from occsora_sim.scoring.driving import OFF_ROAD
from occsora_sim.scoring.footprint import STATIC, obstacle_layers
from occsora_sim.vehicle import Vehicle

VERSION = 1
"""Of what the numbers mean; a policy says for which it was trained."""

STRIPS = (-4.5, -3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0, 4.5)
"""Where the middles of the strips lie, left of the route [m]."""

REACH, PITCH = 40.0, 0.4
"""How far along the route is looked [m], and how densely [m]."""

_BEHIND = 1.0  # strips beside the car begin at its rear bumper [m]
_HALF = 0.8  # half the width of a strip [m]
_ENOUGH = 2  # fewer voxels in a step along a strip are noise
_SEEN = ("road user", "static", "off road", "road user before")
_POINTS = range(1, 20, 2)  # of the route: every 4 m
_BENDS = ((0, 3), (2, 6), (5, 9), (8, 13), (12, 18))  # stretches of the route, by its points
_PURSUED = (5.0, 8.0, 12.0, 18.0)  # distances of points on the route [m]


_OWN = [index for index, middle in enumerate(STRIPS) if abs(middle) < 1.5]  # strips that the car drives in


def feature_count() -> int:
    """How many numbers `features` gives for an episode."""
    distances = len(STRIPS) * len(_SEEN) + 3  # and straight ahead
    return 6 + 2 * len(_POINTS) + 1 + 3 * len(_BENDS) + len(_PURSUED) + 2 * distances + 3 * len(_OWN)


def features(observation: Observation, grid: Grid = OCC3D, vehicle: Vehicle | None = None) -> np.ndarray:
    """The numbers (n, feature_count()) float32 of n episodes.

    Of the ego its speed, acceleration, yaw rate and steering; of the route its points every 4 m, its heading, of five
    stretches the turn, the largest curvature and the speed that it allows, and the steering that leads through points
    at four distances; of each strip how far it is free of road users, of what stands, of ground where no car belongs,
    and how far it was free of road users a frame before, each as a distance and as a nearness; the same straight ahead;
    and of the strips that the car drives in the speed of what is ahead, the time to it, and the braking to keep clear.

    Args:
        observation: occupancy (n, f, x, y, z), ego (n, 4), route (n, 20, 2).
        grid: of the occupancy.
        vehicle: its size.

    Raises:
        ConfigurationError: the occupancy is of another grid.

    """
    occupancy = observation["occupancy"]
    if occupancy.shape[2:] != grid.shape:
        raise ConfigurationError(
            f"learned policy: made for a grid of {grid.shape}, observed {occupancy.shape[2:]}; pass grid=world.grid"
        )
    car = vehicle or Vehicle()
    rows = zip(occupancy, observation["ego"], observation["route"], strict=True)
    return np.stack(
        [
            _row(frames, ego.astype(np.float64), route.astype(np.float64), grid, car)
            for frames, ego, route in rows
        ]
    ).astype(np.float32)


def mirrored(observation: Observation) -> Observation:
    """The same situations with left and right exchanged; the grid must lie evenly on both sides."""
    sign = np.array([1.0, -1.0], dtype=np.float32)
    return {
        "occupancy": observation["occupancy"][:, :, :, ::-1],
        "ego": observation["ego"] * np.array([1.0, 1.0, -1.0, -1.0], dtype=np.float32),
        "route": observation["route"] * sign,
    }


def _row(frames: np.ndarray, ego: np.ndarray, route: np.ndarray, grid: Grid, car: Vehicle) -> np.ndarray:
    speed = max(ego[0], 0.0)
    before = frames[-2] if len(frames) > 1 else frames[-1]
    lattice, ahead = _lattice(route, car)
    here = _blocked(frames[-1], lattice, grid)  # (3, s, d)
    straight = _blocked(frames[-1], ahead, grid)
    past = _blocked(before, _as_before(lattice, ego), grid)[:1]
    free = _free(np.concatenate((here, past)), car)  # (4, strips)
    far = np.concatenate((free.ravel(), _free(straight, car, once=True).ravel()))
    parts = (
        [speed / 10.0, (speed / 10.0) ** 2, ego[1] / 4.0, ego[2] * 2.0, ego[3] * 2.0, float(speed < 0.5)],
        (route[list(_POINTS)] / (20.0, 10.0)).ravel(),
        _bends(route, speed),
        _pursuit(route, car),
        far / REACH,
        3.0 / (3.0 + far),
        _leaders(free[:, _OWN], speed),
    )
    return np.concatenate([np.asarray(part, dtype=np.float64) for part in parts])


def _bends(route: np.ndarray, speed: float) -> np.ndarray:
    """Heading of the route; then of each stretch turn [rad], curvature [1 / 10 m], and how much faster it allows."""
    edge = np.diff(route, axis=0)
    size = np.linalg.norm(edge, axis=1)
    heading = np.zeros(len(edge))
    moving = size > 0.5
    if moving.any():
        heading[moving] = np.unwrap(np.arctan2(edge[moving, 1], edge[moving, 0]))
        last = np.maximum.accumulate(np.where(moving, np.arange(len(edge)), -1))
        heading = heading[np.maximum(last, np.flatnonzero(moving)[0])]  # past the goal: as it was
    curvature = np.abs(np.diff(heading)) / 2.0
    largest = np.array([curvature[begin:end].max() for begin, end in _BENDS])
    turns = [heading[end] - heading[begin] for begin, end in _BENDS]
    allowed = np.sqrt(2.0 / np.maximum(largest, 0.01))  # at 2 m/s2 to the side; 14 m/s where straight
    return np.concatenate(([heading[0]], turns, 10.0 * largest, (allowed - speed) / 10.0))


def _pursuit(route: np.ndarray, car: Vehicle) -> np.ndarray:
    """Steering, of the largest, of the arcs through points of the route (pure pursuit, Coulter 1992)."""
    path = np.concatenate((np.zeros((1, 2)), route))
    arc = np.concatenate(([0.0], np.cumsum(np.linalg.norm(np.diff(path, axis=0), axis=1))))
    target = np.stack([np.interp(_PURSUED, arc, path[:, axis]) for axis in (0, 1)], axis=-1)
    curvature = 2 * target[:, 1] / np.maximum((target**2).sum(axis=-1), 1.0)
    return np.clip(np.arctan(car.wheelbase * curvature) / car.max_steering, -1.0, 1.0)


def _leaders(free: np.ndarray, speed: float) -> np.ndarray:
    """Of what is next in each strip: its speed [10 m/s], the time to it [5 s], the braking that keeps clear [8 m/s2].

    `free` (4, strips) [m] as in _SEEN; what stands has speed 0, and so has a road user that was not seen before.
    """
    user, static, _, before = free
    gap = np.maximum(np.minimum(user, static), 0.0)
    known = (user < REACH) & (before < REACH)
    leader = np.where(known, np.clip((user - before) / FRAME_SECONDS, 0.0, 20.0), 0.0)
    leader = np.where(static < user, 0.0, leader)
    closing = np.maximum(speed - leader, 0.0)
    clear = gap >= REACH
    need = np.where(clear, 0.0, np.minimum(closing**2 / (2 * np.maximum(gap - 1.0, 0.1)), 8.0) / 8.0)
    time = np.where(clear, 1.0, np.minimum(gap / max(speed, 0.5), 5.0) / 5.0)
    return np.concatenate((np.where(clear, 1.5, leader / 10.0), time, need))


def _lattice(route: np.ndarray, car: Vehicle) -> tuple[np.ndarray, np.ndarray]:
    """Points (s, d, 2) [m] along and beside the route, d all strips' columns; and (s, 5, 2) straight ahead."""
    path = np.concatenate((np.zeros((1, 2)), route))
    arc = np.concatenate(([0.0], np.cumsum(np.linalg.norm(np.diff(path, axis=0), axis=1))))
    path, arc = path[np.r_[True, np.diff(arc) > 1e-6]], arc[np.r_[True, np.diff(arc) > 1e-6]]
    along = np.arange(-_BEHIND, REACH, PITCH) + PITCH / 2
    columns = (np.asarray(STRIPS)[:, None] + np.arange(-2, 3) * PITCH).ravel()  # five columns a strip
    if len(path) < 2:
        path, arc = np.array([[0.0, 0.0], [1.0, 0.0]]), np.array([0.0, 1.0])
    beyond = np.maximum(along - arc[-1], 0.0) + np.minimum(along, 0.0)
    place = np.clip(along, 0.0, arc[-1])
    middle = np.stack([np.interp(place, arc, path[:, axis]) for axis in (0, 1)], axis=-1)
    edge = np.diff(path, axis=0) / np.diff(arc)[:, None]
    ahead = edge[np.clip(np.searchsorted(arc, place, side="right") - 1, 0, len(edge) - 1)]
    ahead = np.where((along < 0)[:, None], np.array([1.0, 0.0]), ahead)
    middle = middle + beyond[:, None] * ahead
    left = np.stack((-ahead[:, 1], ahead[:, 0]), axis=-1)
    points = middle[:, None] + columns[None, :, None] * left[:, None]
    forward = np.stack(np.meshgrid(along, np.arange(-2, 3) * PITCH, indexing="ij"), axis=-1)
    return points, forward


def _as_before(points: np.ndarray, ego: np.ndarray) -> np.ndarray:
    """Points of the present ego frame in that of the frame before, by the ego's mean motion in between."""
    turn = ego[2] * FRAME_SECONDS
    moved = max(ego[0] - ego[1] * FRAME_SECONDS / 2, 0.0) * FRAME_SECONDS
    cos, sin = np.cos(turn), np.sin(turn)
    turned = points @ np.array([[cos, sin], [-sin, cos]])
    return turned + moved * np.array([np.cos(turn / 2), np.sin(turn / 2)])


_CODE = np.zeros(NUM_CLASSES + 1, dtype=np.uint8)  # 1: road user, 2: static
_CODE[list(DYNAMIC)], _CODE[list(STATIC)] = 1, 2
_OFF = np.zeros(NUM_CLASSES + 1, dtype=bool)
_OFF[list(OFF_ROAD)] = True
_OFF[DRIVEABLE] = False


def _blocked(frame: np.ndarray, points: np.ndarray, grid: Grid) -> np.ndarray:
    """Whether road user, static obstacle, off-road ground is at each of the steps: (3, s, strips) bool.

    `frame` (x, y, z) uint8, `points` (s, 5 strips, 2) [m]; outside the grid nothing is.
    """
    index = np.floor((points - np.array(grid.lower[:2])) / grid.voxel).astype(np.int64)
    size = np.array(grid.shape[:2])
    inside = ((index >= 0) & (index < size)).all(axis=-1)
    index = np.clip(index, 0, size - 1)
    columns = frame[index[..., 0], index[..., 1]]  # (s, d, z)
    columns = np.where(inside[..., None], columns, np.uint8(FREE))
    code = _CODE[columns[..., obstacle_layers(grid)]]
    found = np.stack(
        [
            (code == 1).sum(axis=-1),
            (code == 2).sum(axis=-1),
            _ENOUGH * _OFF[columns[..., grid.ground]],
        ]
    )  # (3, s, d)
    return found.reshape(*found.shape[:2], -1, 5).sum(axis=-1) >= _ENOUGH


def _free(blocked: np.ndarray, car: Vehicle, once: bool = False) -> np.ndarray:
    """Distance [m] from the front bumper to the first blocked step, (c, strips) of (c, s, strips); REACH if none.

    In strips that the car's own body fills it is counted from the front bumper on; beside it from the rear on, and is
    then negative where something is next to it. `once`: the only strip is the body's.
    """
    along = np.arange(-_BEHIND, REACH, PITCH) + PITCH / 2
    middles = np.zeros(1) if once else np.asarray(STRIPS)
    own = np.abs(middles) < car.width / 2 + _HALF
    visible = (along[:, None] > car.front - 0.5) | ~own
    hit = blocked & visible
    first = along[hit.argmax(axis=1)] - car.front
    return np.where(hit.any(axis=1), np.minimum(first, REACH), REACH)
