"""Traffic logs of scenes and of states, their likelihoods, and the report on a world's traffic."""

import json
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from occsora_sim.cli import main
from occsora_sim.errors import ConfigurationError, SceneError
from occsora_sim.geometry import compose
from occsora_sim.grid import (
    CAR,
    DRIVEABLE,
    FREE,
    OCC3D,
    PEDESTRIAN,
    SIDEWALK,
    TRAFFIC_CONE,
)
from occsora_sim.road_users import RoadUsers, from_tracks
from occsora_sim.scenes.file import save_scene
from occsora_sim.scoring import traffic_realism as realism
from occsora_sim.scoring.traffic_features import traffic_features
from occsora_sim.scoring.traffic_log import GroundMap, constant_velocity_log, logs_of_states, recorded_log
from occsora_sim.scoring.traffic_report import print_traffic_report, traffic_report
from occsora_sim.scoring.traffic_rollout import recorded_ways, roll_ways
from occsora_sim.worlds.replay import ReplayWorld

CARS = [(20.0, 0.0, 8.0), (30.0, 3.0, 0.0), (90.0, 0.0, 2.0), (45.0, 9.0, 1.0)]


class Unpeopled(ReplayWorld):
    """Recorded scenes whose road users nobody tells apart."""

    def reset(self, starts, seeds):
        return replace(super().reset(starts, seeds), users=None)


class FasterReplay(ReplayWorld):
    """Recorded scenes whose road users drive 1.6 times as fast as recorded."""

    frames = 0

    def reset(self, starts, seeds):
        self.frames = 0
        return self._faster(super().reset(starts, seeds))

    def step(self, state, trajectories):
        self.frames += trajectories.shape[1]
        return self._faster(super().step(state, trajectories))

    def _faster(self, state):
        users = state.users
        seconds = 0.5 * (self.frames + torch.arange(-users.pose.shape[-2] + 1, 1))
        pose = users.pose.clone()
        pose[..., :2] += 0.6 * users.velocity[..., None, :] * seconds[:, None]
        return replace(state, users=replace(users, pose=pose))


@pytest.fixture
def road(straight_road):
    """One standing, three moving, one of them beside the road; a cone; somebody who comes late."""
    scene = straight_road(cars=[*CARS, (25.0, -3.0, 0.0), (40.0, -6.0, 1.0)])
    kinds, valid = scene.track_class.copy(), scene.track_valid.copy()
    kinds[5], kinds[6], valid[6, :10] = TRAFFIC_CONE, PEDESTRIAN, False
    return replace(scene, track_class=kinds, track_valid=valid)


def test_a_recorded_log_holds_road_users_near_the_ego_and_the_ground_under_them(road):
    log = recorded_log(road, 0, 3, 20, OCC3D, GroundMap(road, OCC3D))
    assert log.id.tolist() == [1, 2, 3, 4, 6], "neither the ego's own nor the cone"
    assert log.pose[2, 0].tolist() == pytest.approx([20.0 + 8.0 * 2.5, 0.0, 0.0])
    assert log.ego_pose[2].tolist() == pytest.approx([20.0, 0.0, 0.0])
    # The slow one stands 93 - 12 = 81 m ahead at first, and comes within 64 m at 6 m/s.
    assert log.present[:, 2].tolist() == [False] * 6 + [True] * 14
    assert log.present[:, 4].tolist() == [False] * 7 + [True] * 13
    assert log.ground[0].tolist() == [DRIVEABLE, DRIVEABLE, FREE, SIDEWALK, FREE]
    assert log.ground[log.in_view(OCC3D)].ne(FREE).all() and log.ground[-1, 1] == FREE


def test_a_log_at_other_steps_is_interpolated(road):
    fine = replace(road, dt=0.4)  # as if it had been recorded faster
    log = recorded_log(fine, 0, 0, 3, OCC3D, GroundMap(fine, OCC3D))
    assert log.pose[:, 0, 0].tolist() == pytest.approx([20.0, 25.0, 30.0])


def test_at_constant_velocity_those_in_view_go_on_and_nobody_enters(road):
    bends = replace(road, track_state=road.track_state.copy())
    bends.track_state[1, 4:, :2] += 5.0
    ground = GroundMap(bends, OCC3D)
    log = constant_velocity_log(bends, 0, 3, 20, OCC3D, ground)
    assert log.id.tolist() == [1, 2, 4]
    assert log.pose[:, 0, 0].tolist() == pytest.approx([32.0 + 4.0 * t for t in range(20)])
    assert not traffic_features(log).enters.any() and (log.pose[:, 1, 0] == 30.0).all()


def test_a_replayed_log_is_the_recorded_one(road):
    way = recorded_ways([road], 1, 21, OCC3D)[0]
    (found,) = roll_ways(ReplayWorld(), [way], [0])
    real = recorded_log(road, 0, way.step, 22, OCC3D, way.ground).in_chunks(2)
    assert way.step == 3 and torch.equal(found.id, real.id) and torch.equal(found.present, real.present)
    seen = real.present
    torch.testing.assert_close(found.pose[seen], real.pose[seen])
    assert torch.equal(found.ground[seen], real.ground[seen]) and torch.equal(found.size, real.size)
    torch.testing.assert_close(found.ego_pose, real.ego_pose, atol=1e-5, rtol=0)


def state_of(users, frames):
    occupancy = torch.full((1, frames, *OCC3D.shape), FREE, dtype=torch.uint8)
    return SimpleNamespace(occupancy=occupancy, ego_pose=torch.zeros(1, frames, 3), users=users)


def one(x, identity):
    pose = compose(torch.tensor([x, 0.0, 0.0], dtype=torch.float64), torch.zeros(4, 3, dtype=torch.float64))
    there = torch.ones(1, 4, dtype=torch.bool)
    return from_tracks(
        pose[None], there, torch.zeros(1, 2), torch.ones(1, 3), torch.tensor([CAR]), torch.tensor([identity])
    )


def test_a_slot_that_somebody_else_takes_is_another_track_and_a_track_may_change_its_slot():
    states: Any = [state_of(one(1.0, 7), 1), state_of(one(2.0, 8), 2), state_of(one(3.0, 7), 1)]
    (log,) = logs_of_states(iter(states), OCC3D)
    assert log.id.tolist() == [7, 8]
    assert log.present.tolist() == [[True, False], [False, True], [False, True], [True, False]]
    assert log.pose[3, 0, 0] == 3.0 and log.pose[1, 1, 0] == 2.0
    assert log.in_chunks(2).present[1:3, 1].tolist() == [True, True]


def test_somebody_who_leaves_within_a_chunk_is_missing_from_all_of_it(road):
    log = recorded_log(road, 0, 3, 5, OCC3D, GroundMap(road, OCC3D))
    log.present[:, 0] = torch.tensor([True, True, False, True, True])
    assert log.in_chunks(2).present[:, 0].tolist() == [True, False, False, True, True]


def test_a_world_without_instances_and_a_chunk_longer_than_the_memory_are_refused(road):
    way = recorded_ways([road], 1, 8, OCC3D)
    with pytest.raises(ConfigurationError, match="no road users as instances"):
        roll_ways(Unpeopled(), way, [0])
    states: Any = [state_of(RoadUsers.empty(1), 5)]
    with pytest.raises(ConfigurationError, match="remember 4 poses"):
        logs_of_states(states, OCC3D)


def test_ways_are_of_each_scene_in_turn_and_the_longest_first(road):
    short = replace(road, ego_valid=road.ego_valid & (np.arange(41) < 15))
    ways = recorded_ways([short, road], 5, 100, OCC3D)
    assert [(way.group, way.frames) for way in ways] == [(0, 11), (1, 37)]
    with pytest.raises(SceneError, match="recorded for 5"):
        recorded_ways([replace(road, ego_valid=road.ego_valid & (np.arange(41) < 11))], 1, 100, OCC3D)


def counts_of(name, *groups):
    """Counts with nothing but one feature, in the first span."""
    names, bins = list(realism.FEATURES), 1 + max(len(edges) for _, edges in realism.FEATURES.values())
    counts = torch.zeros(len(groups), len(realism.SPANS), len(names), bins, dtype=torch.float64)
    for g, group in enumerate(groups):
        counts[g, 0, names.index(name), : len(group)] = torch.tensor(group, dtype=torch.float64)
    return counts


def test_the_likelihood_is_that_of_one_group_under_the_others_with_a_count_added():
    simulated = counts_of("overlap", [3.0, 0.0], [7.0, 1.0])
    recorded = counts_of("overlap", [2.0, 1.0], [5.0, 0.0])
    found = realism.likelihood(simulated, recorded)
    # The first under (7 + 1, 1 + 1) / 10, the second under (3 + 1, 0 + 1) / 5.
    mean = (2 * np.log(0.8) + np.log(0.2) + 5 * np.log(0.8)) / 8
    at = list(realism.FEATURES).index("overlap")
    assert found.features[0, at] == pytest.approx(np.exp(mean))
    assert found.spans[0] == pytest.approx(np.exp(mean)), "features without samples weigh nothing"
    assert found.joint == pytest.approx(np.exp(mean)) and found.spans[1:].isnan().all()
    same = realism.likelihood(simulated, recorded, torch.tensor([[1, 1], [2, 2], [1, 3]]))
    assert same.joint[0] == pytest.approx(found.joint.item())
    twice = (7 * np.log(15 / 18) + np.log(3 / 18), np.log(7 / 8))  # the simulated counts twice
    assert same.joint[1] == pytest.approx(np.exp((2 * np.log(15 / 18) + np.log(3 / 18) + 5 * twice[1]) / 8))
    with pytest.raises(ConfigurationError, match="two groups"):
        realism.likelihood(simulated[:1], recorded[:1])


def test_weights_add_up_to_one_and_half_the_way_is_half():
    assert sum(weight for weight, _ in realism.FEATURES.values()) == pytest.approx(1.0)
    assert all(list(edges) == sorted(edges) for _, edges in realism.FEATURES.values())
    one, two, three = (torch.tensor(float(value)) for value in (0.3, 0.4, 0.5))
    assert realism.of_the_way(two, one, three) == pytest.approx(0.5)
    assert realism.of_the_way(two, one, one).isnan()


def test_a_tally_counts_movers_and_those_that_stand(road):
    log = recorded_log(road, 0, 3, 38, OCC3D, GroundMap(road, OCC3D))
    found = realism.figures(realism.tally(traffic_features(log)).sums[None])
    first = dict(zip(realism.FIGURES, found[0].tolist(), strict=True))
    features = traffic_features(log)
    known = features.known[1:17].sum()
    assert first["faster"] == pytest.approx(16 / known) and first["persistence"] == 1.0
    standing = features.known[1:17, 1].sum()
    assert first["standing"] == pytest.approx(standing / known) and 0 < standing < 16
    assert first["in_view"] == pytest.approx(features.in_view[1:17].double().sum() / 16)
    assert first["overlap"] == 0 and 0 < first["off_road"] < 0.5  # the one beside the road
    last = dict(zip(realism.FIGURES, found[2].tolist(), strict=True))
    assert np.isnan(last["in_view"]), "the log ends at 18.5 s"


def test_a_car_that_brakes_within_a_second_does_not_persist(straight_road):
    scene = straight_road(cars=[(5.0, 3.0, 8.0)], ego_speed=6.0)
    scene.track_state[1, 12:, 0] = scene.track_state[1, 12, 0]  # it stands from the step 12 on
    log = recorded_log(scene, 0, 3, 20, OCC3D, GroundMap(scene, OCC3D))
    found = realism.figures(realism.tally(traffic_features(log)).sums[None])[0]
    # Moves in frames 1 to 9; a second after frames 8 and 9 it stands.
    assert found[list(realism.FIGURES).index("persistence")] == pytest.approx(7 / 9)


@pytest.fixture
def roads(straight_road):
    """Roads that differ a little; on each somebody stops, and somebody comes late."""
    scenes = []
    for k in range(3):
        cars = [(20.0 + k, 0.0, 8.0), (30.0, 3.0 * k - 3.0, 0.5 * k), (-20.0, 3.0, 9.0), (50.0, 5.0, 0.0)]
        scene = straight_road(cars=cars, ego_speed=6.0 + k)
        scene.track_state[3, 9:, 0], scene.track_state[3, 9:, 3] = scene.track_state[3, 9, 0], 0.0
        scene.track_valid[4, :9] = False
        scenes.append(scene)
    return scenes


def test_a_replay_shows_the_recorded_figures_and_reaches_the_ceiling(roads, capsys):
    report = traffic_report(ReplayWorld(), roads, rollouts=3, seconds=12.0, batch=2)
    assert report["rollouts"] == 3 and list(report["spans"]) == ["0-8", "8-30"]
    assert report["spans"]["8-30"]["until"] == 12.0
    for part in report["spans"].values():
        for name, figure in part["figures"].items():
            assert figure["model"] == figure["recorded"], name
        for name, figure in part["features"].items():
            assert figure["model"] == figure["ceiling"], name
        assert part["realism"]["of_the_way"]["value"] in (None, 1.0)
    assert report["realism"]["model"] == report["realism"]["ceiling"]
    assert report["realism"]["floor"]["value"] < report["realism"]["ceiling"]["value"]
    json.dumps(report, allow_nan=False)
    print_traffic_report(report)
    assert "Traffic: 3 rollouts" in capsys.readouterr().out


def test_a_world_whose_road_users_are_too_fast_falls_short(roads):
    report = traffic_report(FasterReplay(), roads, rollouts=3, seconds=8.0)
    part = report["spans"]["0-8"]
    assert part["features"]["speed"]["model"] < 0.8 * part["features"]["speed"]["ceiling"]
    assert report["realism"]["of_the_way"]["value"] < 1


def test_a_single_rollout_has_figures_and_no_likelihood(road, capsys):
    report = traffic_report(ReplayWorld(), [road], rollouts=1, seconds=8.0)
    assert (
        report["realism"] is None
        and report["spans"]["0-8"]["figures"]["in_view"]["model"]["interval"] is None
    )
    print_traffic_report(report)
    assert "needs two rollouts" in capsys.readouterr().out


def test_the_command_prints_the_table_and_writes_it(roads, tmp_path, monkeypatch, capsys):
    (tmp_path / "roads").mkdir()
    for k, scene in enumerate(roads):
        save_scene(scene, tmp_path / "roads" / f"{k}.safetensors")
    monkeypatch.setattr("occsora_sim.worlds.replay.ReplayWorld", lambda device: ReplayWorld())
    command = ["evaluate", "world", "--world", "replay", "--no-forecast", "--scenes", str(tmp_path / "roads")]
    command += ["--traffic", "3", "--drift-seconds", "8", "--json", str(tmp_path / "world.json")]
    assert main(command) == 0
    written = json.loads((tmp_path / "world.json").read_text())
    assert set(written) == {"scenes", "traffic"} and written["traffic"]["seconds"] == 8.0
    assert "Traffic: likelihood" in capsys.readouterr().out
