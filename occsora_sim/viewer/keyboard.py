"""A person at the keyboard of the page: which keys are held down, and the controls that they mean."""

from __future__ import annotations

import math
import threading
import time
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler

import numpy as np

from occsora_sim.vehicle import Vehicle
from occsora_sim.viewer.server import read_json, send

HELD = ("forward", "back", "left", "right", "brake")
ORDERS = ("agent", "again")
"""What the page says: keys that are down, and what was asked for once: `agent` hands over or takes back, `again` begins
a new episode."""

_LONGEST = 4096  # bytes of what the page says at once
_PULL, _SLOW, _BRAKE = 0.6, 0.35, 1.0  # shares of the hardest acceleration and braking
_SIDEWAYS = 2.5  # [m/s2] that steering pulls at most while it is held
_GENTLE = 0.5  # of it at first, so that a tap is a small correction


class Keyboard:
    """What the page's keys say; filled by the server's threads, read by the one that drives."""

    def __init__(self) -> None:
        self._change = threading.Condition()
        self._down: frozenset[str] = frozenset()
        self._tapped: set[str] = set()
        self._orders: list[str] = []

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        """Take the body of a POST: `{"held": [...], "orders": [...]}`."""
        try:
            said = read_json(request, _LONGEST)
            held, orders = frozenset(said["held"]), list(said["orders"])
            if not held <= set(HELD) or not set(orders) <= set(ORDERS):
                raise ValueError
        except (ValueError, TypeError, KeyError):
            request.send_error(HTTPStatus.BAD_REQUEST)
            return
        self.press(held, orders)
        send(request, b"", "text/plain")

    def press(self, held: frozenset[str], orders: list[str]) -> None:
        """These keys are down now, and these orders were given."""
        with self._change:
            self._down = held
            self._tapped |= held
            self._orders += orders
            self._change.notify_all()

    def take(self, until: float) -> tuple[set[str], list[str]]:
        """The keys that are down or were since the last call, and the orders; waits until `until` (of
        `time.monotonic`) or an order.
        """
        with self._change:
            while not self._orders and (left := until - time.monotonic()) > 0:
                self._change.wait(left)
            keys, orders = self._tapped | self._down, self._orders
            self._tapped, self._orders = set(), []
            return keys, orders


class Person:
    """Turns keys into an action of the environment: acceleration and steering in [-1, 1].

    Attributes:
        keys: that count for the next action.
        speed: of the ego [m/s].

    """

    def __init__(self, vehicle: Vehicle) -> None:
        self.keys: set[str] = set()
        self.speed = 0.0
        self._vehicle = vehicle
        self._share = 0.0  # of the strongest steering, with its sign; positive: left

    def reset(self, n: int) -> None:
        """Hands off the wheel."""
        self._share = 0.0

    def act(self, observation: dict[str, np.ndarray]) -> np.ndarray:
        """The action (1, 2) float32. What is not pressed keeps the speed, and goes straight on."""
        side = ("left" in self.keys) - ("right" in self.keys)
        held_on = side * self._share > 0
        self._share = float(side) if held_on else side * _GENTLE
        tightest = math.atan(self._vehicle.wheelbase * _SIDEWAYS / max(self.speed, 1.0) ** 2)
        steering = self._share * min(1.0, tightest / self._vehicle.max_steering)
        if "brake" in self.keys:
            pull = -_BRAKE
        else:
            pull = _PULL * ("forward" in self.keys) - _SLOW * ("back" in self.keys)
        return np.array([[pull, steering]], np.float32)
