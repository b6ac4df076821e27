"""Where something could happen to somebody: drafts of events, found in a film of undisturbed traffic.

Each function of `DRAFTS` looks for chances in a film, in an order drawn from a seed; each function of `PLAYED` tells
from a second film, made with a draft's events, whether it came off.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from occsora_sim import grid
from occsora_sim.scenes.dressing import Standing
from occsora_sim.scenes.stage import Film

BEFORE, AFTER = 8.0, 8.5
"""An ego motion lasts from this long before its moment to this long after it [s]."""

_ADDED = "9000"  # in the names of road users that a draft brings along


@dataclass(frozen=True, kw_only=True)
class Draft:
    """Something that could happen.

    Attributes:
        events: for the simulation; see `sumo_events`.
        ego: name of the vehicle that it happens to; "" if the second film decides.
        moment: when, by the clock of the scene [s].
        standing: what stands there still.
        other: name of who does it, if anybody does.
        place: where (2,) [m].

    """

    events: list[dict[str, Any]]
    ego: str = ""
    moment: float = 0.0
    standing: tuple[Standing, ...] = ()
    other: str = ""
    place: tuple[float, float] = (0.0, 0.0)


def _cars(film: Film, rng: np.random.Generator, speed: float) -> Iterator[tuple[int, int]]:
    """Moments (car, step) at which a car drives at `speed` [m/s] or more on a street, in random order."""
    dt, steps = film.config.dt, film.valid.shape[1]
    label = film.tracks["track_class"][: len(film.speed)]
    first, last = round(BEFORE / dt), steps - round(AFTER / dt)
    able = (label == grid.CAR)[:, None] & film.valid & (film.speed >= speed)
    for step in range(steps):
        begin, end = step - round(BEFORE / dt), step + round(AFTER / dt)
        able[:, step] &= film.valid[:, max(begin, 0) : end].all(axis=1) if first <= step < last else False
    for who, step in rng.permutation(np.argwhere(able)):
        if not film.lane(who, step).startswith(":"):
            yield int(who), int(step)


def _clock(film: Film, step: int) -> float:
    """The simulated time of a step [s]."""
    return film.config.warm_up + step * film.config.dt


def _hard_braking(film: Film, rng: np.random.Generator) -> Iterator[Draft]:
    """The car ahead brakes hard, to a stop."""
    for ego, step in _cars(film, rng, 6.0):
        ahead, left, turn = film.seen_from(ego, step)
        near = (ahead > 9) & (ahead < 22) & (abs(left) < 1) & (abs(turn) < 0.15) & (film.speed[:, step] > 6)
        for other in np.flatnonzero(near).tolist():
            if film.lane(other, step) == film.lane(ego, step):
                who, when = film.recording.names[other], {"after": _clock(film, step)}
                event = {"kind": "brake", "who": who, "when": when, "deceleration": 6.5, "hold": 2.5}
                name, moment = film.recording.names[ego], step * film.config.dt
                yield Draft(events=[event], ego=name, moment=moment, other=who)


def _cut_in(film: Film, rng: np.random.Generator) -> Iterator[Draft]:
    """A car from the lane beside moves in front of the ego, close, and slows down."""
    for ego, step in _cars(film, rng, 6.0):
        edge, _, lane = film.lane(ego, step).rpartition("_")
        ahead, left, turn = film.seen_from(ego, step)
        near = (ahead > 7) & (ahead < 12) & (abs(abs(left) - 3.3) < 1) & (abs(turn) < 0.1)
        for other in np.flatnonzero(near & (abs(film.speed[:, step] - film.speed[ego, step]) < 3)).tolist():
            if film.lane(other, step).rpartition("_")[0] != edge or film.lane(other, step + 6)[:1] in (
                ":",
                "",
            ):
                continue
            who, speed = film.recording.names[other], max(4.0, float(film.speed[ego, step]) - 3.0)
            event = {"kind": "cut_in", "who": who, "when": {"after": _clock(film, step)}, "lane": int(lane)}
            event |= {"speed": round(speed, 2), "seconds": 4.0}
            name, moment = film.recording.names[ego], step * film.config.dt
            yield Draft(events=[event], ego=name, moment=moment, other=who)


def _jaywalker(film: Film, rng: np.random.Generator) -> Iterator[Draft]:
    """A pedestrian crosses the street in front of the ego, where there is no crossing."""
    dt = film.config.dt
    for ego, step in _cars(film, rng, 5.5):
        edge = film.lane(ego, step).rpartition("_")[0]
        pavement = film.network.lanes[film.network.edges[edge][0]]
        path = film.pose[ego, step : step + round(AFTER / dt)]
        metres = np.linalg.norm(path[:, :2] - path[0, :2], axis=1)
        there = int((metres > 27).argmax())
        ahead, left, _ = film.seen_from(ego, step)
        free = not ((ahead > 4) & (ahead < 45) & (abs(left) < 1.8)).any()
        if not free or pavement.kind != "sidewalk" or not there or metres[there] > 34:
            continue
        if film.lane(ego, step + there).rpartition("_")[0] != edge or abs(path[there, 2] - path[0, 2]) > 0.12:
            continue
        place = path[there, :2]
        fine = _fine(pavement.shape)
        nearest = int(np.linalg.norm(fine - place, axis=1).argmin())
        across = place - fine[nearest]
        width = float(np.linalg.norm(across))
        if not 2.0 < width < 9.0 or not 8 < nearest < len(fine) - 8:
            continue
        across /= width
        start, end = place - across * width, place + across * 7.0
        speed = float(rng.uniform(1.4, 1.9))
        metres_away = float(film.speed[ego, step]) * (width - 0.6) / speed
        when = {"after": _clock(film, step) - 3.0, "ego": film.recording.names[ego], "near": place.tolist()}
        event = {
            "kind": "walk", "who": f"pedestrian{_ADDED}", "type": f"pedestrian.{rng.integers(6)}", "edge": edge,
            "position": float(nearest), "points": [start.tolist(), end.tolist()], "speed": round(speed, 2),
            "when": when | {"metres": round(min(max(metres_away, 12.0), 30.0), 1)},
        }  # fmt: skip
        yield Draft(
            events=[event], ego=film.recording.names[ego], moment=(step + 1) * dt, other=str(event["who"]),
            place=(float(place[0]), float(place[1])),
        )  # fmt: skip


def _red_light_runner(film: Film, rng: np.random.Generator) -> Iterator[Draft]:
    """A car comes out of a side street and crosses in front of the ego, although its light is red."""
    network, dt = film.network, film.config.dt
    for ego, step in _cars(film, rng, 5.0):
        soon = range(step, min(step + round(6 / dt), film.valid.shape[1]))
        inside = [k for k in soon if film.lane(ego, k).startswith(":")]
        if (
            not inside
            or film.lane(ego, inside[0])[1:].rpartition("_")[0].rpartition("_")[0] not in network.lights
        ):
            continue
        junction = film.lane(ego, inside[0])[1:].rpartition("_")[0].rpartition("_")[0]
        path = film.pose[ego, step : inside[-1] + 3, :2]
        for start, (_, end) in network.ends.items():
            if end != junction or start == film.lane(ego, step).rpartition("_")[0]:
                continue
            for target, letter in network.turns.get(start, []):
                inner = _through(film, start, target) if letter == "s" else None
                crossing = _crossing(path, inner[1]) if inner is not None else None
                if inner is None or crossing is None:
                    continue
                name, line = inner
                lane = network.lanes[name]
                length = float(np.linalg.norm(np.diff(lane.shape, axis=0), axis=1).sum())
                inwards = float(np.linalg.norm(crossing - line[0]))
                speed, run = 11.0, 38.0
                position = length - (run - inwards)
                if position < 5 or _occupied(film, name, position - 12, range(step, inside[-1])):
                    continue
                when = {
                    "after": _clock(film, step) - 4.0, "ego": film.recording.names[ego],
                    "near": crossing.tolist(), "metres": round(float(film.speed[ego, step]) * (run / speed + 0.9), 1),
                }  # fmt: skip
                event = {
                    "kind": "run_red", "who": f"car{_ADDED}", "type": f"car.{rng.integers(6)}", "when": when,
                    "edges": [start, target], "lane": int(name.rpartition("_")[2]), "position": round(position, 2),
                    "speed": speed,
                }  # fmt: skip
                yield Draft(
                    events=[event], ego=film.recording.names[ego], moment=step * dt + 1.0, other=str(event["who"]),
                    place=(float(crossing[0]), float(crossing[1])),
                )  # fmt: skip


def _construction_site(film: Film, rng: np.random.Generator) -> Iterator[Draft]:
    """Works close the right lane of a wide road: cones, a barrier, a digger, a trailer."""
    network = film.network
    for edge in rng.permutation(sorted(network.edges)):
        lanes = [network.lanes[name] for name in network.edges[edge]]
        driven = [index for index, lane in enumerate(lanes) if lane.kind == "drive"]
        if len(driven) < 2:
            continue
        line = _fine(lanes[driven[0]].shape)
        if len(line) < 66:
            continue
        end = int(rng.integers(50, len(line) - 14))
        length, taper, half = 27.0, 12.0, lanes[driven[0]].width / 2

        def at(station: float, left: float, line: np.ndarray = line) -> tuple[np.ndarray, float]:
            here = line[int(np.clip(round(station), 0, len(line) - 2))]
            along = line[int(np.clip(round(station), 0, len(line) - 2)) + 1] - here
            along = along / np.linalg.norm(along)
            return here + left * np.array([-along[1], along[0]]), float(np.arctan2(along[1], along[0]))

        def put(station: float, left: float, size: tuple[float, float, float], label: int) -> Standing:
            centre, yaw = at(station, left)
            return Standing(centre=centre, yaw=yaw, size=size, label=label)

        cone = (0.5, 0.5, 0.9)
        boxes = [
            put(end - length - taper + 3 * k, -half + 2 * half * k / 4, cone, grid.TRAFFIC_CONE)
            for k in range(4)
        ]
        boxes += [put(end - length + 3 * k, half - 0.1, cone, grid.TRAFFIC_CONE) for k in range(10)]
        boxes += [
            put(end - length + 1, -0.3, (0.5, 2.4, 1.1), grid.BARRIER),
            put(end - 17, -0.2, (6.2, 2.4, 3.0), grid.CONSTRUCTION_VEHICLE),
            put(end - 8, -0.2, (6.0, 2.4, 2.8), grid.TRAILER),
        ]
        event = {  # who must wait does so before the first cone
            "kind": "block", "who": "_site", "type": "truck.0", "when": {"after": 0.0}, "edge": str(edge),
            "lane": driven[0], "length": length + taper + 0.5, "end": float(end),
        }  # fmt: skip
        place = at(end - length, 0.0)[0]
        yield Draft(
            events=[event], standing=tuple(boxes), place=(float(place[0]), float(place[1])), other=str(edge)
        )


DRAFTS: dict[str, Callable[[Film, np.random.Generator], Iterator[Draft]]] = {
    "construction_site": _construction_site,
    "cut_in": _cut_in,
    "hard_braking": _hard_braking,
    "jaywalker": _jaywalker,
    "red_light_runner": _red_light_runner,
}


def played(name: str, film: Film, draft: Draft) -> tuple[str, float] | None:
    """Who met with it and when [s], told from a film made with the draft's events; None if it did not come off."""
    if name == "construction_site":
        return _passes_by(film, draft)
    names = film.recording.names
    if draft.ego not in names or draft.other not in names:
        return None
    dt, ego, other = film.config.dt, names.index(draft.ego), names.index(draft.other)
    step = round(draft.moment / dt)
    soon = range(step, min(step + round(7 / dt), film.valid.shape[1]))
    seen = np.array([[value[other] for value in film.seen_from(ego, k)[:2]] for k in soon])
    slowed = float(film.speed[ego, step] - film.speed[ego, list(soon)].min())
    if name == "hard_braking":
        came_off = film.speed[other, list(soon)].min() < 0.5 and slowed > 2.5
    elif name == "cut_in":
        came_off = bool(((abs(seen[:, 1]) < 1.0) & (seen[:, 0] > 4) & (seen[:, 0] < 25)).any())
    else:  # somebody crosses the ego's way, near
        ahead = seen[(seen[:, 0] > 0) & (seen[:, 0] < 28)]
        came_off = len(ahead) > 1 and ahead[:, 1].min() < -0.5 and ahead[:, 1].max() > 0.5
    return (draft.ego, draft.moment) if came_off else None


def _passes_by(film: Film, draft: Draft) -> tuple[str, float] | None:
    """The first car that changes from the closed lane and passes the works."""
    closed = f"{draft.other}_{draft.events[0]['lane']}"
    rng = np.random.default_rng(0)
    found = sorted((step, who) for who, step in _cars(film, rng, 1.0) if film.lane(who, step) == closed)
    for step, who in found:
        ahead = np.array(draft.place) - film.pose[who, step, :2]
        later = film.lane(who, min(step + round(5 / film.config.dt), film.valid.shape[1] - 1))
        if 15 < np.linalg.norm(ahead) < 40 and later.rpartition("_")[0] == draft.other and later != closed:
            return film.recording.names[who], step * film.config.dt
    return None


def _fine(shape: np.ndarray) -> np.ndarray:
    """A line (n, 2) with a point every metre."""
    station = np.concatenate(([0.0], np.cumsum(np.linalg.norm(np.diff(shape, axis=0), axis=1))))
    at = np.arange(0.0, station[-1], 1.0)
    return np.stack([np.interp(at, station, shape[:, k]) for k in range(2)], -1)


def _through(film: Film, start: str, target: str) -> tuple[str, np.ndarray] | None:
    """A lane of the edge `start` and the line (n, 2) from its end through the junction to the edge `target`."""
    network = film.network
    for name in network.edges[start]:
        for link in network.links.get(name, []):
            line, here = [network.lanes[name].shape[-1:]], link
            while network.lanes[here].internal and network.links.get(here):
                line.append(network.lanes[here].shape)
                here = network.links[here][0]
            if network.lanes[here].edge == target:
                return name, np.concatenate(line)
    return None


def _crossing(one: np.ndarray, two: np.ndarray) -> np.ndarray | None:
    """Where two lines (n, 2) and (m, 2) cross first, or None."""
    for a, b in pairwise(one):
        for c, d in pairwise(two):
            u, v, w = b - a, d - c, c - a
            turn = u[0] * v[1] - u[1] * v[0]
            if abs(turn) < 0.3 * np.linalg.norm(u) * np.linalg.norm(v) or abs(turn) < 1e-9:
                continue
            s, t = (w[0] * v[1] - w[1] * v[0]) / turn, (w[0] * u[1] - w[1] * u[0]) / turn
            if 0 <= s <= 1 and 0 <= t <= 1:
                return np.asarray(a + s * u)
    return None


def _occupied(film: Film, lane: str, beyond: float, steps: range) -> bool:
    """Whether anybody is on a lane beyond a station [m] at any of the steps."""
    line = _fine(film.network.lanes[lane].shape)
    for step in steps:
        for name, theirs in film.lanes[step].items():
            if theirs == lane:
                front = film.recording.front[film.recording.names.index(name), step]
                if int(np.linalg.norm(line - front, axis=1).argmin()) > beyond:
                    return True
    return False
