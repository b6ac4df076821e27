"""`render_mode="human"`: reset and step show the drive in a window, at true speed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from display import virtual_display
from gymnasium.utils.env_checker import check_env
from PIL import Image
from small_rollout import small_rollout

import occsora_sim  # noqa: F401  (registers the id)
from occsora_sim.envs.human_view import render_modes
from occsora_sim.errors import ConfigurationError, MissingDependencyError
from occsora_sim.rendering.palette import COLOURS
from occsora_sim.scenes.file import save_scene
from occsora_sim.viewer import drive_window
from occsora_sim.viewer.drive_window import DriveWindow
from occsora_sim.viewer.look import Look


@pytest.fixture
def scene(straight_road, tmp_path):
    """The file of a road along which cars stand."""
    save_scene(straight_road(cars=[(x, 3.0, 0.0) for x in range(20, 160, 20)]), tmp_path / "road.safetensors")
    return str(tmp_path / "road.safetensors")


class Unseen(DriveWindow):
    """The times of frames, in a window that nobody sees, by a clock of its own."""

    def __init__(self):
        self.now, self.times, self.left = 0.0, [], np.inf
        self._look, self._due, self._drawn = Look(), 0.0, ()

    def draw(self, rollout, frame, look, caption):
        self.times.append((caption, round(self.now, 1)))

    def poll(self):
        self.now += 0.01
        return self.now < self.left


@pytest.fixture
def unseen(monkeypatch):
    window = Unseen()
    monkeypatch.setattr(drive_window.time, "monotonic", lambda: window.now)
    window.show(small_rollout(), ["a"], new=True)
    return window


def test_frames_are_shown_at_true_speed_or_as_fast_as_they_come(unseen):
    for name, seconds in (
        ("b", 0.0),
        ("c", 0.3),
        ("d", 2.0),
        ("e", 0.0),
    ):  # that the world takes for two frames
        unseen.now += seconds
        assert unseen.show(small_rollout(), [f"{name}1", f"{name}2"])
    assert unseen.times[:5] == [("a", 0.0), ("b1", 0.5), ("b2", 1.0), ("c1", 1.5), ("c2", 2.0)]
    late = unseen.times[5:]
    assert late == [("d1", 4.0), ("d2", 4.0), ("e1", 4.5), ("e2", 5.0)], "nothing waits after a late one"
    unseen.now += 3.0
    unseen.show(small_rollout(), ["f"], new=True)
    unseen.show(small_rollout(), ["g"])
    assert [time for _, time in unseen.times[9:]] == [8.0, 8.5], "the time before an episode is no delay"


def test_a_key_turns_the_camera_of_the_frame_that_is_shown(unseen):
    unseen._look.press(ord("3"))
    unseen.show(small_rollout(), ["b"])
    assert [name for name, _ in unseen.times] == ["a", "a", "b"]


def test_a_window_that_is_closed_is_waited_for_no_more(unseen):
    unseen.left = 0.2
    assert not unseen.show(small_rollout(), ["b", "c"]) and unseen.now < 0.3


@pytest.mark.slow
def test_reset_and_step_show_frames_and_close_and_escape_close(scene, tmp_path):
    with virtual_display() as display:
        driven = subprocess.run(
            [sys.executable, str(Path(__file__).with_name("human_driver.py")), scene, str(tmp_path)],
            env={**os.environ, "DISPLAY": display, "LIBGL_ALWAYS_SOFTWARE": "1"},
            capture_output=True,
            text=True,
            timeout=300,
        )
    assert driven.returncode == 0, driven.stderr
    assert "human" not in driven.stderr and "render" not in driven.stderr, "the checker is content"
    found = json.loads(driven.stdout.splitlines()[-1])
    assert found == {"render": None, "modes": ["human", "rgb_array"]}
    names = ("before", "reset", "step0", "step1", "closed", "escaped")
    pictures = {
        name: np.asarray(Image.open(tmp_path / f"{name}.png").convert("RGB")).astype(int) for name in names
    }
    road = {
        name: (np.abs(p - COLOURS["driveable_surface"]).max(axis=-1) < 30).mean()
        for name, p in pictures.items()
    }
    assert min(road[name] for name in ("reset", "step0", "step1")) > 0.1, road
    assert max(road[name] for name in ("before", "closed", "escaped")) < 0.01, road
    for one, other in (("reset", "step0"), ("step0", "step1")):
        moved = (pictures[one] != pictures[other])[120:].any(axis=-1)  # below the line of text
        assert moved.mean() > 0.01, (one, other)


@pytest.fixture
def no_display(monkeypatch, tmp_path):
    """An environment in which no window can open."""
    if not sys.platform.startswith("linux"):
        pytest.skip("elsewhere a desktop is always there")
    for name, value in (("DISPLAY", ""), ("WAYLAND_DISPLAY", ""), ("XDG_RUNTIME_DIR", str(tmp_path))):
        monkeypatch.setenv(name, value)


def test_without_a_display_it_says_what_to_do_in_one_line(no_display):
    with pytest.raises(MissingDependencyError, match=r"^[^\n]*no display[^\n]*rgb_array[^\n]*$"):
        gym.make("OccSora/Drive-v0", render_mode="human", world="replay")


def test_the_checker_is_content_without_a_display(no_display, scene):
    assert render_modes() == ["rgb_array"]
    check_env(gym.make("OccSora/Drive-v0", world="replay", scenes=scene, starts=1, seconds=3.0).unwrapped)


def test_a_batch_has_no_window():
    with pytest.raises(ConfigurationError, match=r"^render_mode='human': choose None or 'rgb_array'$"):
        gym.make_vec("OccSora/Drive-v0", num_envs=2, render_mode="human")
