"""Rare things by name and seed: they happen, to the ego, and the live world plays them again."""

import contextlib
import functools
import json
from itertools import islice, pairwise

import numpy as np
import pytest
import torch

from occsora_sim.errors import ConfigurationError
from occsora_sim.geometry import relative, to_frame
from occsora_sim.grid import (
    BUS,
    CAR,
    CONSTRUCTION_VEHICLE,
    FREE,
    MOTORCYCLE,
    PEDESTRIAN,
    TINY,
    TRAFFIC_CONE,
    TRUCK,
    Grid,
)
from occsora_sim.scenes.drafts import DRAFTS
from occsora_sim.scenes.file import load_scene, save_scene
from occsora_sim.scenes.scenario import HELD_OUT, SCENARIOS, _towns, make_scenario
from occsora_sim.scenes.start import make_start, sample_starts
from occsora_sim.scenes.sumo_events import Script
from occsora_sim.worlds.protocol import World
from occsora_sim.worlds.replay import ReplayWorld
from occsora_sim.worlds.traffic import TrafficWorld

once = functools.cache(make_scenario)


@pytest.fixture(scope="module", params=SCENARIOS)
def scenario(request):
    return request.param, once(request.param, 0)


@pytest.fixture(scope="module")
def world():
    made = TrafficWorld(TINY)
    yield made
    made.close()


def seen(scene, step):
    """Where the other tracks' centres are from the ego's rear axle: ahead, left [m], speed [m/s]."""
    x, y, yaw = scene.ego_pose[0, step].astype(float)
    state = scene.track_state[:, step].astype(float)
    dx, dy = state[:, 0] - x, state[:, 1] - y
    ahead, left = np.cos(yaw) * dx + np.sin(yaw) * dy, np.cos(yaw) * dy - np.sin(yaw) * dx
    there = scene.track_valid[:, step].copy()
    there[scene.ego_track[0]] = False
    return np.where(there, ahead, np.nan), np.where(there, left, np.nan), np.linalg.norm(state[:, 3:], axis=1)


@pytest.mark.slow
def test_it_happens_to_the_ego(scenario):
    name, scene = scenario
    moment = round(float(scene.attributes["moment"]) / scene.dt)
    soon = range(moment, moment + 15)
    speed = [
        float(np.linalg.norm(scene.track_state[scene.ego_track[0], k, 3:]))
        for k in range(moment, moment + 17)
    ]
    views = [seen(scene, k) for k in soon]
    in_lane = [np.nanmin(np.where((ahead > 3) & (abs(left) < 1.3), ahead, 99.0)) for ahead, left, _ in views]
    if name == "construction_site":
        ahead, left = (np.stack([view[k] for view in views], 1) for k in (0, 1))
        beside = (ahead > -2) & (ahead < 40) & (abs(left) < 6)
        shown = scene.track_class[beside.any(axis=1)]
        assert (shown == TRAFFIC_CONE).sum() >= 8 and (shown == CONSTRUCTION_VEHICLE).any()
        assert min(in_lane) > 4  # it has changed lanes in time
    elif name == "jaywalker":
        walkers = scene.track_class == PEDESTRIAN
        assert any(
            ((ahead > 3) & (ahead < 20) & (abs(left) < 1.2) & walkers).any() for ahead, left, _ in views
        )
        assert min(speed) < speed[0] - 2
    elif name == "cut_in":
        assert max(in_lane[:3]) > min(in_lane) and min(in_lane) < 20
    elif name == "hard_braking":
        assert min(speed) < speed[0] - 2 and min(in_lane) < 15
    else:
        crosses = [
            (before[0] > 2) & (before[0] < 18) & (before[2] > 6) & (before[1] * after[1] < 0)
            for before, after in pairwise(views)
        ]
        assert np.any(crosses) and min(speed) < speed[0] - 2


@pytest.mark.slow
def test_nobody_stands_on_the_cones_of_a_work_site():
    """Who waited for a gap once stood among the first cones: the lane was closed from behind them on."""
    scene = once("construction_site", 0)
    cones = scene.track_state[scene.track_class == TRAFFIC_CONE][:, 0, :2]
    users = np.isin(scene.track_class, (BUS, CAR, MOTORCYCLE, TRUCK))
    x, y, yaw = np.moveaxis(scene.track_state[users][..., :3], -1, 0)[..., None]  # (k, T, 1)
    dx, dy = cones[:, 0] - x, cones[:, 1] - y
    ahead, left = np.cos(yaw) * dx + np.sin(yaw) * dy, np.cos(yaw) * dy - np.sin(yaw) * dx
    half = scene.track_size[users][:, None, None] / 2  # (k, 1, 1, 3)
    under = (abs(ahead) < half[..., 0]) & (abs(left) < half[..., 1])
    assert len(cones) >= 14 and not under[scene.track_valid[users]].any()


@pytest.mark.slow
def test_episodes_begin_before_it(scenario):
    _, scene = scenario
    moment = float(scene.attributes["moment"])
    starts = sample_starts([scene], 8, 0, 4, TINY)
    times = np.array([start.source[2] * scene.dt for start in starts])
    assert (times < moment - 1).all() and (times > moment - 8).all()


@pytest.mark.slow
def test_the_recorded_driver_hits_nobody(scenario):
    _, scene = scenario
    for step in np.flatnonzero(scene.ego_valid[0]):
        ahead, left, _ = seen(scene, step)
        assert not ((ahead > -0.5) & (ahead < 2.5) & (abs(left) < 0.8)).any()


@pytest.mark.slow
def test_the_live_world_plays_it_again(scenario, world, tmp_path):
    _, scene = scenario
    save_scene(scene, tmp_path / "scene.safetensors")
    scene = load_scene(tmp_path / "scene.safetensors")  # a file holds all that is needed
    step = round(float(scene.attributes["moment"]) / scene.dt) - 3
    start = make_start(scene, 0, step, TINY, history=3)
    live, replay = world.reset([start], [0]), ReplayWorld(TINY).reset([start], [0])
    assert torch.equal(live.occupancy, replay.occupancy)
    pose = torch.from_numpy(scene.ego_pose[0].astype(np.float64))
    for k in range(step, step + 8, 2):
        trajectory = relative(pose[k].expand(2, 3), pose[k + 1 : k + 3])[None]
        live, replay = world.step(live, trajectory), ReplayWorld(TINY).step(replay, trajectory)
        assert int((live.occupancy != replay.occupancy).sum()) <= 0.003 * int(
            (replay.occupancy != FREE).sum()
        )


@pytest.mark.slow
def test_a_pedestrian_waits_until_the_ego_is_near():
    """Recorded, it has left the kerb some seconds later; live, it stays there while the ego stands far off."""
    scene = once("jaywalker", 0)
    event = json.loads(scene.attributes["events"])[0]
    step = round(float(scene.attributes["moment"]) / scene.dt) - 3
    pose = torch.from_numpy(scene.ego_pose[0, step].astype(np.float64))
    kerb = to_frame(torch.tensor(event["points"][0], dtype=torch.float64), pose)
    assert event["when"]["metres"] + 5 < float(kerb.norm()) < 48
    wide = Grid(shape=(128, 128, 16), voxel=0.8, lower=(-51.2, -51.2, -1.0))
    x, y = ((kerb + 51.2) / 0.8).long().tolist()
    there = {}
    with contextlib.closing(TrafficWorld(wide)) as live:
        worlds: dict[str, World] = {"live": live, "replay": ReplayWorld(wide)}
        for name, made in worlds.items():
            state = made.reset([make_start(scene, 0, step, wide, history=3)], [0])
            for _ in range(6):
                state = made.step(state, torch.zeros(1, 2, 3))
            around = state.occupancy[0, -1, x - 1 : x + 2, y - 1 : y + 2]
            there[name] = bool((around == PEDESTRIAN).any())
    assert there == {"live": True, "replay": False}


@pytest.mark.slow
def test_the_same_seed_gives_the_same_scenario():
    scene, again = once("hard_braking", 0), make_scenario("hard_braking", 0)
    assert again.track_state.tobytes() == scene.track_state.tobytes() and again.attributes == scene.attributes


def test_towns_for_testing_are_left_to_seeds_for_testing():
    assert all(town < HELD_OUT for seed in (0, 7, HELD_OUT - 1) for town in islice(_towns(seed), 20))
    assert all(town >= HELD_OUT for town in islice(_towns(HELD_OUT + 3), 20))


def test_an_unknown_scenario_is_refused():
    with pytest.raises(
        ConfigurationError, match=r"^scenario 'flood' is unknown; choose one of [^\n]*jaywalker"
    ):
        make_scenario("flood", 0)
    assert set(SCENARIOS) == set(DRAFTS)


class FakeVehicles:
    """As much of SUMO as the event "brake" needs: one car at 13 m/s."""

    def __init__(self):
        self.calls, self.position = [], (0.0, 0.0)

    def getIDList(self):
        return ["car1", "ego"]

    def getSpeed(self, who):
        return 13.0

    def getPosition(self, who):
        return self.position

    def __getattr__(self, name):
        return lambda *arguments: self.calls.append((name, *arguments))


class FakeSumo:
    def __init__(self):
        self.vehicle, self.simulation, self.time = FakeVehicles(), self, 0.0

    def getTime(self):
        return self.time


def test_an_event_waits_for_its_time_and_for_the_ego_and_then_runs_its_course():
    sumo = FakeSumo()
    when = {"after": 2.0, "ego": "ego", "near": [100.0, 0.0], "metres": 20.0}
    script = Script(
        sumo, [{"kind": "brake", "who": "car1", "when": when, "deceleration": 6.5, "hold": 1.0}], 0.1
    )
    calls: dict[tuple, int] = {}
    for step in range(100):
        sumo.time, sumo.vehicle.position = step * 0.1, (50.0 + step, 0.0)
        script.advance()
        calls |= {call: step for call in sumo.vehicle.calls if call not in calls}
    assert calls[("slowDown", "car1", 0.0, 2.0)] == 30  # near at step 30, not at 20 when it was time
    assert calls[("setSpeed", "car1", 0.0)] == 50
    assert calls[("setSpeed", "car1", -1)] == calls[("setSpeedMode", "car1", 31)] == 60
