"""What happens in a simulation besides its traffic, at the ego's approach: somebody brakes, cuts in, runs a red light.

Events are plain JSON objects, so that a scene can hold them: `kind`, `who`, and

    when: {"after": simulated time [s], "ego": vehicle, "near": [x, y] [m], "metres": m}, the last three optional:
          from that time on, once the ego is that near.

and what else the kind needs, named in its class. Imported by the SUMO process: neither torch nor numpy here.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

HIDDEN = "_"
"""Names of vehicles that are not shown begin like this: what stands there is in the scene already."""

_FREE_SPEED, _ALL_CHECKS = -1, 31  # SUMO's defaults: of its own will, heeding everything
_HARD = 27  # may brake harder than it likes
_NO_LIGHTS = 7  # heeds neither lights nor who has priority
_FORCED = 256  # changes lanes when told, short of a collision
_ANYWHERE, _LANES_FOR_CARS = 2, 4  # of a walker's keepRoute


class Script:
    """Events on their way through a simulation.

    Each kind is a generator: it is asked once before every step, does its part, and ends when the event is over.

    Args:
        sumo: libsumo.
        events: the events.
        step: of the simulation [s].

    """

    def __init__(self, sumo: Any, events: Sequence[dict[str, Any]], step: float) -> None:
        self._sumo, self._step = sumo, step
        kinds: dict[str, Callable[..., Iterator[None]]] = {
            "block": self._block,
            "brake": self._brake,
            "cut_in": self._cut_in,
            "run_red": self._run_red,
            "walk": self._walk,
        }
        self._running = [kinds[event["kind"]](event) for event in events]

    def advance(self) -> None:
        """Do what is due before the next step."""
        self._running = [part for part in self._running if next(part, self) is not self]

    def _due(self, when: dict[str, Any]) -> bool:
        if self._sumo.simulation.getTime() < when["after"] - 1e-6:
            return False
        if "near" not in when:
            return True
        vehicle = self._sumo.vehicle
        if when["ego"] not in vehicle.getIDList():
            return False
        return math.dist(vehicle.getPosition(when["ego"]), when["near"]) <= when["metres"]

    def _seconds(self, seconds: float) -> range:
        return range(max(1, round(seconds / self._step)))

    def _there(self, who: str) -> bool:
        return who in self._sumo.vehicle.getIDList()

    def _block(self, event: dict[str, Any]) -> Iterator[None]:
        """A part of a lane is closed: something stands there, from `edge` and `lane`, `length` [m] up to `end` [m]."""
        vehicle, who = self._sumo.vehicle, event["who"]
        while not self._due(event["when"]):
            yield
        self._sumo.vehicletype.copy(event["type"], who)
        self._sumo.vehicletype.setLength(who, event["length"])
        self._sumo.route.add(who, [event["edge"]])
        lane, end = str(event["lane"]), str(event["end"])
        vehicle.add(who, who, typeID=who, departLane=lane, departPos=end, departSpeed="0")
        vehicle.setSpeed(who, 0.0)

    def _brake(self, event: dict[str, Any]) -> Iterator[None]:
        """`who` brakes to a stop with `deceleration` [m/s2] and waits there for `hold` [s]."""
        vehicle, who = self._sumo.vehicle, event["who"]
        while not self._due(event["when"]):
            yield
        if not self._there(who):
            return
        seconds = vehicle.getSpeed(who) / event["deceleration"]
        vehicle.setSpeedMode(who, _HARD)
        vehicle.slowDown(who, 0.0, seconds)
        for _ in self._seconds(seconds):
            yield
        if self._there(who):
            vehicle.setSpeed(who, 0.0)
        for _ in self._seconds(event["hold"]):
            yield
        if self._there(who):
            vehicle.setSpeedMode(who, _ALL_CHECKS)
            vehicle.setSpeed(who, _FREE_SPEED)

    def _cut_in(self, event: dict[str, Any]) -> Iterator[None]:
        """`who` changes to the lane of index `lane` and goes at `speed` [m/s] for `seconds`."""
        vehicle, who = self._sumo.vehicle, event["who"]
        while not self._due(event["when"]):
            yield
        if not self._there(who):
            return
        mode = vehicle.getLaneChangeMode(who)
        vehicle.setLaneChangeMode(who, _FORCED)
        vehicle.changeLane(who, event["lane"], event["seconds"])
        vehicle.setSpeed(who, event["speed"])
        for _ in self._seconds(event["seconds"]):
            yield
        if self._there(who):
            vehicle.setLaneChangeMode(who, mode)
            vehicle.setSpeed(who, _FREE_SPEED)

    def _run_red(self, event: dict[str, Any]) -> Iterator[None]:
        """`who`, of vType `type`, comes along `edges` at `speed` [m/s] from `lane` and `position` [m], light or not."""
        vehicle, who = self._sumo.vehicle, event["who"]
        while not self._due(event["when"]):
            yield
        self._sumo.route.add(who, event["edges"])
        lane, position, speed = (str(event[name]) for name in ("lane", "position", "speed"))
        vehicle.add(who, who, typeID=event["type"], departLane=lane, departPos=position, departSpeed=speed)
        vehicle.setSpeedMode(who, _NO_LIGHTS)
        for _ in self._seconds(8.0):
            yield
        if self._there(who):
            vehicle.setSpeedMode(who, _ALL_CHECKS)

    def _walk(self, event: dict[str, Any]) -> Iterator[None]:
        """`who`, of vType `type`, stands at `points[0]`, and when it is time walks along `points` at `speed` [m/s]."""
        person, who, points = self._sumo.person, event["who"], event["points"]
        person.add(who, event["edge"], event["position"], typeID=event["type"])
        person.appendWaitingStage(who, 1e6)

        def place(x: float, y: float, angle: float) -> None:
            if who in person.getIDList():
                person.moveToXY(who, "", x, y, angle, _ANYWHERE | _LANES_FOR_CARS)

        while not self._due(event["when"]):
            place(points[0][0], points[0][1], _bearing(points[0], points[1]))
            yield
        for here, there in itertools.pairwise(points):
            steps = max(1, round(math.dist(here, there) / event["speed"] / self._step))
            for part in range(1, steps + 1):
                x, y = (a + (b - a) * part / steps for a, b in zip(here, there, strict=True))
                place(x, y, _bearing(here, there))
                yield
        if who in person.getIDList():
            person.removeStages(who)


def _bearing(here: Sequence[float], there: Sequence[float]) -> float:
    """SUMO's angle [degrees, clockwise from north] of the way between two points."""
    return math.degrees(math.atan2(there[0] - here[0], there[1] - here[1])) % 360.0
