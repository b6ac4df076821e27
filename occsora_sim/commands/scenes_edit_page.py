"""The page of `occsora-sim scenes edit --browser`: a start with its edits, shown as they are made, and saved."""

from __future__ import annotations

import base64
import re
import shlex
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

from occsora_sim.envs.road_user_edit import NAMES, RoadUserEdit, read_edits
from occsora_sim.envs.scene_edit import edit_scene
from occsora_sim.errors import ConfigurationError, OccSoraError
from occsora_sim.scenes.file import SUFFIX, save_scene
from occsora_sim.scenes.scene import Scene
from occsora_sim.scenes.start import Start
from occsora_sim.scenes.voxeliser import Voxeliser
from occsora_sim.viewer.encoding import encode_rollout
from occsora_sim.viewer.page import make_page
from occsora_sim.viewer.recorded import recorded_rollout
from occsora_sim.viewer.server import PageServer, page_answer, read_json, send_json

SHOWN = 8.0
"""How much of what follows the start the page plays [s]."""

FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}")
"""Names that the page may save under, without the suffix: no folders, and nothing hidden."""

_LONGEST = 1 << 16  # bytes of a request


class StartEditor:
    """Answers what the page asks: how the start is with some edits, and to save it.

    Args:
        start: with tracks.
        folder: where scene files are saved.

    """

    def __init__(self, start: Start, folder: Path) -> None:
        self._source: tuple[Scene, int, int] = start.source
        self._rasters = Voxeliser(self._source[0]).rasters  # of the ground, which edits leave as it is
        self._folder = folder
        self._one_by_one = threading.Lock()

    def edited(self, edits: Sequence[RoadUserEdit]) -> Scene:
        """The scene with its edits.

        Raises:
            ConfigurationError: an edit that cannot be.

        """
        return edit_scene(*self._source, edits)

    def ids(self, edits: Sequence[RoadUserEdit]) -> list[int]:
        """The road user that each edit is about: new ones are numbered behind the recorded ones."""
        new = iter(range(len(self._source[0].track_class), 1 << 62))
        told = [edit.id if edit.remove is None else edit.remove for edit in edits]
        return [next(new) if one is None else one for one in told]

    def piece(self, edits: Sequence[RoadUserEdit]) -> bytes:
        """The start with its edits and SHOWN seconds of what follows in a replay, as the page takes it.

        Raises:
            ConfigurationError: an edit that cannot be.

        """
        scene, step = self.edited(edits), self._source[2]
        drawer = Voxeliser(scene, rasters=self._rasters)
        rollout = recorded_rollout(scene, SHOWN, begin=step * scene.dt, drawer=drawer)
        return encode_rollout(replace(rollout, header={**rollout.header, "ended": ""}))

    def save(self, edits: Sequence[RoadUserEdit], name: str) -> Path:
        """Write the scene file of this name; returns its path.

        Raises:
            OccSoraError: nothing was edited, an edit cannot be, or the file cannot be written.

        """
        if not edits:
            raise ConfigurationError("nothing is edited yet")
        if not FILE_NAME.fullmatch(name):
            raise ConfigurationError(
                "file: give a name of letters, digits, - _ and ., 80 at most; it is saved in the folder of --out"
            )
        path = self._folder / (name.removesuffix(SUFFIX) + SUFFIX)
        save_scene(self.edited(edits), path)
        print(path, flush=True)
        return path

    def answer_edits(self, request: BaseHTTPRequestHandler) -> None:
        """Answer `{"edits": [...]}` with how the start is then, or one line that says why it cannot be."""

        def show(edits: Sequence[RoadUserEdit], _: str) -> dict[str, Any]:
            return {"piece": base64.b64encode(self.piece(edits)).decode(), "ids": self.ids(edits)}

        self._answer(request, show)

    def answer_save(self, request: BaseHTTPRequestHandler) -> None:
        """Answer `{"edits": [...], "name": "..."}` with the path and a command that drives there, or such a line."""

        def save(edits: Sequence[RoadUserEdit], name: str) -> dict[str, Any]:
            path = str(self.save(edits, name))
            return {"path": path, "command": f"occsora-sim drive --scenes {shlex.quote(path)}"}

        self._answer(request, save)

    def _answer(
        self, request: BaseHTTPRequestHandler, work: Callable[[Sequence[RoadUserEdit], str], dict[str, Any]]
    ) -> None:
        try:
            said = read_json(request, _LONGEST)
            given, name = said["edits"], str(said.get("name"))
        except (ValueError, TypeError, KeyError, AttributeError):
            request.send_error(HTTPStatus.BAD_REQUEST)
            return
        ids: list[int] = []
        try:
            with self._one_by_one:
                edits = read_edits(given)
                ids = self.ids(edits)
                content = work(edits, name)
        except OccSoraError as error:
            line = " ".join(str(error).split())
            for place, one in enumerate(ids):  # the page shows no places in a list
                line = line.replace(f"road_users[{place}]", f"road user {one}")
            content = {"refused": line}
        send_json(request, content)


def serve_page(start: Start, edits: Sequence[RoadUserEdit], out: Path, port: int, open_it: bool) -> None:
    """Serve the page until Ctrl-C.

    Args:
        start: with tracks.
        edits: that the page begins with.
        out: the file that it proposes to save.
        port: of the loopback address.
        open_it: open the page in the browser.

    Raises:
        ConfigurationError: an edit that cannot be, or the port.

    """
    editor = StartEditor(start, out.parent)
    said = {
        "edits": [edit.written() for edit in edits],
        "ids": editor.ids(edits),
        "recorded": len(start.source[0].track_class),
        "classes": NAMES,
        "file": out.stem,
    }
    page = make_page([editor.piece(edits)], mode="edit", said=said)
    routes = {
        "GET /": page_answer(page),
        "POST /edits": editor.answer_edits,
        "POST /save": editor.answer_save,
    }
    with PageServer(routes, port) as server:
        server.announce(open_it)
        threading.Event().wait()
