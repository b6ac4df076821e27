"""SUMO simulations in worker processes: who may go on, who must begin anew, and an orderly end."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import threading
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from occsora_sim.errors import MissingDependencyError, SceneError, SceneWarning
from occsora_sim.scenes.town import sumo_home

Pose = tuple[float, ...]
Users = list[tuple[str, str, float, float, float]]
"""Name, vType, middle of the front x, y [m], angle [degrees clockwise from north] of each road user."""


PATIENCE = 300.0
"""A process that has not answered for so long hangs [s]; running a town up to any moment takes a few seconds."""

ATTEMPTS = 3
"""How often a journey is begun, each time in another process, before it is given up."""


class LostProcessError(SceneError):
    """A process that ended by itself, or was ended because it hung."""


@dataclass(frozen=True, kw_only=True)
class Journey:
    """A way through a simulation: run freely until a time, take the ego, lead it along poses. All plain values.

    Attributes:
        folder: of the town's files.
        options: of SUMO's command line, which name these files.
        events: JSON, a list of events of `sumo_events`.
        time: until when the traffic runs by itself [s].
        ego: the vehicle that is then led; "" as long as none is.
        size: its length, width, height [m].
        front: its front bumper ahead of its poses [m].
        past: its last poses up to then: x, y [m], yaw [rad].
        driven: the poses that it was led along already, one a frame.
        ahead: those that come next.

    """

    folder: str
    options: tuple[str, ...]
    events: str = "[]"
    time: float
    ego: str = ""
    size: tuple[float, float, float] = (0.0, 0.0, 0.0)
    front: float = 0.0
    past: tuple[Pose, ...] = ()
    driven: tuple[Pose, ...] = ()
    ahead: tuple[Pose, ...] = ()

    def place(self, poses: tuple[Pose, ...]) -> tuple[Any, ...]:
        """Where a simulation stands that was led along `poses`; the same place, the same simulation."""
        led = (self.ego, self.size, self.front, self.past, poses) if poses else ()
        return (self.folder, self.options, self.events, self.time, *led)


class Worker:
    """One worker process.

    Attributes:
        place: what its simulation holds; None if nothing that can be gone on with.
        owner: refers to who may want to go on from there; dead when nobody can.
        patience: how long it may take to answer [s].

    """

    def __init__(self) -> None:
        if importlib.util.find_spec("libsumo") is None:
            raise MissingDependencyError('libsumo is not installed: pip install "occsora-sim[traffic]"')
        self.place: tuple[Any, ...] | None = None
        self.owner: Callable[[], object | None] = lambda: None
        self.patience = PATIENCE
        self._process = subprocess.Popen(
            [sys.executable, "-m", "occsora_sim.scenes.sumo_worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            encoding="utf-8",
            env={**os.environ, "SUMO_HOME": str(sumo_home())},
            start_new_session=True,  # Ctrl-C is for us; a worker ends when its input does
        )

    @property
    def process(self) -> int:
        """Its id."""
        return self._process.pid

    def send(self, journey: Journey) -> int:
        """Ask for a journey's next frames. Returns how many answers will come; the last one holds them.

        The others are short, so that neither side waits for the other to empty a pipe.
        """
        asked: list[dict[str, Any]] = []
        if self.place != journey.place(journey.driven):
            events = json.loads(journey.events)
            load = {"do": "load", "folder": journey.folder, "options": journey.options}
            asked.append({**load, "time": journey.time, "events": events})
        if journey.ahead:
            if asked or not journey.driven:
                keys = ("ego", "size", "front", "past")
                asked.append({"do": "take", **{key: getattr(journey, key) for key in keys}})
            if asked and journey.driven:
                asked.append({"do": "drive", "poses": journey.driven, "again": True})
            asked.append({"do": "drive", "poses": journey.ahead})
        else:
            asked.append({"do": "users"})
        return self._ask(asked)

    def record(
        self, folder: str, options: Sequence[str], events: str, begin: float, end: float, period: float
    ) -> tuple[list[Users], list[dict[str, str]]]:
        """Run traffic that nobody leads; the road users every `period` [s] from `begin` up to before `end` [s], and
        the lane of each vehicle at these times.
        """
        load = {"do": "load", "folder": folder, "options": options, "time": begin}
        load["events"] = json.loads(events)
        film = self.receive(self._ask([load, {"do": "record", "begin": begin, "end": end, "period": period}]))
        return film["frames"], film["lanes"]

    def _ask(self, asked: Sequence[dict[str, Any]]) -> int:
        """Send commands; returns how many answers will come."""
        self.place = None
        assert self._process.stdin is not None
        try:
            self._process.stdin.writelines(json.dumps(command) + "\n" for command in asked)
            self._process.stdin.flush()
        except OSError:
            pass  # it has died; `receive` finds out how
        return len(asked)

    def receive(self, answers: int) -> Any:
        """The last of so many answers.

        Raises:
            LostProcessError: the process has died, or does not answer.
            SceneError: SUMO failed, in its own words.
            MissingDependencyError: libsumo cannot be imported.

        """
        assert self._process.stdout is not None
        value, failed, hung = None, None, threading.Event()

        def end() -> None:
            hung.set()
            self._process.kill()  # its output ends, and with it the waiting

        watchdog = threading.Timer(self.patience, end)
        watchdog.daemon = True
        watchdog.start()
        try:
            for _ in range(answers):
                line = self._process.stdout.readline()
                if not line:
                    status = self._process.wait()
                    how = (
                        f"hung for {self.patience:g} s"
                        if hung.is_set()
                        else f"ended by itself (status {status})"
                    )
                    raise LostProcessError(f"live traffic: a SUMO process {how}; reset the world")
                answer = json.loads(line)
                failed = failed or ("error" in answer and answer)
                value = answer.get("value")
        finally:
            watchdog.cancel()
        if failed and failed["missing"]:
            raise MissingDependencyError(
                f'libsumo does not work here ({failed["error"]}): pip install "occsora-sim[traffic]"'
            )
        if failed:
            raise SceneError(
                f"live traffic: SUMO says: {failed['error']}; begin elsewhere or in another town"
            )
        return value

    def close(self, patience: float = 5.0) -> None:
        """End the process: politely, then not."""
        try:
            self._process.communicate(timeout=patience)  # closes its input
        except (subprocess.TimeoutExpired, OSError, ValueError):
            self._process.kill()
            self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()


class SumoPool:
    """Worker processes, started when they are needed and kept until `close`.

    A simulation cannot be copied nor go back, so a journey goes on where a worker stands at its beginning, and is
    driven again from the start where none does. With at least as many workers as worlds, plain steps never repeat.
    A worker is given to another journey when nobody holds the state any more that it stands at, or when none is left.
    One that dies or hangs is replaced, and its journey driven again from the start; a `SceneWarning` says so.

    Args:
        workers: how many processes at most.

    """

    def __init__(self, workers: int) -> None:
        self.limit = workers
        self._workers: list[Worker] = []  # the least recently used first

    def run(self, journeys: Sequence[Journey]) -> list[tuple[Any, Worker]]:
        """The answer to each journey: the road users of each frame ahead, or of now where none is; and the worker
        that stands there, for `owner` to be set.

        Raises:
            SceneError: SUMO failed; LostProcessError where one process after another was lost over a journey.
            MissingDependencyError: libsumo cannot be imported.

        """
        answers: dict[int, tuple[Any, Worker]] = {}
        lost: Counter[int] = Counter()
        while len(answers) < len(journeys):
            waiting = [row for row in range(len(journeys)) if row not in answers]
            found, faults = self._round(journeys, self._assign(journeys, waiting))
            answers |= found
            lost.update(faults.keys())
            for row, fault in faults.items():
                if lost[row] == ATTEMPTS:
                    raise fault
                warnings.warn(f"{str(fault).partition(';')[0]} and is replaced", SceneWarning, stacklevel=3)
        return [answers[row] for row in range(len(journeys))]

    def processes(self) -> list[int]:
        """The ids of the processes."""
        return [worker.process for worker in self._workers]

    def close(self) -> None:
        """End all processes. They start again if the pool is used again."""
        while self._workers:
            self._workers.pop().close()

    def _assign(self, journeys: Sequence[Journey], rows: Sequence[int]) -> dict[int, Worker]:
        """A worker for some of the rows: those who stand there already first, then new ones, then others."""
        pairs: dict[int, Worker] = {}
        free = list(self._workers)
        for row in rows:
            place = journeys[row].place(journeys[row].driven)
            found = next((worker for worker in free if worker.place == place), None)
            if found is not None:
                pairs[row] = found
                free.remove(found)
        free.sort(
            key=lambda worker: worker.owner() is not None
        )  # the ownerless first, else the longest unused
        for row in (row for row in rows if row not in pairs):
            if free and (free[0].owner() is None or len(self._workers) >= self.limit):
                pairs[row] = free.pop(0)
            elif len(self._workers) < self.limit:
                self._workers.append(pairs.setdefault(row, Worker()))
        return pairs

    def _round(
        self, journeys: Sequence[Journey], pairs: dict[int, Worker]
    ) -> tuple[dict[int, tuple[Any, Worker]], dict[int, LostProcessError]]:
        """Let every worker of `pairs` make one journey, side by side: their answers, and what became of those that were
        lost on the way.
        """
        failed: Exception | None = None
        answers: dict[int, tuple[Any, Worker]] = {}
        lost: dict[int, LostProcessError] = {}
        busy = dict(pairs)
        try:
            counts = {row: worker.send(journeys[row]) for row, worker in pairs.items()}
            for row, worker in pairs.items():
                try:
                    answers[row] = worker.receive(counts[row]), worker
                    worker.place = journeys[row].place(journeys[row].driven + journeys[row].ahead)
                except LostProcessError as error:
                    lost[row] = error
                except (SceneError, MissingDependencyError) as error:
                    failed = failed or error
                else:
                    del busy[row]
                    self._workers.remove(worker)
                    self._workers.append(worker)
        finally:  # whoever failed, or was interrupted with answers under way, is of no use any more
            for worker in busy.values():
                self._workers.remove(worker)
                worker.close(patience=0.0)
        if failed is not None:
            raise failed
        return answers, lost
