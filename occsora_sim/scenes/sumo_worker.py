"""A process that runs one SUMO simulation at a time: `python -m occsora_sim.scenes.sumo_worker`.

libsumo holds one simulation per process, so every live world needs a process of its own. Commands come on standard
input, answers go to standard output, one JSON object a line; the process ends when its input does.

It imports neither torch nor numpy: it starts in half a second and stays small.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import os
import sys
from collections.abc import Sequence
from typing import Any

from occsora_sim.scenes.sumo_events import HIDDEN, Script

STEP = 0.1
"""Step of the simulation [s]; `scenes.demand.STEP`."""

SUBSTEPS = 5
"""Steps in a frame of `grid.FRAME_SECONDS`."""

_ANY_LANE = 0  # keepRoute: on whichever lane is there; beside all of them (2) SUMO 1.28 crashes
_IN_LANE = 2.6  # a car this far from a lane's middle [m] is beside the lane

Pose = Sequence[float]
User = tuple[str, str, float, float, float]


class Simulation:
    """SUMO with at most one vehicle, the ego, under somebody's hand.

    Times are those of a recorded trace: the state of time t is the one that SUMO's trace calls t, which libsumo
    shows one step later.
    """

    def __init__(self) -> None:
        import libsumo

        self._sumo: Any = libsumo
        self._loaded = False
        self._ego, self._kind = "", ""
        self._size: Sequence[float] = ()
        self._front = 0.0
        self._track: list[Pose] = []
        self._script = Script(libsumo, (), STEP)

    def load(
        self, folder: str, options: Sequence[str], time: float, events: Sequence[dict[str, Any]] = ()
    ) -> None:
        """Begin anew and run freely until `time` [s]; `events` are those of `sumo_events`.

        The files that `options` name lie in `folder`, which becomes the process's own: SUMO takes names apart at
        commas and colons.
        """
        self.close()
        os.chdir(folder)
        self._sumo.start(["sumo", *options])
        self._loaded = True
        self._ego, self._track = "", []
        self._script = Script(self._sumo, events, STEP)
        self._run_until(time)

    def record(self, begin: float, end: float, period: float) -> dict[str, Any]:
        """Run on freely. Returns the road users every `period` [s] from `begin` up to before `end`, and the lane of
        each vehicle at each of these times.
        """
        frames, lanes = [], []
        for k in range(round((end - begin) / period)):
            self._run_until(begin + k * period)
            frames.append(self.users())
            lanes.append(
                {name: self._sumo.vehicle.getLaneID(name) for name in self._sumo.vehicle.getIDList()}
            )
        return {"frames": frames, "lanes": lanes}

    def users(self) -> list[User]:
        """Name, vType, middle of the front x, y [m] and angle [degrees, clockwise from north] of each road user.

        Rounded as SUMO rounds them in a trace, so that a live and a recorded frame are the same.
        """
        out = []
        for domain in (self._sumo.vehicle, self._sumo.person):
            for name in domain.getIDList():
                if name.startswith(HIDDEN):
                    continue
                x, y = domain.getPosition(name)[:2]
                angle = round(domain.getAngle(name), 4)
                out.append((name, domain.getTypeID(name), round(x, 4), round(y, 4), angle))
        return out

    def take(self, ego: str, size: Sequence[float], front: float, past: Sequence[Pose]) -> None:
        """Take the vehicle `ego` into the hand.

        Another of its name and route takes its place: one that SUMO had begun to lead into the next lane, and that is
        then moved by hand, crashes SUMO 1.28.

        Args:
            ego: its name.
            size: length, width, height [m] that it shall have from now on.
            front: its front bumper ahead of the poses [m].
            past: its last poses, the newest last.

        """
        self._ego, self._kind = ego, self._sumo.vehicle.getTypeID(ego)
        self._size, self._front, self._track = size, front, list(past)
        vehicle = self._sumo.vehicle
        route = f"{HIDDEN}{ego}"
        self._sumo.route.add(route, vehicle.getRoute(ego)[vehicle.getRouteIndex(ego) :])
        vehicle.remove(ego)
        self._add(route)

    def drive(self, poses: Sequence[Pose], again: bool = False) -> list[list[User]]:
        """Lead the ego along `poses`, one a frame: x, y [m], yaw [rad].

        Returns the road users of each frame; none where it is driven `again` and they are known.
        """
        frames: list[list[User]] = []
        for pose in poses:
            for substep in range(1, SUBSTEPS + 1):
                self._place(between([*self._track[-3:], pose], substep / SUBSTEPS))
                self._advance()
            self._track.append(pose)
            if not again:
                frames.append(self.users())
        return frames

    def close(self) -> None:
        """End the simulation, if there is one."""
        if self._loaded:
            self._loaded = False
            self._sumo.close()

    def _run_until(self, time: float) -> None:
        while self._sumo.simulation.getTime() < time + STEP / 2:
            self._advance()

    def _advance(self) -> None:
        self._script.advance()
        self._sumo.simulationStep()

    def _add(self, route: str) -> None:
        vehicle, (length, width, height) = self._sumo.vehicle, self._size
        vehicle.add(self._ego, route, typeID=self._kind)
        vehicle.setLaneChangeMode(self._ego, 0)  # it changes lanes by hand alone
        vehicle.setLength(self._ego, length)
        vehicle.setWidth(self._ego, width)
        vehicle.setHeight(self._ego, height)

    def _place(self, pose: Pose) -> None:
        """Put the ego at `pose` at the end of the next step. Beside all lanes it is in nobody's way, hence nowhere."""
        vehicle, refused = self._sumo.vehicle, self._sumo.TraCIException
        x = pose[0] + self._front * math.cos(pose[2])
        y = pose[1] + self._front * math.sin(pose[2])
        if self._ego not in vehicle.getIDList():
            with contextlib.suppress(refused):
                self._add("")
        # The lane that leads its way; else the one that it stands on, against or across its direction.
        for angle in ((90.0 - math.degrees(pose[2])) % 360.0, self._sumo.constants.INVALID_DOUBLE_VALUE):
            with contextlib.suppress(refused):
                vehicle.moveToXY(self._ego, "", -1, x, y, angle, _ANY_LANE, _IN_LANE)
                return
        with contextlib.suppress(refused):
            vehicle.remove(self._ego)


def between(track: Sequence[Pose], share: float) -> Pose:
    """A pose on the way from the second last pose of `track` to the last, a share of the frame's time after it.

    Along the chord, with the speed that suits the frames before: it changes evenly where the acceleration is
    constant, and depends on the past alone.
    """
    here, there = track[-2], track[-1]
    metres = [math.dist(a[:2], b[:2]) for a, b in itertools.pairwise(track)]
    last = metres[-1]
    before = metres[-2] if len(metres) > 1 else last
    earlier = metres[-3] if len(metres) > 2 else before
    # Speeds in metres a frame at both ends; a cubic with slopes up to 3 times the mean is monotone.
    begin = min(max(before + (before - earlier) / 2, 0.0), 3 * last)
    end = min(max(last + (last - before) / 2, 0.0), 3 * last)
    s = share
    way = begin * (s**3 - 2 * s**2 + s) + last * (3 * s**2 - 2 * s**3) + end * (s**3 - s**2)
    part = way / last if last > 1e-6 and s < 1 else s
    turn = math.remainder(there[2] - here[2], math.tau)
    x, y = (a + part * (b - a) for a, b in zip(here[:2], there[:2], strict=True))
    return (x, y, here[2] + s * turn) if s < 1 else there


def main() -> None:
    """Answer commands until standard input ends."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # SUMO prints what it likes
    simulation: Simulation | None = None
    for line in sys.stdin:
        answer: dict[str, Any]
        try:
            simulation = simulation or Simulation()
            command = json.loads(line)
            answer = {"value": getattr(simulation, command.pop("do"))(**command)}
        except Exception as error:  # whatever it is, the parent says it
            words = " ".join(str(error).split()) or type(error).__name__
            answer = {"error": words, "missing": isinstance(error, ImportError)}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
    if simulation is not None:
        simulation.close()


if __name__ == "__main__":
    main()
