"""Edited starts on a straight road: who is placed, moved, removed or scripted is where it should be, in every world."""

import math
import re
from dataclasses import replace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

import occsora_sim  # noqa: F401  (registers the id)
from occsora_sim.cli import main
from occsora_sim.envs.drive import DriveEnv
from occsora_sim.envs.road_user_edit import read_edits
from occsora_sim.envs.scene_edit import edit_start
from occsora_sim.envs.vector import DriveVectorEnv
from occsora_sim.errors import ConfigurationError, OccSoraError, SceneError
from occsora_sim.grid import CAR, DRIVEABLE, FREE, PEDESTRIAN, TINY, TRUCK
from occsora_sim.scenes.file import load_scene, save_scene
from occsora_sim.scenes.start import SCRIPTED, Start, make_start
from occsora_sim.watch import Operations, Watch, mark
from occsora_sim.worlds.diffusion import DiffusionWorld
from occsora_sim.worlds.replay import ReplayWorld
from occsora_sim.worlds.scripts import Scripts
from occsora_sim.worlds.traffic import TrafficWorld

STEP = 10  # of the start: 5 s, the ego at x = 40 m and 8 m/s


@pytest.fixture(scope="module")
def start(straight_road) -> Start:
    """The ego's own car is track 0; track 1 drives 12 m before it, track 2 stands 6 m to its left."""
    return make_start(straight_road(cars=[(13.0, 0.0, 8.0), (40.0, 6.0, 0.0)]), 0, STEP, TINY, history=4)


def edited(start: Start, *edits: dict[str, Any]) -> Start:
    return edit_start(start, read_edits(edits), TINY)


def cells(frame: torch.Tensor, label: int) -> set[tuple[int, int]]:
    """The columns that hold a label."""
    return {(int(i), int(j)) for i, j in (frame == label).any(dim=-1).nonzero()}


def cell(x: float, y: float) -> tuple[int, int]:
    return math.floor((x - TINY.lower[0]) / TINY.voxel), math.floor((y - TINY.lower[1]) / TINY.voxel)


def told(start: Start) -> dict[int, list[float]]:
    """Of each road user by id: x, y in the ego frame [m], speed [m/s]."""
    users = start.users
    assert users is not None
    x, y = start.ego_pose[-1, :2].tolist()
    return {
        number: [at[0] - x, at[1] - y, speed]
        for number, at, speed in zip(
            users.id[0].tolist(), users.now[0].tolist(), users.speed[0].tolist(), strict=True
        )
        if number >= 0
    }


def drive(world: Any, start: Start, seconds: int, speed: float = 8.0) -> list[Any]:
    """States of a world after each second straight on."""
    states = [world.reset([start], [0])]
    ahead = torch.tensor([[[speed / 2, 0.0, 0.0], [speed, 0.0, 0.0]]])
    for _ in range(seconds):
        states.append(world.step(states[-1], ahead))
    return states


def place_of(state: Any, number: int) -> list[float]:
    """World x, y [m] of a road user."""
    return state.users.now[0, state.users.id[0].tolist().index(number), :2].tolist()


# --------------------------------------------------------------------------- placed, moved, removed
def test_a_placed_truck_is_in_the_frames_at_its_place_with_its_past(start):
    after = edited(start, {"class": "truck", "x": 12.0, "y": -6.0, "speed": 4.0})
    assert told(after)[3] == pytest.approx([12.0, -6.0, 4.0], abs=1e-4)
    for ago, frame in enumerate(reversed(after.occupancy)):
        x = 12.0 + (8.0 - 4.0) * 0.5 * ago  # seen from an ego that was farther behind
        assert cell(x, -6.0) in cells(frame, TRUCK)
        assert {i for i, _ in cells(frame, TRUCK)} <= set(range(cell(x - 3.6, 0)[0], cell(x + 3.6, 0)[0] + 1))
    assert not cells(start.occupancy[-1], TRUCK)


def test_a_removed_car_leaves_the_ground_that_was_beneath_it(start):
    after = edited(start, {"remove": 1})
    assert cell(11.7, 0.0) in cells(start.occupancy[-1], CAR)
    assert 1 in told(start) and set(told(after)) == {2}
    for before, now in zip(start.occupancy, after.occupancy, strict=True):
        here = (before == CAR).any(-1) & ~(now == CAR).any(-1)
        assert here.any() and (now[here][:, TINY.ground] == DRIVEABLE).all()
        assert (now[here][:, TINY.ground + 1 :] == FREE).all()
        assert torch.equal(now[~here], before[~here])


def test_a_moved_car_keeps_its_number_and_class_and_leaves_its_old_place(start):
    after = edited(start, {"id": 1, "x": 8.0, "y": 2.5, "speed": 5.0})
    assert told(after)[1] == pytest.approx([8.0, 2.5, 5.0], abs=1e-4)
    assert cell(8.0, 2.5) in cells(after.occupancy[-1], CAR)
    assert cell(12.9, 0.0) not in cells(after.occupancy[-1], CAR)


def test_edits_turn_with_the_ego(straight_road):
    scene = straight_road()
    turned = replace(scene, ego_pose=scene.ego_pose + np.array([0.0, 0.0, np.pi / 2], np.float32))
    after = edited(
        make_start(turned, 0, STEP, TINY),
        {"class": "car", "x": 10.0, "y": 3.0, "yaw": -np.pi / 2, "speed": 2.0},
    )
    assert told(after)[1] == pytest.approx([-3.0, 10.0, 2.0], abs=1e-4)
    assert cell(10.0, 3.0) in cells(after.occupancy[-1], CAR)
    assert after.users is not None and float(after.users.velocity[0, 0, 0]) == pytest.approx(2.0)


# --------------------------------------------------------------------------- scripts
def test_a_car_cuts_in_from_the_left_in_three_seconds(start):
    after = edited(start, {"class": "car", "cut_in": "left", "seconds": 3, "x": 6.0}, {"remove": 1})
    assert told(after)[3] == pytest.approx([6.0, 3.5, 8.0], abs=0.05)
    states = drive(ReplayWorld(TINY), after, 4)
    aside = [place_of(state, 3)[1] for state in states]
    assert aside[0] == pytest.approx(3.5, abs=0.01) and aside[3:] == pytest.approx([0.0, 0.0], abs=0.01)
    assert aside[0] > aside[1] > aside[2] > aside[3]
    assert place_of(states[3], 3)[0] - 64.0 == pytest.approx(6.0, abs=0.3)  # the ego at 64 m
    assert cell(6.0, 0.0) in cells(states[3].occupancy[0, -1], CAR)


def test_a_path_is_passed_at_its_times_and_left_straight_on(start):
    path = [[1.0, 10.0, 6.0, 0.0], [2.0, 10.0, 3.0, -1.5], [3.0, 14.0, 3.0, 0.0]]
    after = edited(start, {"class": "pedestrian", "x": 8.0, "y": 6.0, "path": path})
    assert told(after)[3] == pytest.approx([8.0, 6.0, 2.0], abs=1e-4)  # as fast as the path begins
    states = drive(ReplayWorld(TINY), after, 4)
    found = [place_of(state, 3) for state in states]
    expected = [[8.0, 6.0], *([x, y] for _, x, y, _ in path), [18.0, 3.0]]
    assert [[x - 40.0, y] for x, y in found] == pytest.approx(np.array(expected), abs=1e-4)


def test_a_script_of_one_that_is_there_keeps_its_past(start):
    after = edited(start, {"id": 1, "path": [[2.0, 13.0, 0.0, 0.0]]})  # stops where it is
    assert after.users is not None and start.users is not None
    assert torch.equal(after.users.pose, start.users.pose)
    assert place_of(drive(ReplayWorld(TINY), after, 3)[-1], 1)[0] == pytest.approx(53.0, abs=1e-3)


def test_a_generated_world_follows_a_script_until_it_ends_and_then_the_model(start, untrained_model):
    path = [[1.0, 10.0, 6.0, 0.0], [2.0, 10.0, 3.0, -1.5]]
    after = edited(start, {"class": "pedestrian", "x": 8.0, "y": 6.0, "path": path})
    world = DiffusionWorld(untrained_model)
    states = drive(world, after, 3, speed=2.0)
    assert place_of(states[1], 3) == pytest.approx([50.0, 6.0]) and place_of(states[2], 3) == pytest.approx(
        [50.0, 3.0]
    )
    slot = states[2].users.id[0].tolist().index(3)
    assert states[2].users.velocity[0, slot].tolist() == pytest.approx([0.0, -3.0], abs=1e-4)
    assert place_of(states[3], 3) != pytest.approx([50.0, 0.0], abs=1e-3)
    assert (states[2].occupancy[0, -1] == PEDESTRIAN).any()
    free = drive(world, replace(after, scripts={}), 2, speed=2.0)
    assert place_of(free[2], 3) != pytest.approx([50.0, 3.0], abs=1e-3)


def test_a_script_is_the_same_alone_and_in_a_batch_and_survives_select_and_replace(start, untrained_model):
    scripted = edited(start, {"class": "car", "x": 8.0, "y": -6.0, "path": [[2.0, 16.0, -6.0, 0.0]]})
    longer = edited(
        start, {"id": 2, "path": [[4.0, 0.0, 14.0, 1.0]]}, {"class": "bus", "x": -12, "y": 0, "cut_in": None}
    )
    world = DiffusionWorld(untrained_model)
    prompt = torch.tensor([[[2.0, 0.0, 0.0], [4.0, 0.0, 0.0]]])
    state = world.reset([start, scripted, longer], [0, 1, 2])
    state = world.step(
        world.replace(world.select(state, [0, 1, 1]), [0], world.reset([longer], [2])), prompt.expand(3, 2, 3)
    )
    assert place_of(world.select(state, [1]), 3) == pytest.approx([52.0, -6.0])
    assert place_of(world.select(state, [2]), 3) == pytest.approx([52.0, -6.0])
    moved = world.select(state, [0])
    assert place_of(moved, 2) == pytest.approx([40.0, 8.0])


def test_a_scripted_frame_waits_for_nothing_and_takes_as_many_operations_for_any_batch(start):
    edits = [{"id": 1, "path": [[2.0, 13.0, 0.0, 0.0]]}, {"id": 2, "path": [[1.0, 0.0, 8.0, 0.0]]}]
    scripted, counts = edited(start, *edits), set()
    for rows in (1, 3):
        scripts = Scripts.of([scripted] * rows, torch.device("cpu"))
        users, frame = start.users.select([0] * rows), torch.full((rows,), 3)  # type: ignore[union-attr]
        mark([users, scripts, frame])
        with Watch() as watch, Operations() as operations:
            after = scripts.follow(users, frame)
        counts.add(operations.count)
        assert watch.calls and not watch.waits and not watch.mixed
        assert after.now[:, 0, 0].tolist() == pytest.approx([53.0] * rows)  # the other's has ended
        assert torch.equal(after.now[:, 1], users.now[:, 1])
    assert len(counts) == 1


# --------------------------------------------------------------------------- environments
def test_reset_places_road_users_in_one_environment_and_in_a_batch(start):
    options: Any = {
        "world": ReplayWorld(TINY),
        "scenes": [start, start],
        "observation": ("occupancy", "road_users"),
    }
    asked = {"road_users": [{"class": "truck", "x": 12, "y": -6, "speed": 8}, {"remove": 1}]}
    env = DriveEnv(**options)
    seen, info = env.reset(seed=0, options=asked)
    row = info["road_user_ids"].tolist().index(3)
    assert seen["road_users"][row, 1:7] == pytest.approx([12, -6, 1, 0, 8, 0], abs=1e-4)
    assert (
        1 not in info["road_user_ids"] and (seen["occupancy"][-1] == TRUCK).any() and info["start"] in (0, 1)
    )
    assert (env.step(env.action_space.sample() * 0)[0]["occupancy"] == TRUCK).any()
    assert 1 in env.reset()[1]["road_user_ids"]  # of that episode alone
    envs = DriveVectorEnv(num_envs=2, **options)
    envs.reset(seed=0)
    _, infos = envs.reset(options={**asked, "reset_mask": np.array([False, True])})
    assert 3 in infos["road_user_ids"][1] and 3 not in infos["road_user_ids"][0]


def test_episodes_that_stay_on_the_device_begin_with_the_edit(start, untrained_model):
    world = DiffusionWorld(untrained_model)
    envs = gym.make_vec(
        "OccSora/Drive-v0",
        num_envs=2,
        world=world,
        scenes=[start],
        observation=("ego", "road_users"),
        output="torch",
    )
    path = [[3.0, 12.0, -6.0, 0.0]]  # stands
    edits = [{"class": "truck", "x": 12, "y": -6, "path": path}]
    _, infos = envs.reset(seed=0, options={"road_users": edits})
    assert (infos["road_user_ids"] == 3).any(1).all()
    seen, *_, infos = envs.step(torch.zeros(2, 2))
    row = infos["road_user_ids"][0].tolist().index(3)
    assert float(seen["road_users"][0, row, 5:7].norm()) == pytest.approx(0.0, abs=1e-4)
    with pytest.raises(ConfigurationError, match=r"^reset: [^\n]*road_users with a reset_mask[^\n]*$"):
        envs.reset(options={"road_users": edits, "reset_mask": np.array([True, False])})


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        ("car", "give a mapping"),
        ({"class": "tank", "x": 12, "y": 3}, "class='tank': choose one of bicycle, bus, car"),
        ({"class": "car", "x": math.nan, "y": 3}, "x=nan"),
        ({"class": "car", "x": 12}, "needs x and y"),
        ({"class": "car", "x": 12, "y": 3, "colour": "red"}, "unknown key 'colour'"),
        ({"class": "car", "x": 2, "y": 0.5}, "overlaps the ego"),
        ({"class": "car", "x": 14, "y": 0.5}, "overlaps road user 1"),
        ({"class": "car", "x": 60, "y": 0}, "out of view"),
        ({"class": "car", "x": 9, "y": 3, "speed": 90}, "speed=90: must be 0 to 50"),
        ({"class": "car", "x": 9, "y": 3, "size": [4, 2]}, "size=.*give 3 numbers"),
        ({"class": "car", "x": 9, "y": 3, "size": [4, 0, 2]}, "size=.*above 0"),
        ({"class": "car", "x": 9, "y": 3, "path": [[1, 2, 3, 0], [2, 3]]}, "path=.*give 4 numbers"),
        ({"class": "car", "x": 9, "y": 3, "path": [[1, 2, [3], 0]]}, "path=.*must be a finite number"),
        ({"class": "car", "x": 9, "y": 3, "path": 3}, "path=3: give a list"),
        ({"class": ["car"], "x": 9, "y": 3}, "choose one of bicycle"),
        ({"class": "car", "x": 9, "y": 3, "path": [[2, 9, 9, 0], [1, 9, 9, 0]]}, "increase"),
        ({"class": "car", "x": 9, "y": 3, "path": [[1, 9, 99, 0]]}, "takes 96 m/s"),
        ({"class": "car", "x": 9, "y": 3, "path": [[99, 9, 9, 0]]}, "the recording goes on for 15 s"),
        ({"class": "car", "cut_in": "above"}, "choose left or right"),
        ({"class": "car", "cut_in": "left", "x": 9, "y": -3}, "3.0 m to the right"),
        ({"class": "car", "x": 9, "y": 3, "seconds": 2}, "seconds is how long"),
        ({"id": 2, "cut_in": "left"}, "it must drive"),
        ({"id": 1}, "say what shall become of it"),
        ({"id": 17, "x": 3}, "there is no road user 17"),
        ({"remove": 0}, "there is no road user 0"),  # the ego's own car
        ({"remove": 1, "x": 3}, "remove stands alone"),
        ({"x": 3, "y": 3}, "give class for a new road user"),
    ],
)
def test_an_edit_that_cannot_be_is_refused_in_one_line(start, edit, message):
    env = DriveEnv(world=ReplayWorld(TINY), scenes=[start])
    with pytest.raises(ConfigurationError, match=rf"^road_users\[0\][^\n]*{message}[^\n]*$"):
        env.reset(options={"road_users": [edit]})


def test_a_start_without_tracks_and_live_traffic_are_refused(start):
    with pytest.raises(ConfigurationError, match=r"^road_users: start [^\n]*has no tracks[^\n]*$"):
        edited(replace(start, source=None), {"remove": 1})
    after = edited(start, {"remove": 1})
    after.source[0].attributes.update(source="traffic", seed="0", config="{}")
    with pytest.raises(ConfigurationError, match=r'^[^\n]*were edited[^\n]*world="replay"[^\n]*$'):
        TrafficWorld(TINY).reset([after], [0])


# --------------------------------------------------------------------------- files
def test_an_edited_scene_saved_and_read_again_gives_the_same_start(start, tmp_path):
    after = edited(
        start, {"class": "car", "cut_in": "right", "seconds": 2}, {"remove": 2}, {"id": 1, "x": 14, "y": 3}
    )
    path = tmp_path / "edited.safetensors"
    save_scene(after.source[0], path)
    env = DriveEnv(world=ReplayWorld(TINY), scenes=path, starts=3)
    for again in env.simulation.starts:
        assert torch.equal(again.occupancy, after.occupancy) and torch.equal(again.ego_pose, after.ego_pose)
        assert torch.equal(again.route, after.route) and told(again) == told(after)
        assert again.scripts.keys() == after.scripts.keys() == {3}
        assert torch.equal(again.scripts[3], after.scripts[3]) and len(after.scripts[3]) == 4
    twice = edited(env.simulation.starts[0], {"remove": 1})
    assert set(told(twice)) == {3} and twice.scripts.keys() == {3}
    assert not edited(twice, {"id": 3, "speed": 0}).scripts, "moved anew, it is scripted no longer"


@pytest.mark.parametrize("scripts", ["{", "[1]", '{"99": 8}', '{"1": 1e9}', '{"1": NaN}'])
def test_scripts_in_a_file_that_are_not_of_its_scene_are_refused_in_one_line(start, scripts, tmp_path):
    scene = edited(start, {"remove": 2}).source[0]
    path = tmp_path / "edited.safetensors"
    save_scene(replace(scene, attributes={**scene.attributes, SCRIPTED: scripts}), path)
    with pytest.raises(SceneError, match=r"^scene straight-edited: its attribute 'scripted'[^\n]*$"):
        make_start(load_scene(path), 0, STEP, TINY)


@pytest.mark.parametrize("step", ["-1", "x", "1", "99999"])
def test_a_scene_whose_start_is_not_in_it_offers_none(start, step):
    scene = edited(start, {"remove": 2}).source[0]
    bad = replace(scene, attributes={**scene.attributes, "start": step})
    with pytest.raises(OccSoraError, match=rf"^[^\n]*start, step {step}[^\n]*$"):
        DriveEnv(world=ReplayWorld(TINY), scenes=[bad])


# --------------------------------------------------------------------------- the command
def test_the_command_lists_who_is_there_and_writes_what_is_edited(straight_road, tmp_path, capsys):
    path, out = tmp_path / "road.safetensors", tmp_path / "edited.safetensors"
    save_scene(straight_road(cars=[(13.0, 0.0, 8.0)]), path)
    asked = ["scenes", "edit", str(path), "--out", str(out)]
    assert main(asked) == 0 and not out.exists()
    assert re.search(r"\b1 +car +13\.0 +0\.0 +0\.00 +8\.0\b", capsys.readouterr().out)
    assert main([*asked, "--road-users", '{"remove": 1}', '{"class": "truck", "x": 20, "y": 5}']) == 0
    assert re.search(r"\b2 +truck +20\.0 +5\.0 +0\.00 +0\.0\b", capsys.readouterr().out)
    scene = load_scene(out)
    assert not scene.track_valid[1].any() and scene.track_class.tolist() == [CAR, CAR, TRUCK]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--road-users", "{remove: 1}"], "--road-users: no JSON"),
        (["--road-users", "3"], r"road_users\[0\]=3: give a mapping"),
        (["--road-users", '{"remove": 1}', "--out", "edited.json"], "a scene file ends in .safetensors"),
        (["--start", "64"], "--start 64: give 0 to 63"),
    ],
)
def test_the_command_refuses_what_cannot_be_in_one_line(
    straight_road, tmp_path, capsys, monkeypatch, more, message
):
    monkeypatch.chdir(tmp_path)
    save_scene(straight_road(), tmp_path / "road.safetensors")
    assert main(["scenes", "edit", "road.safetensors", *more]) == 2
    assert re.fullmatch(rf"occsora-sim: [^\n]*{message}[^\n]*\n", capsys.readouterr().err)
    assert [path.name for path in tmp_path.iterdir()] == ["road.safetensors"]
