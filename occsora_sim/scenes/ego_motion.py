"""Ego motions in recorded traffic: the vehicles' own, and what a worse driver would have done instead."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from occsora_sim import grid
from occsora_sim.errors import SceneError
from occsora_sim.scenes.demand import Recording
from occsora_sim.scenes.deviation import DEVIATIONS, STEP, Paths, draw_plan, drive
from occsora_sim.scenes.ground import Polygon, Raster, terrain_bounds
from occsora_sim.scenes.town import Network, TownConfig

REAR_AXLE = 0.30
"""Distance of the rear axle behind the box centre, as a share of the length."""

_EGO_SIZE = (4.084, 1.73)  # of the car that deviates: the default of vehicle.Vehicle
_EGO_CENTRE = 1.04  # of that car, ahead of its rear axle [m]
_EXTENSION = 150.0  # how far a route goes on beyond what was driven [m]


@dataclass(frozen=True, kw_only=True)
class Egos:
    """Ego motions: pose (e, T, 3), valid (e, T), track (e,), kind and route (r, 2) of each; as in `Scene`."""

    pose: np.ndarray
    valid: np.ndarray
    track: np.ndarray
    kind: tuple[str, ...]
    route: tuple[np.ndarray, ...]


def draw_egos(
    rng: np.random.Generator,
    config: TownConfig,
    network: Network,
    recording: Recording,
    tracks: dict[str, np.ndarray],
    polygons: list[Polygon],
) -> Egos:
    """Choose vehicles that drive for most of the recording, and deviate from some of them.

    Raises SceneError if nothing in the recording drives.
    """
    state = tracks["track_state"].astype(np.float64)
    valid, size, label = tracks["track_valid"], tracks["track_size"].astype(np.float64), tracks["track_class"]
    pose = rear_axles(tracks)
    count = len(recording.names)
    travelled = np.array(
        [np.linalg.norm(np.diff(pose[k, valid[k], :2], axis=0), axis=1).sum() for k in range(count)]
    )
    motor = np.isin(label[:count], (grid.CAR, grid.BUS, grid.TRUCK, grid.MOTORCYCLE))
    # Long in view and long on the way: both count, with some chance.
    merit = np.where(motor & (travelled > 15), valid[:count].mean(1) + np.minimum(travelled, 250) / 250, 0)
    merit = merit * rng.uniform(0.85, 1.0, count)
    order = [int(k) for k in np.argsort(-merit, kind="stable") if merit[k] > 0]
    if not order:
        raise SceneError("town: nothing drives in this recording; make it longer or its traffic denser")
    cars = [k for k in order if label[k] == grid.CAR] or order
    large = [k for k in order if label[k] != grid.CAR]
    experts = max(1, round(config.expert_share * config.egos))
    chosen = large[: max(1, experts // 4)]
    chosen = chosen + cars[: experts - len(chosen)]
    routes = {k: _route(network, recording, pose, valid, k) for k in dict.fromkeys(chosen + cars[:24])}
    rows = [(pose[k] * valid[k][:, None], valid[k], k, "expert", routes[k]) for k in chosen]
    wrong = config.egos - len(rows)
    if wrong > 0:
        raster = Raster(terrain_bounds(network))
        for polygon in polygons:
            if polygon.z[0] < 1.5 and polygon.z[1] > 0.3:
                raster.take(polygon.points)
        rows += _deviate(rng, config, network, cars[:24], wrong, routes, pose, valid, state, size, raster)
    return Egos(
        pose=np.stack([row[0] for row in rows]),
        valid=np.stack([row[1] for row in rows]),
        track=np.array([row[2] for row in rows]),
        kind=tuple(row[3] for row in rows),
        route=tuple(row[4] for row in rows),
    )


def rear_axles(tracks: dict[str, np.ndarray]) -> np.ndarray:
    """Poses (k, T, 3) of the tracks as an ego's: x, y [m] of the rear axle's centre, yaw [rad]."""
    state, size = tracks["track_state"].astype(np.float64), tracks["track_size"].astype(np.float64)
    heading = np.stack((np.cos(state[..., 2]), np.sin(state[..., 2])), -1)
    return np.concatenate((state[..., :2] - REAR_AXLE * size[:, None, :1] * heading, state[..., 2:3]), -1)


def follow(
    network: Network, recording: Recording, tracks: dict[str, np.ndarray], track: int, when: np.ndarray
) -> Egos:
    """The one ego motion that is a recorded vehicle's own, at the steps `when` (T,) bool."""
    pose, valid = rear_axles(tracks), tracks["track_valid"]
    return Egos(
        pose=(pose[track] * when[:, None])[None],
        valid=when[None],
        track=np.array([track]),
        kind=("expert",),
        route=(_route(network, recording, pose, valid, track),),
    )


def hits(tracks: dict[str, np.ndarray], track: int) -> np.ndarray:
    """Whether an ego car in place of a track is over 0.2 m deep in another box, at each step (T,)."""
    state, size = tracks["track_state"].astype(np.float64), tracks["track_size"].astype(np.float64)
    return _hits_box(rear_axles(tracks)[track], state, tracks["track_valid"], size, track)


def _deviate(
    rng: np.random.Generator,
    config: TownConfig,
    network: Network,
    cars: list[int],
    wanted: int,
    routes: dict[int, np.ndarray],
    pose: np.ndarray,
    valid: np.ndarray,
    state: np.ndarray,
    size: np.ndarray,
    raster: Raster,
) -> list[tuple[np.ndarray, np.ndarray, int, str, np.ndarray]]:
    """Let each car deviate in each way, and keep the motions that last longest before they hit something."""
    who = [k for k in cars for _ in DEVIATIONS]
    kinds = [kind for _ in cars for kind in DEVIATIONS]
    allowed = max(lane.speed for lane in network.lanes.values() if lane.kind == "drive")
    usual = 9.5 if allowed < 15 else 0.8 * allowed  # [m/s]
    driven_by = [(pose[k, valid[k]], config.dt) for k in cars]
    paths = _paths([_fine(routes[k]) for k in cars], driven_by, len(DEVIATIONS), usual)
    plan = draw_plan(rng, kinds, round(pose.shape[1] * config.dt / STEP))
    begin = np.array([int(valid[k].argmax()) for k in who])
    speed = np.array([np.linalg.norm(state[k, b, 3:5]) for k, b in zip(who, begin, strict=True)])
    driven, alive = drive(paths, plan, speed, begin, state, valid, size, np.array(who), config.dt)
    driven[..., 2] = (driven[..., 2] + np.pi) % (2 * np.pi) - np.pi
    for row, k in enumerate(who):
        hit = alive[row] & (_hits_box(driven[row], state, valid, size, k) | _hits_wall(driven[row], raster))
        if hit.any():
            alive[row, hit.argmax() :] = False
    lasting = alive.sum(1) * rng.uniform(0.8, 1.0, len(who))
    used: dict[int, int] = {}
    rows = []
    for number in range(wanted):
        kind = DEVIATIONS[number % len(DEVIATIONS)]
        mine = [r for r in range(len(who)) if kinds[r] == kind and lasting[r] > 0]
        if not mine:
            continue
        # Long motions first, but not all from the same few cars.
        best = max(mine, key=lambda r: lasting[r] / (1 + used.get(who[r], 0)))
        used[who[best]] = used.get(who[best], 0) + 1
        lasting[best] = 0
        rows.append((driven[best] * alive[best][:, None], alive[best], who[best], kind, routes[who[best]]))
    return rows


def _hits_box(
    motion: np.ndarray, state: np.ndarray, valid: np.ndarray, size: np.ndarray, own: int
) -> np.ndarray:
    """Whether the ego (T, 3) is over 0.2 m deep in another box, at each step (separating axes)."""
    heading = np.stack((np.cos(motion[:, 2]), np.sin(motion[:, 2])), -1)
    centre = motion[:, :2] + _EGO_CENTRE * heading
    delta = state[..., :2] - centre  # (k, T, 2)
    near = valid & ((delta**2).sum(-1) < ((size[:, :1] + _EGO_SIZE[0]) / 2 + 1.0) ** 2)
    near[own] = False
    k, t = np.nonzero(near)
    d, turn = delta[k, t], state[k, t, 2] - motion[t, 2]
    cos, sin = np.abs(np.cos(turn)), np.abs(np.sin(turn))
    yours = np.stack((np.cos(state[k, t, 2]), np.sin(state[k, t, 2])), -1)
    length, width = size[k, 0] / 2, size[k, 1] / 2
    own_length, own_width = _EGO_SIZE[0] / 2 - 0.2, _EGO_SIZE[1] / 2 - 0.2
    apart = np.zeros(len(k), dtype=bool)
    for axis, mine, other in (
        (heading[t], own_length, cos * length + sin * width),
        (np.stack((-heading[t][:, 1], heading[t][:, 0]), -1), own_width, sin * length + cos * width),
        (yours, cos * own_length + sin * own_width, length),
        (np.stack((-yours[:, 1], yours[:, 0]), -1), sin * own_length + cos * own_width, width),
    ):
        apart |= np.abs((d * axis).sum(-1)) > mine + other
    hit = np.zeros(len(motion), dtype=bool)
    hit[t[~apart]] = True
    return hit


def _hits_wall(motion: np.ndarray, raster: Raster) -> np.ndarray:
    """Whether the ego at (T, 3) touches something solid of the map, at each step."""
    ahead, aside = np.meshgrid(np.linspace(-1.0, 3.0, 5), np.linspace(-0.7, 0.7, 3))
    cos, sin = np.cos(motion[:, 2, None]), np.sin(motion[:, 2, None])
    x = motion[:, :1] + cos * ahead.ravel() - sin * aside.ravel()
    y = motion[:, 1:2] + sin * ahead.ravel() + cos * aside.ravel()
    at = np.floor((np.stack((x, y), -1) - raster.lower) / raster.cell).astype(int)
    inside = ((at >= 0) & (at < raster.taken.shape[::-1])).all(-1)
    at = np.where(inside[..., None], at, 0)
    return np.asarray((raster.taken[at[..., 1], at[..., 0]] | ~inside).any(1))


def _route(network: Network, recording: Recording, pose: np.ndarray, valid: np.ndarray, k: int) -> np.ndarray:
    """The path of a vehicle's rear axle and its lanes beyond, about a point a metre, (r, 2) [m]."""
    driven = _curve(pose[k, valid[k]])
    beyond = _lanes_ahead(network, recording.lanes[k], recording.routes[k], recording.front[k, valid[k]][-1])
    return _resample(np.concatenate((driven, beyond)), 1.0)


def _curve(pose: np.ndarray) -> np.ndarray:
    """A smooth line through poses (n, 3): cubic Hermite pieces along the yaws; standstill left out."""
    keep = [0]
    for i in range(1, len(pose)):
        if np.linalg.norm(pose[i, :2] - pose[keep[-1], :2]) > 0.5:
            keep.append(i)
    pose = pose[keep]
    if len(pose) < 2:
        return np.asarray(pose[:, :2])
    tangent = np.stack((np.cos(pose[:, 2]), np.sin(pose[:, 2])), -1)
    a, b = pose[:-1, None, :2], pose[1:, None, :2]
    chord = np.linalg.norm(b - a, axis=-1, keepdims=True)
    s = np.linspace(0, 1, 8)[None, :-1, None]
    piece = (
        (2 * s**3 - 3 * s**2 + 1) * a
        + (s**3 - 2 * s**2 + s) * chord * tangent[:-1, None]
        + (-2 * s**3 + 3 * s**2) * b
        + (s**3 - s**2) * chord * tangent[1:, None]
    )
    return np.concatenate((piece.reshape(-1, 2), pose[-1:, :2]))


def _lanes_ahead(network: Network, name: str, route: tuple[str, ...], front: np.ndarray) -> np.ndarray:
    """Centre lines from `front` on, along the route's lanes, for `_EXTENSION` metres or to the town's end."""
    lane = network.lanes.get(name)
    if lane is None:
        return np.zeros((0, 2))
    fine = _resample(lane.shape, 1.0)
    nearest = int(((fine - front) ** 2).sum(1).argmin())
    # The lane begins beyond the front, far enough that the line from the rear axle to it bends gently.
    parts = [fine[nearest + 3 :]]
    metres = float(len(parts[0]))
    place = route.index(lane.edge) if lane.edge in route else -1
    while metres < _EXTENSION and network.links.get(name):
        options = network.links[name]
        if not network.lanes[name].internal and place >= 0 and place + 1 < len(route):
            towards = [o for o in options if _reaches(network, o) == route[place + 1]]
            options = towards or options
        name = options[0]
        edge = network.lanes[name].edge
        if not network.lanes[name].internal:
            place = place + 1 if 0 <= place < len(route) - 1 and route[place + 1] == edge else -1
            if place < 0 and edge in route:
                place = route.index(edge)
        parts.append(network.lanes[name].shape)
        metres += float(np.linalg.norm(np.diff(parts[-1], axis=0), axis=1).sum())
    return np.concatenate(parts)


def _reaches(network: Network, name: str) -> str:
    """The edge that an internal lane leads to."""
    while network.lanes[name].internal and network.links.get(name):
        name = network.links[name][0]
    return network.lanes[name].edge


def _resample(points: np.ndarray, spacing: float) -> np.ndarray:
    """The polyline (n, 2) with a point every `spacing` [m]."""
    step = np.linalg.norm(np.diff(points, axis=0), axis=1)
    keep = np.concatenate(([True], step > 1e-6))
    points = points[keep]
    station = np.concatenate(([0.0], np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))))
    at = np.linspace(0, station[-1], max(2, round(station[-1] / spacing) + 1))
    return np.stack([np.interp(at, station, points[:, k]) for k in range(2)], -1)


def _fine(route: np.ndarray) -> np.ndarray:
    return _resample(route, 0.5)


def _paths(
    lines: list[np.ndarray], driven: list[tuple[np.ndarray, float]], repeat: int, usual: float
) -> Paths:
    """Reference paths of the deviating cars: the route with the speed that suits it, on a straight `usual` [m/s];
    each `repeat` times.
    """
    longest = max(len(line) for line in lines) + 1
    points, yaws, speeds = [], [], []
    for line, (pose, dt) in zip(lines, driven, strict=True):
        along = np.gradient(line, axis=0)
        yaw = np.unwrap(np.arctan2(along[:, 1], along[:, 0]))
        bend = np.abs(np.gradient(yaw)) / 0.5
        bend = np.convolve(np.pad(bend, 4, mode="edge"), np.ones(9) / 9, mode="valid")
        suits = np.clip(np.sqrt(2.2 / np.maximum(bend, 1e-3)), 2.5, usual)
        step = np.linalg.norm(np.diff(pose[:, :2], axis=0), axis=1)
        station = np.concatenate(([0.0], np.cumsum(step)))
        speed = np.interp(np.arange(len(line)) * 0.5, station, np.concatenate((step, step[-1:])) / dt)
        # Where the expert waited at a light the deviating car rolls on: half of what the bend allows.
        best = np.maximum(np.minimum(speed, suits * 1.3), suits * 0.55)
        best[int(station[-1] * 2) :] = suits[int(station[-1] * 2) :] * 0.85
        best = np.minimum.accumulate((best**2 + 2 * 2.0 * 0.5 * np.arange(len(best)))[::-1])[::-1]
        best = np.sqrt(np.maximum(best - 2 * 2.0 * 0.5 * np.arange(len(line)), 1.0))
        pad = longest - len(line)
        points.append(np.pad(line, ((0, pad), (0, 0)), mode="edge"))
        yaws.append(np.pad(yaw, (0, pad), mode="edge"))
        speeds.append(np.pad(best, (0, pad), mode="edge"))
    return Paths(
        points=np.repeat(np.stack(points), repeat, 0),
        yaw=np.repeat(np.stack(yaws), repeat, 0),
        speed=np.repeat(np.stack(speeds), repeat, 0),
        count=np.repeat(np.array([len(line) for line in lines]), repeat),
    )
