"""A person drives: keys become actions, steps go to the page as they are driven, and what was driven is a rollout."""

import http.client
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from chromium import chromium, errors, wait
from display import XKeyboard, caption_width, virtual_display
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys

from occsora_sim.cli import main
from occsora_sim.rendering.rollout import load_rollout
from occsora_sim.scenes.file import save_scene
from occsora_sim.vehicle import Vehicle
from occsora_sim.viewer.encoding import encode_rollout
from occsora_sim.viewer.keyboard import Keyboard, Person
from occsora_sim.viewer.server import PageServer
from occsora_sim.viewer.stream import Stream


def test_keys_are_pulls_and_steering_that_is_gentle_at_speed_and_stronger_when_held():
    person = Person(Vehicle())

    def act(keys: set[str], speed: float) -> list[float]:
        person.keys, person.speed = keys, speed
        return person.act({})[0].tolist()

    assert act(set(), 5.0) == [0.0, 0.0]
    assert act({"forward"}, 5.0)[0] > 0 > act({"back"}, 5.0)[0] > act({"brake"}, 5.0)[0] == -1.0
    tap, held = act({"left"}, 10.0)[1], act({"left"}, 10.0)[1]
    assert 0 < tap < held
    assert act({"right"}, 10.0)[1] == pytest.approx(-tap) and act({"left", "right"}, 10.0)[1] == 0.0
    act({"left"}, 20.0)
    fast = act({"left"}, 20.0)[1] * Vehicle().max_steering
    assert 20.0**2 * np.tan(fast) / Vehicle().wheelbase == pytest.approx(2.5, rel=1e-4)  # [m/s2] sideways
    act({"left"}, 1.0)
    assert act({"left"}, 1.0)[1] == 1.0


def test_a_tap_between_two_steps_counts_once_and_an_order_wakes():
    keyboard = Keyboard()
    keyboard.press(frozenset({"left"}), [])
    keyboard.press(frozenset(), [])
    assert keyboard.take(0.0) == ({"left"}, []) and keyboard.take(0.0) == (set(), [])
    threading.Timer(0.05, keyboard.press, (frozenset({"forward"}), ["again"])).start()
    begin = time.monotonic()
    assert keyboard.take(begin + 20) == ({"forward"}, ["again"]) and time.monotonic() < begin + 10
    assert keyboard.take(0.0) == ({"forward"}, [])  # still down


def test_the_server_takes_known_keys_alone_and_tells_an_episode_from_its_beginning():
    keyboard, stream = Keyboard(), Stream()
    with PageServer({"POST /keys": keyboard.answer, "GET /events": stream.answer}) as server:

        def post(body: bytes, **headers: str) -> int:
            connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
            connection.request("POST", "/keys", body, headers)
            return connection.getresponse().status

        assert post(b'{"held": ["left"], "orders": ["agent"]}') == 200
        assert keyboard.take(0.0) == ({"left"}, ["agent"])
        for wrong in (
            b"",
            b"[]",
            b'{"held": ["window"], "orders": []}',
            b'{"held": 3, "orders": []}',
            b"x" * 5000,
        ):
            assert post(wrong) == 400
        assert post(b'{"held": [], "orders": []}', Origin="http://elsewhere.example") == 403
        assert not stream.wait_for_page(0.0)
        stream.add(b"old", new=True, driver="you")
        stream.add(b"first", new=True, driver="you")
        stream.add(b"second", driver="idm")
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
        connection.request("GET", "/events")
        answer = connection.getresponse()
        said = [json.loads(line[6:]) for line in (answer.readline() for _ in range(4)) if line.strip()]
        assert [event["driver"] for event in said] == ["you", "idm"] and said[0]["new"]
        assert stream.wait_for_page(5.0)
        stream.close()
        assert answer.read().strip() == b""


@pytest.fixture
def play(straight_road, tmp_path):
    """Starts `play` in a replay of a road, with more arguments and variables of the environment."""
    (tmp_path / "scenes").mkdir()
    save_scene(straight_road(cars=[(60.0, 4.0, 1.0)], steps=161), tmp_path / "scenes" / "road.safetensors")

    def start(*more: str, **variables: str) -> subprocess.Popen[str]:
        scenes, out = str(tmp_path / "scenes"), str(tmp_path / "out")
        return subprocess.Popen(
            [sys.executable, *"-m occsora_sim.cli play --world replay --scenes".split(), scenes, "--out", out, *more],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **variables},
        )  # fmt: skip

    return start


def assert_driven(out: Path) -> None:
    """One episode was recorded, which began with a person who goes faster straight on."""
    rollout = load_rollout(out / "rollout.npz")
    assert rollout.header["ended"] == "stopped" and rollout.header["agent"] == "person"
    assert len(rollout.actions) == rollout.frames - 1 >= 3
    assert rollout.actions[0, 0] > 0 and rollout.actions[0, 1] == 0.0
    assert encode_rollout(rollout)
    summary = json.loads((out / "summary.json").read_text())
    assert [episode["rollout"] for episode in summary["episodes"]] == ["rollout"]


def test_a_person_drives_in_the_page_hands_over_and_keeps_the_rollout(play, tmp_path):
    program = play("--no-open")
    try:
        with chromium(tmp_path / "profile") as browser:
            browser.get(program.stdout.readline().split()[0])
            wait(browser, "document.body.dataset.ready === 'yes'", 60)
            before = browser.execute_script("return viewer.views[0].ego")
            ActionChains(browser).key_down(Keys.ARROW_UP).perform()
            wait(browser, "viewer.clock.time >= 1", 60)
            ActionChains(browser).key_up(Keys.ARROW_UP).send_keys("m").perform()
            wait(browser, "document.getElementById('driver').textContent === 'route-follower drives'", 60)
            after = browser.execute_script("return viewer.views[0].ego")
            assert np.hypot(after[0] - before[0], after[1] - before[1]) > 3.0
            ActionChains(browser).send_keys("r").perform()
            wait(browser, "viewer.clock.seconds === 0", 60)
            assert errors(browser) == []
    finally:
        program.send_signal(signal.SIGINT)
        said, _ = program.communicate(timeout=240)
    assert program.returncode == 0 and "steps/s" in said, said
    assert_driven(tmp_path / "out")


@pytest.mark.slow
def test_a_person_drives_in_a_window_hands_over_and_keeps_the_rollout(play, tmp_path):
    """The line of text says how far it is: it is long while it tells the keys, and longer while the agent drives."""

    def wait_for_caption(least: int, most: int) -> None:
        begin = time.monotonic()
        while not least < caption_width(display) < most:
            assert time.monotonic() < begin + 60 and program.poll() is None
            time.sleep(0.05)

    with virtual_display() as display:
        program = play("--open3d", DISPLAY=display, LIBGL_ALWAYS_SOFTWARE="1")
        try:
            assert "hand over" in program.stdout.readline()
            keyboard = XKeyboard(display)
            wait_for_caption(800, 1280)
            keyboard.hold("Up", True)
            wait_for_caption(200, 450)
            time.sleep(1.0)
            keyboard.hold("Up", False)
            keyboard.press("m")
            wait_for_caption(450, 800)
            time.sleep(1.0)
            keyboard.press("r")
            wait_for_caption(800, 1280)
            keyboard.press("Escape")
            said, _ = program.communicate(timeout=60)
        finally:
            program.kill()
    assert program.returncode == 0 and "steps/s" in said, said
    assert_driven(tmp_path / "out")
    assert load_rollout(tmp_path / "out" / "rollout.npz").ego_pose[-1, 0] > 3.0


def test_a_window_without_a_display_ends_in_one_line(tmp_path, monkeypatch, capsys):
    for name, value in (("DISPLAY", ""), ("WAYLAND_DISPLAY", ""), ("XDG_RUNTIME_DIR", str(tmp_path))):
        monkeypatch.setenv(name, value)
    assert main(["play", "--open3d", "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert "no display" in said and said.count("\n") == 1


def test_an_agent_of_other_actions_is_refused_in_one_line(straight_road, tmp_path, capsys):
    save_scene(straight_road(), tmp_path / "road.safetensors")
    (tmp_path / "mine.py").write_text("def drive(observation):\n    return 0\ndrive.action = 'manoeuvre'\n")
    arguments = [
        "--world",
        "replay",
        "--scenes",
        str(tmp_path / "road.safetensors"),
        "--out",
        str(tmp_path / "out"),
    ]
    assert main(["play", *arguments, "--agent", f"{tmp_path / 'mine.py'}:drive"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "acts by manoeuvre" in said
