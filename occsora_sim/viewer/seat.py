"""Where a person who drives sits: what shows the drive, and what says which keys are down."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Protocol, Self, TypeVar

from occsora_sim.rendering.rollout import Rollout

T = TypeVar("T")


class LeftError(Exception):
    """The person has left the seat: its window was closed. Never reaches a user."""


class Seat(Protocol):
    """A page or a window. Use as `with seat:`; every call from the thread that opened it may raise LeftError."""

    def show(
        self, piece: Rollout | None, *, driver: str, ended: str | None = None, new: bool = False
    ) -> None:
        """Show the frames of the next step.

        Args:
            piece: the step; None: only what is said about it is new.
            driver: "you", or the agent's name.
            ended: how the episode has ended, and None as long as it goes on.
            new: this is the first frame of an episode.

        """

    def wait_for_watcher(self, seconds: float) -> bool:
        """Whether somebody can see the drive, as soon as somebody does or after so long [s]."""

    def take(self, until: float) -> tuple[set[str], list[str]]:
        """The keys of `keyboard.HELD` that are down or were since the last call, and the orders of
        `keyboard.ORDERS`; waits until `until` (of `time.monotonic`) or an order.
        """

    def during(self, work: Callable[[], T]) -> T:
        """What `work`, which may take seconds, returns; meanwhile the seat goes on to answer its person."""

    def __enter__(self) -> Self:
        """Open it."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
