"""Scene sources and starts: what a spec opens, what it refuses, where episodes begin."""

import dataclasses
import math
import subprocess
import sys
import types

import numpy as np
import pytest
import torch

from occsora_sim.errors import MissingDependencyError, SceneError
from occsora_sim.grid import CAR, FREE, PEDESTRIAN, TINY
from occsora_sim.scenes import source
from occsora_sim.scenes.file import load_scene, save_scene
from occsora_sim.scenes.scene import Scene
from occsora_sim.scenes.source import open_scenes
from occsora_sim.scenes.start import Start, ego_poses, make_start, sample_starts


def make_scene(name="hand-built", steps=61, dt=0.5, egos=2):
    """Ego 0 drives east at 2 m/s in place of track 0; ego 1 stands at (0, 5), a pedestrian at (8, 3)."""
    time = np.arange(steps) * dt
    state = np.zeros((2, steps, 5), np.float32)
    state[0, :, 0], state[0, :, 3] = 2 * time + 1.5, 2
    state[1, :, :2] = 8, 3
    pose = np.zeros((egos, steps, 3), np.float32)
    pose[0, :, 0] = 2 * time
    pose[1:, :, 1] = 5
    return Scene(
        name=name,
        dt=dt,
        polygon_points=np.zeros((0, 2), np.float32),
        polygon_offsets=np.zeros(1, np.int64),
        polygon_class=np.zeros(0, np.uint8),
        polygon_z=np.zeros((0, 2), np.float32),
        lane_points=np.zeros((0, 2), np.float32),
        lane_offsets=np.zeros(1, np.int64),
        lane_width=np.zeros(0, np.float32),
        track_state=state,
        track_valid=np.ones((2, steps), bool),
        track_size=np.array([[4.5, 1.9, 1.6], [0.8, 0.8, 1.7]], np.float32),
        track_class=np.array([CAR, PEDESTRIAN], np.uint8),
        ego_pose=pose,
        ego_valid=np.ones((egos, steps), bool),
        ego_track=np.array([0, *[-1] * (egos - 1)]),
        ego_kind=("expert", *["standstill"] * (egos - 1)),
        route_points=np.arange(2 * 3 * egos, dtype=np.float32).reshape(-1, 2),
        route_offsets=np.arange(egos + 1) * 3,
    )


@pytest.fixture
def made(monkeypatch, tmp_path):
    """A make_town that costs nothing; the list of the seeds that it was asked for."""
    seeds = []

    def make_town(seed):
        seeds.append(seed)
        return make_scene(f"traffic-{seed}")

    monkeypatch.setitem(sys.modules, "occsora_sim.scenes.traffic", types.SimpleNamespace(make_town=make_town))
    monkeypatch.setattr(source, "_generator_key", lambda: "abc")
    return seeds


def test_a_town_is_made_once_and_then_read(made, tmp_path):
    first = open_scenes("traffic:7", tmp_path)
    second = open_scenes("traffic:7", tmp_path)
    assert made == [7]
    assert [s.name for s in first + second] == ["traffic-7"] * 2
    assert [p.name for p in tmp_path.iterdir()] == ["town-7-abc.safetensors"]


def test_a_damaged_town_of_the_cache_is_made_again(made, tmp_path):
    open_scenes("traffic:7", tmp_path)
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:100])
    assert open_scenes("traffic:7", tmp_path)[0].name == "traffic-7"
    assert made == [7, 7]


def test_the_cache_folder_comes_from_the_environment(made, tmp_path, monkeypatch):
    monkeypatch.setenv("OCCSORA_SIM_CACHE", str(tmp_path / "here"))
    open_scenes("traffic:3")
    assert (tmp_path / "here" / "town-3-abc.safetensors").is_file()


def test_towns_come_in_the_order_of_their_seeds(made, tmp_path):
    for seed in (9, 11, 10):
        open_scenes(f"traffic:{seed}", tmp_path)
    assert [s.name for s in open_scenes("traffic:9-11", tmp_path)] == [
        "traffic-9",
        "traffic-10",
        "traffic-11",
    ]


def test_files_and_folders_are_opened_in_the_order_of_their_names(tmp_path):
    for name in ("b", "a", "c"):
        save_scene(make_scene(name), tmp_path / f"{name}.safetensors")
    assert [s.name for s in open_scenes(tmp_path)] == ["a", "b", "c"]
    assert [s.name for s in open_scenes(str(tmp_path / "b.safetensors"))] == ["b"]


def test_specs_are_joined_by_a_plus_and_a_path_with_one_is_a_path(made, tmp_path):
    save_scene(make_scene("log"), tmp_path / "a+b.safetensors")
    spec = f"traffic:3-4+{tmp_path / 'a+b.safetensors'}"
    with pytest.raises(SceneError, match="there is no such file"):  # which plus joins is not guessed
        open_scenes(spec, tmp_path)
    assert [s.name for s in open_scenes(tmp_path / "a+b.safetensors")] == ["log"]
    (tmp_path / "a+b.safetensors").rename(tmp_path / "c.safetensors")
    spec = f"traffic:4+{tmp_path / 'c.safetensors'}+traffic:3"
    names = ["traffic-4", "log", "traffic-3"]
    assert [s.name for s in open_scenes(spec, tmp_path)] == names
    assert [s.name for s in source.each_scene(spec, tmp_path)] == names


@pytest.mark.parametrize(
    "spec",
    [
        "traffic:3+",
        "+",
        "traffic:",
        "traffic:x",
        "traffic:5-3",
        "traffic:-1",
        "traffic:1-2-3",
        "traffic:1 ",
        "nuscenes",
        "",
    ],
)
def test_unusable_specs_are_refused_with_what_is_accepted(spec, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SceneError) as error:
        open_scenes(spec, tmp_path)
    message = str(error.value)
    assert "traffic:A" in message and "\n" not in message
    assert not list(tmp_path.iterdir())


def test_an_empty_folder_and_a_foreign_file_are_refused(tmp_path):
    with pytest.raises(SceneError, match="holds no scene file"):
        open_scenes(tmp_path)
    foreign = tmp_path / "notes.txt"
    foreign.write_text("hello")
    with pytest.raises(SceneError, match="no scene file"):
        open_scenes(foreign)


def test_a_worker_hands_on_the_error_and_its_kind():
    error = source._worker_error("some warning\nMissingDependencyError: SUMO is not installed: pip", 2)
    assert type(error) is MissingDependencyError and str(error) == "SUMO is not installed: pip"
    error = source._worker_error("Traceback\n  File\nKeyError: 3\n", 1)
    assert type(error) is SceneError and "KeyError: 3" in str(error) and "\n" not in str(error)


@pytest.mark.slow
def test_several_towns_are_made_in_parallel_and_equal_those_made_alone(tmp_path):
    pytest.importorskip("sumo", reason="towns are made by SUMO")
    # from a script without a __main__ guard, as a person would write it
    script = (
        "from pathlib import Path; from occsora_sim.scenes.source import open_scenes; "
        f"open_scenes('traffic:3-4', Path({str(tmp_path)!r}))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    alone = open_scenes("traffic:4", tmp_path / "alone")[0]
    both = open_scenes("traffic:3-4", tmp_path)
    assert [s.name for s in both] == ["traffic-3", "traffic-4"]
    for field in dataclasses.fields(Scene):
        a, b = getattr(alone, field.name), getattr(both[1], field.name)
        assert np.array_equal(a, b) if isinstance(a, np.ndarray) else a == b


def test_a_start_shows_the_history_without_the_ego():
    scene = make_scene()
    start = make_start(scene, ego=0, step=6, grid=TINY, history=3)
    assert start.ego_pose[:, 0].tolist() == [4.0, 5.0, 6.0]  # 2 m/s, 0.5 s apart, ending at 3 s
    assert start.ego_pose.dtype == torch.float32
    assert not (start.occupancy == CAR).any()
    ahead = [(o == PEDESTRIAN).nonzero()[:, 0].float().mean().item() * 0.8 for o in start.occupancy]
    assert np.diff(ahead) == pytest.approx([-1, -1], abs=0.5)  # the ego comes nearer
    assert np.array_equal(start.route, scene.route(0))
    assert start.source == (scene, 0, 6)
    seen = make_start(scene, ego=1, step=6, grid=TINY)
    assert (seen.occupancy == CAR).any()
    assert seen.occupancy.shape == (4, *TINY.shape) and set(seen.occupancy.unique().tolist()) == {
        CAR,
        PEDESTRIAN,
        FREE,
    }


def test_history_steps_may_lie_between_track_steps():
    pose = ego_poses(make_scene(dt=0.2), 0, torch.tensor([1.0, 1.1, 1.5]))
    assert pose[:, 0].tolist() == pytest.approx([2.0, 2.2, 3.0], abs=1e-5)


def test_yaw_is_interpolated_the_short_way_round():
    scene = make_scene()
    scene.ego_pose[0, :2, 2] = 3.0, -3.0
    yaw = ego_poses(scene, 0, torch.tensor([0.25]))[0, 2].item()
    assert abs(yaw) == pytest.approx(math.pi, abs=1e-5)


@pytest.mark.parametrize(
    ("ego", "step", "history"), [(5, 10, 4), (-1, 10, 4), (0, 2, 4), (0, 61, 1), (0, 9, 0)]
)
def test_impossible_starts_are_refused_in_one_line(ego, step, history):
    with pytest.raises(SceneError) as error:
        make_start(make_scene(), ego, step, TINY, history)
    assert "hand-built" in str(error.value) and "\n" not in str(error.value)


def test_starts_are_repeatable_spread_over_scenes_and_move():
    scenes = [make_scene("a"), make_scene("b"), make_scene("c")]
    starts = sample_starts(scenes, 7, seed=3, history=3, grid=TINY)
    again = sample_starts(scenes, 7, seed=3, history=3, grid=TINY)
    other = sample_starts(scenes, 7, seed=4, history=3, grid=TINY)
    assert [s.name for s in starts] == [s.name for s in again] != [s.name for s in other]
    assert all(torch.equal(a.occupancy, b.occupancy) for a, b in zip(starts, again, strict=True))
    counts = [sum(s.source[0].name == name for s in starts) for name in "abc"]
    assert sorted(counts) == [2, 2, 3]
    assert all(s.source[1] == 0 for s in starts)  # the other ego stands
    assert all(2 <= s.source[2] <= 61 - 1 - 20 for s in starts)  # 1 s of history, 10 s of future
    assert len(sample_starts(scenes, 2, seed=0, grid=TINY)) == 2


def test_no_start_to_draw_is_refused():
    with pytest.raises(SceneError, match="drift"):
        sample_starts([make_scene()], 1, seed=0, grid=TINY, kinds=("drift",))
    with pytest.raises(SceneError, match="longer scenes"):
        sample_starts([make_scene()], 1, seed=0, grid=TINY, least_future=60, future=60)
    with pytest.raises(SceneError, match="moves"):
        sample_starts([make_scene()], 1, seed=0, grid=TINY, kinds=("standstill",))


def test_a_start_is_what_worlds_take():
    from occsora_sim.worlds import protocol

    assert protocol.Start is Start


def test_reading_a_saved_scene_gives_the_same_start(tmp_path):
    save_scene(make_scene(), tmp_path / "s.safetensors")
    a = make_start(make_scene(), 1, 9, TINY)
    b = make_start(load_scene(tmp_path / "s.safetensors"), 1, 9, TINY)
    assert torch.equal(a.occupancy, b.occupancy) and torch.equal(a.ego_pose, b.ego_pose)
