"""Claims on the drivers with one thing wrong each."""

import numpy as np
import pytest

from occsora_sim.agents import AGENTS, RouteFollower, make_agent
from occsora_sim.agents.episode import average, run_episodes
from occsora_sim.agents.ladder import CRIPPLED, LADDER, BlindFollower, FixedControls, Late, Shaky
from occsora_sim.envs.drive import DriveEnv
from occsora_sim.grid import CAR, DRIVEABLE, FREE, OCC3D
from occsora_sim.scenes.start import make_start
from occsora_sim.worlds.replay import ReplayWorld

STRAIGHT = np.array([(2.0 * k, 0.0) for k in range(1, 21)], dtype=np.float32)


def see(speeds, car_at=None):
    """An open road, one row for each speed; a car ahead at `car_at` metres."""
    n = len(speeds)
    frame = np.full((n, 2, *OCC3D.shape), FREE, dtype=np.uint8)
    frame[..., OCC3D.ground] = DRIVEABLE
    if car_at is not None:
        i = round((car_at + 40) / 0.4)
        frame[:, :, i : i + 5, 98:103, 3:7] = CAR
    ego = np.zeros((n, 4), dtype=np.float32)
    ego[:, 0] = speeds
    return {"occupancy": frame, "ego": ego, "route": np.tile(STRAIGHT, (n, 1, 1))}


def test_the_ladder_has_eight_policies_or_more_and_all_have_names():
    assert len(LADDER) >= 8 and len(set(LADDER)) == len(LADDER)
    assert set(LADDER) <= {*AGENTS, *CRIPPLED} and not set(AGENTS) & set(CRIPPLED)
    for name in LADDER:
        agent = make_agent(name)
        agent.reset(2)
        actions = agent.act(see([3.0, 6.0], car_at=15.0))
        assert actions.shape == (2, 2) and np.abs(actions).max() <= 1


def test_fixed_controls_never_change():
    assert FixedControls(acceleration=1.0).act(see([0.0, 9.0])).tolist() == [[1, 0], [1, 0]]


def test_the_blind_follower_steers_and_does_not_brake():
    near, clear = see([9.0], car_at=10.0), see([9.0])
    assert RouteFollower().act(near)[0, 0] < -0.2
    assert np.array_equal(BlindFollower().act(near), RouteFollower().act(clear))


def test_the_late_follower_acts_one_decision_late_in_every_row():
    agent, plain = Late(), RouteFollower()
    agent.reset(2)
    first, second = see([2.0, 9.0]), see([9.0, 2.0], car_at=12.0)
    assert agent.act(first).tolist() == [[0, 0], [0, 0]]
    assert np.array_equal(agent.act(second), plain.act(first))
    agent.reset(1)
    assert agent.act(see([5.0])).tolist() == [[0, 0]], "a new episode knows nothing of the last"


def test_the_shaky_follower_trembles_the_same_alone_and_in_a_batch():
    agent, observation = Shaky(amplitude=0.25), see([2.0, 5.0, 9.0])
    agent.reset(3)
    together = agent.act(observation)
    noise = together[:, 1] - RouteFollower().act(observation)[:, 1]
    assert 0 < np.abs(noise).max() <= 0.25 and len(set(noise.tolist())) == 3
    agent.reset(1)
    alone = agent.act({name: value[1:2] for name, value in observation.items()})
    assert np.array_equal(alone, together[1:2])


def test_skill_shows_in_the_score(straight_road):
    scene = straight_road(cars=[(60.0, 0.0, 3.0), (100.0, 3.0, -6.0)], steps=61)
    env = DriveEnv(world=ReplayWorld(), scenes=[make_start(scene, 0, 3)], seconds=15.0)
    score = {
        name: average(run_episodes(env, make_agent(name), 1))["score"]
        for name in ("full-throttle", "blind-follower", "standstill", "crawling-follower", "route-follower")
    }
    assert score["full-throttle"] == score["blind-follower"] == 0
    assert 0.3 < score["standstill"] < score["crawling-follower"] < score["route-follower"]
    assert score["route-follower"] > score["standstill"] + 0.1


@pytest.mark.parametrize("name", ["slow-follower", "fast-follower"])
def test_slow_and_fast_differ_from_the_rule_in_speed_alone(name):
    ahead = 1 if name == "fast-follower" else -1
    wanted, rule = (make_agent(each).act(see([7.0]))[0] for each in (name, "route-follower"))
    assert ahead * (wanted[0] - rule[0]) > 0 and wanted[1] == rule[1] == 0
