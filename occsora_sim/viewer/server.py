"""Serves the page to this machine alone: known paths, on the loopback address, to pages that it served itself."""

from __future__ import annotations

import json
import threading
import webbrowser
from collections.abc import Callable, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from occsora_sim.bounded_json import parse_json
from occsora_sim.errors import ConfigurationError

ADDRESS = "127.0.0.1"

Answer = Callable[[BaseHTTPRequestHandler], None]
"""Answers a request of a known method and path, with what `send` needs."""


class PageServer:
    """A server in a thread of its own; use as `with PageServer(routes) as server:`.

    Args:
        routes: "GET /" and so on -> who answers.
        port: 0: any that is free.

    Raises:
        ConfigurationError: the port is taken, or not allowed.

    """

    def __init__(self, routes: Mapping[str, Answer], port: int = 0) -> None:
        class Handler(BaseHTTPRequestHandler):
            server_version, sys_version = "occsora-sim", ""
            timeout = 30  # [s] that a request may take to come in

            def _answer(self) -> None:
                answer = routes.get(f"{self.command} {self.path}")
                if not _own(self, hosts):
                    self.send_error(HTTPStatus.FORBIDDEN, "not for other pages")
                elif answer is None:
                    self.send_error(HTTPStatus.NOT_FOUND)
                else:
                    try:
                        answer(self)
                    except (BrokenPipeError, ConnectionResetError):
                        self.close_connection = True  # the page was closed

            do_GET = do_POST = _answer

            def log_message(self, format: str, *arguments: object) -> None:
                """Say nothing of each request."""

        try:
            self._server = ThreadingHTTPServer((ADDRESS, port), Handler)
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise ConfigurationError(
                f"--port {port}: cannot be served ({reason}); choose another, or 0"
            ) from error
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        hosts = {f"{name}:{self.port}" for name in (ADDRESS, "localhost")}
        self.url = f"http://{ADDRESS}:{self.port}/"

    def __enter__(self) -> PageServer:
        """Begin to serve."""
        threading.Thread(target=self._server.serve_forever, args=(0.1,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop."""
        self._server.shutdown()
        self._server.server_close()

    def announce(self, open_it: bool) -> None:
        """Print the address, and open it in the browser if `open_it`."""
        print(f"{self.url}  (Ctrl-C ends)", flush=True)
        if open_it:
            webbrowser.open(self.url)


def page_answer(page: str) -> Answer:
    """Answers with the page."""
    body = page.encode()

    def answer(request: BaseHTTPRequestHandler) -> None:
        send(request, body, "text/html; charset=utf-8")

    return answer


def read_json(request: BaseHTTPRequestHandler, longest: int) -> Any:
    """What the body of a POST says, of `longest` bytes at most.

    Raises:
        ValueError: it is longer, of no known length, or no JSON.

    """
    length = int(request.headers.get("Content-Length", ""))
    if not 0 <= length <= longest:
        raise ValueError(f"a body of {length} bytes")
    return parse_json(request.rfile.read(length), longest)


def send_json(request: BaseHTTPRequestHandler, content: Any) -> None:
    """Answer with JSON values."""
    send(request, json.dumps(content, allow_nan=False).encode(), "application/json")


def send(request: BaseHTTPRequestHandler, body: bytes, kind: str) -> None:
    """Answer with a whole body."""
    request.send_response(HTTPStatus.OK)
    headers(request, kind)
    request.send_header("Content-Length", str(len(body)))
    request.end_headers()
    request.wfile.write(body)


def headers(request: BaseHTTPRequestHandler, kind: str) -> None:
    """The headers of every answer."""
    request.send_header("Content-Type", kind)
    request.send_header("X-Content-Type-Options", "nosniff")
    request.send_header("Cache-Control", "no-store")
    request.send_header("X-Frame-Options", "DENY")  # no other page shows it and lets keys fall into it


def _own(request: BaseHTTPRequestHandler, hosts: set[str]) -> bool:
    """Whether a request names this server, and comes from its own page if it comes from one: a page from elsewhere
    whose name was made to point here (DNS rebinding) does neither.
    """
    origin = request.headers.get("Origin")
    return request.headers.get("Host") in hosts and (
        origin is None or origin.removeprefix("http://") in hosts
    )
