"""A seat in the browser: the page shows the drive and sends its keys; a server in other threads stands between."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from occsora_sim.rendering.rollout import Rollout
from occsora_sim.viewer.encoding import encode_rollout
from occsora_sim.viewer.keyboard import Keyboard
from occsora_sim.viewer.page import make_page
from occsora_sim.viewer.server import PageServer, page_answer
from occsora_sim.viewer.stream import Stream

T = TypeVar("T")


class PageSeat:
    """See `Seat`.

    Args:
        port: of the loopback address; 0: any that is free.
        open_it: open the page in the browser.

    Raises:
        ConfigurationError: the port is taken, or not allowed.

    """

    def __init__(self, port: int, open_it: bool) -> None:
        self._keyboard, self._stream, self._open_it = Keyboard(), Stream(), open_it
        self._server = PageServer(
            {
                "GET /": page_answer(make_page([], mode="play")),
                "GET /events": self._stream.answer,
                "POST /keys": self._keyboard.answer,
            },
            port,
        )
        self.take = self._keyboard.take
        self.wait_for_watcher = self._stream.wait_for_page

    def show(
        self, piece: Rollout | None, *, driver: str, ended: str | None = None, new: bool = False
    ) -> None:
        """See `Seat`."""
        data = None if piece is None else encode_rollout(piece)
        self._stream.add(data, new=new, driver=driver, ended=ended)

    def during(self, work: Callable[[], T]) -> T:
        """See `Seat`."""
        return work()

    def __enter__(self) -> PageSeat:
        """Begin to serve, and say where."""
        self._server.__enter__()
        self._server.announce(self._open_it)
        return self

    def __exit__(self, *_: object) -> None:
        """Let the pages go."""
        self._stream.close()
        self._server.__exit__()
