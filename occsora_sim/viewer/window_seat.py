"""A seat in a window of Open3D, which stays on the main thread; the world is stepped in another one."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any, TypeVar

from occsora_sim.grid import FRAME_SECONDS
from occsora_sim.rendering.rollout import Rollout, kind_of
from occsora_sim.viewer.keyboard import Keyboard
from occsora_sim.viewer.look import CAMERA_HELP, Look
from occsora_sim.viewer.playback import LEFT, RIGHT, SPACE
from occsora_sim.viewer.seat import LeftError
from occsora_sim.viewer.window import DOWN, UP, Window, check_window

T = TypeVar("T")

_HELD = {
    265: "forward", ord("W"): "forward", 264: "back", ord("S"): "back", LEFT: "left", ord("A"): "left",
    RIGHT: "right", ord("D"): "right", SPACE: "brake",
}  # fmt: skip
_ORDERS = {ord("M"): "agent", ord("R"): "again"}
_SHORT_HELP = "arrows or WASD: drive   space: brake   M: agent   R: new episode"

HELP = (
    "up or W: faster; down or S: slower; left, right or A, D: steer; space: brake; M: hand over to the agent and back; "
    f"R: new episode; {CAMERA_HELP}; hide, show G: ground, B: buildings, V: vegetation, O: other objects; escape: end"
)
"""The keys in one line."""


class WindowSeat:
    """See `Seat`.

    Raises:
        MissingDependencyError: Open3D is not installed, or there is no display.

    """

    def __init__(self) -> None:
        check_window()
        self._keyboard, self._look = Keyboard(), Look()
        self._down: dict[int, str] = {}
        self._piece: Rollout | None = None
        self._caption = "the world is being made"
        self._drawn: tuple[Any, ...] = ()

    def show(
        self, piece: Rollout | None, *, driver: str, ended: str | None = None, new: bool = False
    ) -> None:
        """See `Seat`."""
        before, self._piece = self._piece, self._piece if piece is None else piece
        assert self._piece is not None
        words = [kind_of(self._piece), "you drive" if driver == "you" else f"{driver} drives"]
        if new:
            words.append(_SHORT_HELP)
        elif ended:
            words.append(f"ended: {ended}   R: a new episode")
        elif piece is not None and before is not None:
            way = math.dist(before.ego_pose[-1, :2], piece.ego_pose[-1, :2])
            words.append(f"{3.6 * way / FRAME_SECONDS:.0f} km/h")
        self._caption, self._drawn = "   ".join(words), ()
        self._turn()

    def wait_for_watcher(self, seconds: float) -> bool:
        """See `Seat`."""
        return True

    def take(self, until: float) -> tuple[set[str], list[str]]:
        """See `Seat`."""
        keys, orders = self._keyboard.take(0.0)
        while not orders and time.monotonic() < until:
            self._turn()
            more, orders = self._keyboard.take(0.0)
            keys |= more
        return keys, orders

    def during(self, work: Callable[[], T]) -> T:
        """See `Seat`."""
        future = self._worker.submit(work)
        try:
            while not future.done():
                self._turn()
        finally:
            wait([future])  # a step that was begun is whole, also where the window was closed meanwhile
        return future.result()

    def __enter__(self) -> WindowSeat:
        """Open the window."""
        self._window = Window("occsora-sim play", self._press)
        self._worker = ThreadPoolExecutor(1)
        print(HELP, flush=True)
        return self

    def __exit__(self, *_: object) -> None:
        """Close the window."""
        self._worker.shutdown()
        self._window.close()

    def _press(self, key: int, action: int) -> None:
        if key in _HELD:
            if action == DOWN:
                self._down[key] = _HELD[key]
            elif action == UP:
                self._down.pop(key, None)
            self._keyboard.press(frozenset(self._down.values()), [])
        elif action == DOWN:
            if key in _ORDERS:
                self._keyboard.press(frozenset(self._down.values()), [_ORDERS[key]])
            else:
                self._look.press(key)

    def _turn(self) -> None:
        """One look at the window's keys, and a picture if it is to show something else."""
        if not self._window.poll() or self._look.closed:
            raise LeftError
        wanted = (self._look.camera, self._look.hidden)
        if wanted != self._drawn:
            self._window.draw(self._piece, -1, self._look, self._caption)
            self._drawn = wanted
