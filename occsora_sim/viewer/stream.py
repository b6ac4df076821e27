"""What is driven, on its way to the pages that watch: server-sent events, all those of the present episode."""

from __future__ import annotations

import base64
import json
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from typing import Any

from occsora_sim.viewer.server import headers

_BEAT = 2.0  # [s] between signs of life, by which a page that was closed is noticed


class Stream:
    """Pieces of an episode for any number of pages; a page that comes later is told all from the beginning."""

    def __init__(self) -> None:
        self._change = threading.Condition()
        self._episode = 0
        self._events: list[bytes] = []
        self._pages = 0
        self._closed = False

    def add(self, piece: bytes | None, *, new: bool = False, **said: Any) -> None:
        """The next piece as `encode_rollout` gives it, or None: only words about the episode, JSON values. With `new`
        an episode begins.
        """
        content = {**said, "new": new, "piece": None if piece is None else base64.b64encode(piece).decode()}
        with self._change:
            if new:
                self._episode += 1
                self._events = []
            self._events.append(f"data: {json.dumps(content)}\n\n".encode())
            self._change.notify_all()

    def close(self) -> None:
        """Let the pages go."""
        with self._change:
            self._closed = True
            self._change.notify_all()

    def wait_for_page(self, seconds: float) -> bool:
        """Whether a page watches, as soon as one does, or after so long [s]."""
        with self._change:
            return self._change.wait_for(lambda: self._pages > 0, seconds)

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        """Tell a page what comes, until it is closed."""
        request.send_response(HTTPStatus.OK)
        headers(request, "text/event-stream")
        request.end_headers()
        request.close_connection = True
        with self._change:
            self._pages += 1
            self._change.notify_all()
        try:
            episode = told = 0
            while True:
                with self._change:
                    if not self._closed and (episode, told) == (self._episode, len(self._events)):
                        self._change.wait(_BEAT)
                    if self._closed:
                        return
                    if episode != self._episode:
                        episode, told = self._episode, 0
                    events = self._events[told:]
                    told += len(events)
                request.wfile.write(b"".join(events) or b": still here\n\n")
                request.wfile.flush()
        finally:
            with self._change:
                self._pages -= 1
