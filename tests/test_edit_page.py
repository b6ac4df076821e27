"""The page that edits a start: what its server answers, what it writes, and a person's hand in the browser."""

import base64
import http.client
import json
import os
import signal
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from chromium import chromium, errors, picture, wait
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select
from test_viewer import unpack

from occsora_sim.cli import main
from occsora_sim.commands.scenes_edit_page import StartEditor
from occsora_sim.grid import CAR, CLASSES, PEDESTRIAN, TRUCK
from occsora_sim.scenes.file import load_scene, save_scene
from occsora_sim.scenes.start import make_start, script_ends
from occsora_sim.viewer.server import PageServer

STEP = 10  # of the start: 5 s, the ego at x = 40 m and 8 m/s


@pytest.fixture
def road(straight_road):
    """The ego's own car is track 0; track 1 drives 12 m before it, track 2 stands 6 m to its left."""
    return straight_road(cars=[(13.0, 0.0, 8.0), (40.0, 6.0, 0.0)])


@pytest.fixture
def server(road, tmp_path):
    editor = StartEditor(make_start(road, 0, STEP), tmp_path / "out")
    with PageServer({"POST /edits": editor.answer_edits, "POST /save": editor.answer_save}) as running:
        yield running


def post(server: PageServer, path: str, body: bytes, **headers: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    connection.request("POST", path, body, headers)
    answer = connection.getresponse()
    return answer.status, answer.read()


def ask(server: PageServer, path: str, *edits: dict[str, Any], **more: str) -> dict[str, Any]:
    status, body = post(server, path, json.dumps({"edits": edits, **more}).encode())
    assert status == 200
    return json.loads(body)


def shown(answer: dict[str, Any]) -> tuple[dict[int, list[Any]], np.ndarray]:
    """Of an answer's first frame each road user's class, x, y in the ego frame, by id; and of all frames the voxels."""
    _, found = unpack(base64.b64decode(answer["piece"]))
    there = found["user_valid"][0].astype(bool)
    x, y, _ = found["ego_pose"][0]
    return {
        int(number): [CLASSES[label], *np.round(pose[:2] - (x, y), 3).tolist()]
        for number, label, pose in zip(
            *(found[f"user_{name}"][0][there] for name in ("id", "label", "pose")), strict=True
        )
    }, found["palette"][found["codes"]]


def test_the_server_shows_who_is_placed_moved_removed_and_scripted(server):
    recorded = {1: ["car", 13.0, 0.0], 2: ["car", 0.0, 6.0]}
    assert shown(ask(server, "/edits"))[0] == recorded
    answer = ask(server, "/edits", {"class": "truck", "x": 12, "y": -6}, {"remove": 2})
    assert answer["ids"] == [3, 2]
    users, voxels = shown(answer)
    assert users == {1: recorded[1], 3: ["truck", 12.0, -6.0]}
    assert (voxels[0] == TRUCK).any() and len(voxels) == 17  # 8 s
    users, _ = shown(ask(server, "/edits", {"id": 1, "x": 8, "y": 2.5}))
    assert users == {1: ["car", 8.0, 2.5], 2: recorded[2]}
    answer = ask(server, "/edits", {"remove": 1}, {"class": "car", "cut_in": "left", "seconds": 3})
    _, found = unpack(base64.b64decode(answer["piece"]))
    aside = [
        float(pose[list(ids).index(3), 1])
        for pose, ids in zip(found["user_pose"], found["user_id"], strict=True)
    ]
    assert aside[0] == pytest.approx(3.5, abs=0.05) and aside[6:] == pytest.approx([0.0] * 11, abs=0.05)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        ({"class": "car", "x": 1, "y": 0}, "road user 3: overlaps the ego at the start; place it farther away"),
        ({"id": 2, "x": 13.5, "y": 0}, "road user 2: overlaps road user 1 at the start; move or remove one of them"),
        ({"id": 1, "x": 70}, "road user 1: x=70.0, y=0.0 is out of view"),
        ({"id": 1, "cut_in": "left"}, "road user 1: cannot cut in from the left"),
        ({"id": 1, "x": "north"}, "x='north'"),
        ({"class": "tank", "x": 1, "y": 9}, "choose one of"),
        ({"remove": 9}, "there is no road user 9"),
    ],
)  # fmt: skip
def test_an_edit_that_cannot_be_is_refused_in_one_line_and_nothing_is_written(
    server, tmp_path, edit, message
):
    for path in ("/edits", "/save"):
        answer = ask(server, path, edit, name="mine")
        assert list(answer) == ["refused"] and message in answer["refused"] and "\n" not in answer["refused"]
    assert not (tmp_path / "out").exists()


def test_what_is_saved_is_the_file_that_the_command_writes(server, road, tmp_path, capsys):
    edits: list[dict[str, Any]] = [
        {"class": "pedestrian", "x": 8, "y": 6, "path": [[4, 8, -4, -1.57]]},
        {"remove": 1},
    ]
    answer = ask(server, "/save", *edits, name="crossing")
    path = tmp_path / "out" / "crossing.safetensors"
    assert answer == {"path": str(path), "command": f"occsora-sim drive --scenes {path}"}
    scene = load_scene(path)
    assert scene.track_class[3] == PEDESTRIAN and not scene.track_valid[1].any()
    assert script_ends(scene) == {3: STEP * scene.dt + 4}
    save_scene(road, tmp_path / "road.safetensors")
    # the command draws its own start of the same scene
    again = ["--road-users", *map(json.dumps, edits), "--out", str(tmp_path / "again.safetensors")]
    assert main(["scenes", "edit", str(tmp_path / "road.safetensors"), *again]) == 0
    other = load_scene(tmp_path / "again.safetensors")
    assert other.attributes["edited"] == scene.attributes["edited"] and other.name == scene.name
    before = path.read_bytes()
    assert "overlaps" in ask(server, "/save", {"id": 1, "x": 0}, name="crossing")["refused"]
    assert path.read_bytes() == before and [one.name for one in path.parent.iterdir()] == [path.name]
    assert ask(server, "/save", name="none")["refused"] == "nothing is edited yet"


@pytest.mark.parametrize(
    "name",
    [
        "",
        "../up",
        "/tmp/up",
        "a/b",
        "a\\b",
        "..",
        ".hidden",
        "a\0b",
        "a\nb",
        "x" * 81,
        "%2e%2e%2fup",
        "~",
        "ä",
        "-rf",
    ],
)
def test_a_name_leads_nowhere_but_into_the_folder(server, tmp_path, name):
    assert "file: give a name" in ask(server, "/save", {"remove": 1}, name=name)["refused"]
    assert not list(tmp_path.rglob("*.safetensors"))


def test_requests_of_other_pages_and_wrong_ones_are_refused(server, tmp_path):
    good = json.dumps({"edits": [{"remove": 1}], "name": "mine"}).encode()
    assert post(server, "/save", good, Origin="http://elsewhere.example")[0] == 403
    assert post(server, "/save", good, Host="rebound.example")[0] == 403
    for wrong in (b"", b"[]", b"{}", b"{", b'"edits"', b"[" * 5000):
        assert post(server, "/save", wrong)[0] == 400, wrong[:20]
    assert post(server, "/save", b"", **{"Content-Length": str(1 << 20)})[0] == 400
    assert "give a list" in json.loads(post(server, "/edits", b'{"edits": 3}')[1])["refused"]
    assert not list(tmp_path.rglob("*.safetensors"))
    assert post(server, "/save", good, Origin=f"http://localhost:{server.port}")[0] == 200


def test_a_page_that_cannot_begin_ends_in_one_line(road, tmp_path, monkeypatch, capsys):
    save_scene(road, tmp_path / "road.safetensors")
    monkeypatch.chdir(tmp_path)
    asked = ["scenes", "edit", "road.safetensors", "--browser", "--no-open"]
    for more, message in (
        (["--road-users", '{"remove": 99}'], "there is no road user 99"),
        (["--out", "edited.json"], "a scene file ends in .safetensors"),
        (["--port", "70000"], "--port 70000: cannot be served"),
    ):
        assert main([*asked, *more]) == 2
        said = capsys.readouterr().err
        assert message in said and said.count("\n") == 1


# --------------------------------------------------------------------------- in the browser
class Page:
    """The page in a browser, and a hand that points at places in the ego frame at the start."""

    def __init__(self, browser: Any) -> None:
        self.browser = browser

    def at(self, x: float, y: float) -> tuple[int, int]:
        """Where a place on the ground is seen [pixels]."""
        return tuple(
            self.browser.execute_script(
                "const [view] = viewer.views, [ex, ey] = view.recording.frames[0].pose, [x, y] = arguments;"
                "const point = new THREE.Vector3(ex + x, ey + y, view.ground).project(view.camera);"
                "const box = view.pane.getBoundingClientRect();"
                "const across = (1 + point.x) / 2 * box.width, down = (1 - point.y) / 2 * box.height;"
                "return [box.left + across, box.top + down].map(Math.round)",
                x, y,
            )
        )  # fmt: skip

    def press(self, *places: tuple[float, float]) -> None:
        """Press at the first place, and drag along the others."""
        hand = ActionChains(self.browser, duration=30)
        pointer = hand.w3c_actions.pointer_action
        for k, place in enumerate(places):
            pointer.move_to_location(*self.at(*place))
            if not k:
                pointer.pointer_down()
        pointer.pointer_up()
        hand.perform()

    def click(self, name: str) -> None:
        self.browser.find_element("id", name).click()

    def edits(self, count: int, what: str = "true") -> list[dict[str, Any]]:
        """The edits, as soon as there are so many and `what` holds."""
        wait(self.browser, f"viewer.editor.edits.list.length === {count} && ({what})")
        return self.browser.execute_script("return viewer.editor.edits.list")

    def said(self) -> str:
        return wait(self.browser, "document.getElementById('said').textContent")


LISTS = """
const edits = [{ class: "car", x: 1, y: 2 }, { class: "bus", x: 3, y: 4 }, { remove: 2 }, { id: 6, speed: 2 }];
const now = new viewer.editor.edits.constructor({ edits, ids: [5, 6, 2, 6], recorded: 5 });
return [now.without(5), now.without(6), now.changed(6, { speed: null }), now.without(1), now.restored(2)];
"""


def test_a_hand_moves_turns_places_scripts_removes_and_saves(road, tmp_path):
    save_scene(road, tmp_path / "road.safetensors")
    out = tmp_path / "out" / "mine.safetensors"
    command = [sys.executable, *"-m occsora_sim.cli scenes edit --browser --no-open --out".split()]
    program = subprocess.Popen(
        [*command, str(out), str(tmp_path / "road.safetensors")], stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )  # fmt: skip
    try:
        with chromium(tmp_path / "profile") as browser:
            assert program.stdout is not None
            browser.get(program.stdout.readline().split()[0])
            wait(browser, "document.body.dataset.ready === 'yes'", 60)
            page = Page(browser)
            users = browser.execute_script("return viewer.editor.users.map(u => [u.id, u.x, u.y])")
            (_, x, y) = next(user for user in users if user[0] == 1)

            page.press((x, y))
            assert browser.find_element("css selector", "#selected h2").text == "1 car"
            page.press((x, y), (x + 2, y + 1), (x + 4, y + 3))
            (moved,) = page.edits(1)
            assert moved == {"id": 1, "x": pytest.approx(x + 4, abs=0.4), "y": pytest.approx(y + 3, abs=0.4)}
            assert browser.execute_script("return viewer.mode") == "top", "the camera stays"
            page.press(
                (moved["x"] + 4.3, moved["y"]), (moved["x"] + 3, moved["y"] + 3), (moved["x"], moved["y"] + 4)
            )
            (turned,) = page.edits(1, "viewer.editor.edits.list[0].yaw")
            assert turned["yaw"] == pytest.approx(np.pi / 2, abs=0.15)

            page.press((moved["x"], moved["y"]), (3.0, 1.0), (0.5, 0.0))  # into the ego
            assert page.said().startswith("road user 1: overlaps the ego")
            assert page.edits(1) == [turned]
            orange = np.abs(picture(browser).astype(int) - (255, 128, 0)).max(axis=-1) < 3
            assert orange.sum() > 50, "what is selected is marked"

            Select(browser.find_element("id", "new-class")).select_by_value("truck")
            page.click("place")
            page.press((-12.0, -2.0))
            placed = page.edits(2)[1]
            assert placed["class"] == "truck" and placed["yaw"] == placed["speed"] == 0
            assert [placed["x"], placed["y"]] == pytest.approx([-12, -2], abs=0.3)
            field = browser.find_element("css selector", "#selected input")
            field.send_keys(Keys.CONTROL, "a")
            field.send_keys("-15", Keys.ENTER)
            assert page.edits(2, "viewer.editor.edits.list[1].x === -15")[1]["class"] == "truck"
            Select(browser.find_element("id", "script")).select_by_value("right")
            scripted = page.edits(2, "viewer.editor.edits.list[1].cut_in")[1]
            assert (
                scripted["cut_in"] == "right"
                and scripted["seconds"] == 3
                and scripted["speed"] == pytest.approx(8, abs=0.2)
            )
            ways = "viewer.views[0].recording.frames.map(f => f.users.get(3).pose[1])"
            way = browser.execute_script(f"return {ways}")
            assert way[0] == pytest.approx(placed["y"], abs=0.01) and way[6] == pytest.approx(0.0, abs=0.05)

            browser.execute_script("viewer.editor.select(2)")
            page.click("remove")
            assert page.edits(3)[2] == {"remove": 2}
            page.click("undo")
            page.edits(2)
            browser.execute_script("viewer.editor.select(2)")
            Select(browser.find_element("id", "class")).select_by_value("pedestrian")
            edits = page.edits(4)
            assert edits[2] == {"remove": 2} and edits[3]["class"] == "pedestrian"

            car, bus = {"class": "car", "x": 1, "y": 2}, {"class": "bus", "x": 3, "y": 4}
            gone, fast = {"remove": 2}, {"id": 6, "speed": 2}
            assert browser.execute_script(LISTS) == [
                [bus, gone, {"id": 5, "speed": 2}],  # the bus has the car's number then
                [car, gone],
                [car, bus, gone],
                [car, bus, gone, fast, {"remove": 1}],
                [car, bus, fast],
            ]

            page.click("save")
            wait(browser, "document.getElementById('said').textContent.startsWith('saved')")
            assert page.said() == f"saved: {out}occsora-sim drive --scenes {out}"
            assert errors(browser) == []
    finally:
        program.send_signal(signal.SIGINT)
        rest, _ = program.communicate(timeout=60)
    assert rest.splitlines() == [str(out)]
    scene = load_scene(out)
    assert scene.track_class.tolist() == [CAR, CAR, CAR, TRUCK, PEDESTRIAN]
    assert scene.track_valid.any(axis=1).tolist() == [True, True, False, True, True]
    assert list(script_ends(scene)) == [3]
    known = [{name: value for name, value in edit.items() if value is not None} for edit in edits]
    assert json.loads(scene.attributes["edited"]) == known
