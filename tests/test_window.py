"""The window of `view --open3d`: what its keys do, what is hidden, where its cameras stand, and how it ends."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from display import virtual_display
from PIL import Image
from small_rollout import GRID, small_rollout

from occsora_sim.cli import main
from occsora_sim.grid import CAR, DRIVEABLE, FREE, MANMADE, NUM_CLASSES
from occsora_sim.rendering.palette import COLOURS, HAZE
from occsora_sim.rendering.rollout import save_rollout
from occsora_sim.viewer.look import CAMERAS, ESCAPE, GROUPS
from occsora_sim.viewer.playback import END, HOME, LEFT, RIGHT, SPACE, Playback


def pressed(state: Playback, *keys: int | str) -> Playback:
    for key in keys:
        state.press(ord(key) if isinstance(key, str) else key)
    return state


def test_it_plays_in_real_time_and_stops_at_the_last_frame():
    state = Playback(frames=4)
    seen = []
    for elapsed in (0.0, 0.4, 0.2, 0.5, 0.3, 0.2):
        state.advance(elapsed)
        seen.append((state.frame, state.playing))
    assert seen == [(0, True), (0, True), (1, True), (2, True), (2, True), (3, False)]
    assert pressed(state, SPACE).frame == 0 and state.playing, "space at the end begins again"
    assert not pressed(state, SPACE).playing
    state.advance(10.0)
    assert state.frame == 0, "the time of a pause does not count"


def test_arrows_scrub_within_the_rollout_and_pause():
    state = pressed(Playback(frames=4), RIGHT)
    assert state.frame == 1 and not state.playing
    assert [pressed(state, key).frame for key in (RIGHT, RIGHT, RIGHT, LEFT)] == [2, 3, 3, 2]
    assert [pressed(state, key).frame for key in (HOME, LEFT, END)] == [0, 0, 3]
    alone = pressed(Playback(frames=1), RIGHT, LEFT, END)
    alone.advance(1.0)
    assert alone.frame == 0


def test_keys_choose_the_camera_hide_classes_and_close():
    state = Playback(frames=2)
    assert [pressed(state, key).camera for key in "231"] == ["orbit", "top", "chase"]
    assert pressed(state, "R", "G", "R").hidden == {"G"}
    before = vars(state).copy()
    assert vars(pressed(state, "X", 300)) == before, "other keys do nothing"
    assert not state.closed
    assert pressed(Playback(frames=2), "Q").closed and pressed(Playback(frames=2), ESCAPE).closed


def test_every_class_but_free_is_in_one_group_and_hidden_ones_are_free():
    labels = [label for _, group in GROUPS.values() for label in group]
    assert sorted(labels) == [label for label in range(NUM_CLASSES) if label != FREE]
    occupancy = np.array([CAR, DRIVEABLE, MANMADE, FREE], np.uint8).reshape(2, 2, 1)
    state = pressed(Playback(frames=1), "R", "B")
    assert state.shown(occupancy).ravel().tolist() == [FREE, DRIVEABLE, FREE, FREE]
    assert state.shown(occupancy).dtype == np.uint8
    assert occupancy.ravel().tolist() == [CAR, DRIVEABLE, MANMADE, FREE], "the rollout keeps them"


@pytest.mark.parametrize(("width", "height"), [(1280, 720), (400, 800)])
def test_the_cameras_of_a_frame_see_the_ego_and_from_above_the_whole_grid(width, height):
    def seen(camera: str, point: tuple[float, float, float]) -> tuple[float, float]:
        pinhole = Playback(frames=1, camera=camera).pinhole(GRID, width, height)
        x, y, z = pinhole.intrinsic() @ (pinhole.extrinsic() @ (*point, 1.0))[:3]
        assert z > 0, "in front of the camera"
        return x / z, y / z

    for camera in CAMERAS.values():
        x, y = seen(camera, (1.3, 0.0, 0.5))
        assert 0 < x < width and 0 < y < height
    centre = seen("top", (0.0, 0.0, 0.0))
    assert centre == pytest.approx((width / 2 - 0.5, height / 2 - 0.5), abs=1e-6)
    ahead, left = seen("top", (12.0, 0.0, 0.0)), seen("top", (0.0, 12.0, 0.0))
    half = min(width, height) / 2
    assert ahead == pytest.approx((centre[0], centre[1] - half), abs=1.0), "ahead is up, to the border"
    assert left == pytest.approx((centre[0] - half, centre[1]), abs=1.0)
    assert Playback(frames=1).pinhole(GRID, width, height).eye[0] < 0, "the chase camera is behind"


# ------------------------------------------------------------------------------- the window itself
@pytest.mark.parametrize("named", ["", ":9876"])
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere a desktop is always there")
def test_without_a_display_it_ends_in_one_line(named, tmp_path, monkeypatch, capfd):
    save_rollout(small_rollout(), tmp_path / "rollout.npz")
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setenv("DISPLAY", named)
    assert main(["view", str(tmp_path), "--open3d"]) == 2
    out, err = capfd.readouterr()
    assert not out and "no display" in err and "--html" in err and len(err.splitlines()) == 1


@pytest.mark.parametrize("arguments", [["a", "b", "--open3d"], ["a", "--open3d", "--html", "page.html"]])
def test_a_window_shows_one_rollout_and_writes_no_page(arguments, capsys):
    assert main(["view", *arguments]) == 2
    assert "one rollout" in capsys.readouterr().err


@pytest.mark.slow
def test_keys_on_a_display_reach_the_window_and_it_draws(tmp_path):
    with virtual_display() as display:
        driven = subprocess.run(
            [sys.executable, str(Path(__file__).with_name("window_driver.py")), str(tmp_path)],
            env={**os.environ, "DISPLAY": display, "LIBGL_ALWAYS_SOFTWARE": "1"},
            capture_output=True,
            text=True,
            timeout=300,
            check=True,
        )
    assert json.loads(driven.stdout.splitlines()[-1]) == [
        # key, goes on, playing, frame, camera, hidden
        ["space", True, False, 0, "chase", []],
        ["Right", True, False, 1, "chase", []],
        ["2", True, False, 1, "orbit", []],
        ["3", True, False, 1, "top", []],
        ["g", True, False, 1, "top", ["G"]],
        ["End", True, False, 6, "top", ["G"]],
        ["q", False, False, 6, "top", ["G"]],
    ]
    top, hidden, end = (np.asarray(Image.open(tmp_path / f"{k}.png")) for k in (3, 4, 5))
    flat = np.abs(top.astype(int) - COLOURS["terrain"]).max(axis=-1) < 8
    assert flat.mean() > 0.15, "the ground, in the palette's colour"
    assert (np.abs(hidden[flat].astype(int) - HAZE).max(axis=-1) < 8).mean() > 0.95, (
        "and nothing where it was"
    )
    blue = [np.argwhere(np.abs(p.astype(int) - COLOURS["car"]).max(axis=-1) < 8) for p in (hidden, end)]
    assert len(blue[0]) > 1000 and len(blue[1]) > 100
    assert blue[1][:, 0].min() < blue[0][:, 0].min(), "the car ahead has gained on the ego: higher up"
