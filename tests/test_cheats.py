"""Nothing to be gamed: what is no driving earns and scores less than the route follower, on small scenes."""

import functools

import numpy as np
import pytest

from occsora_sim.agents.cheats import CHEATS, OBSERVED, Beside
from occsora_sim.agents.episode import run_episodes
from occsora_sim.agents.route_follower import RouteFollower
from occsora_sim.envs.drive import DriveEnv
from occsora_sim.scenes.start import make_start
from occsora_sim.worlds.replay import ReplayWorld

KERB = functools.partial(Beside, right=3.4)
"""Hugs the kerb of a road that is 8 m wide."""


@pytest.fixture(scope="module")
def drive(straight_road):
    """Lets an agent drive 10 s on a road, a car at 4 m/s ahead and one behind; its reward and summary."""
    scene = straight_road(cars=[(35.0, 0.0, 4.0), (-14.0, 0.0, 4.0)], steps=61, ego_speed=6.0)
    start, world = make_start(scene, 0, 3), ReplayWorld()

    @functools.cache
    def drive(make):
        agent = make()
        action = getattr(agent, "action", "controls")
        env = DriveEnv(world=world, scenes=[start], seconds=10.0, action=action, observation=OBSERVED)
        (episode,) = run_episodes(env, agent, 1, seed=0)
        return episode.reward, episode.summary

    return drive


@pytest.mark.parametrize(
    "name", ["park", "circle", "reverse", "creep", "ram", "kerb", "brake", "quit", "puck"]
)
def test_a_cheat_earns_and_scores_less_than_the_route_follower(drive, name):
    reward, summary = drive(KERB if name == "kerb" else CHEATS[name])
    honest, driven = drive(RouteFollower)
    assert driven["nc"] == driven["dac"] == 1 and driven["score"] > 0.7 and honest > 3
    assert reward < honest and summary["score"] < driven["score"]


def test_standing_still_scores_seven_twelfths_and_earns_nothing(straight_road):
    """PDMS counts time to collision and comfort of who stands as full: (5 + 0 + 2) / 12."""
    start = make_start(straight_road(ego_speed=0.0), 0, 3)
    env = DriveEnv(world=ReplayWorld(), scenes=[start], seconds=10.0, observation=OBSERVED)
    (episode,) = run_episodes(env, CHEATS["park"](), 1, seed=0)
    assert episode.reward == 0 and episode.summary["score"] == pytest.approx(7 / 12)


def test_nobody_goes_backwards(straight_road):
    start = make_start(straight_road(ego_speed=2.0), 0, 3)
    env = DriveEnv(world=ReplayWorld(), scenes=[start], seconds=10.0, observation=("ego",))
    _, info = env.reset(seed=0)
    for _ in range(5):
        before = info["ego_pose"][0]
        *_, info = env.step(np.array([-1.0, 0.0]))
        assert info["ego_pose"][0] >= before and info["speed"] >= 0


def test_nobody_drives_through_who_stands(straight_road):
    scene = straight_road(cars=[(14.0, 0.0, 0.0)], steps=81, ego_speed=2.0)
    env = DriveEnv(world=ReplayWorld(), scenes=[make_start(scene, 0, 3)], seconds=30.0, observation=OBSERVED)
    (nudge,) = run_episodes(env, CHEATS["nudge"](), 1, seed=0)
    (honest,) = run_episodes(env, RouteFollower(), 1, seed=0)
    assert honest.summary["nc"] == 1 and honest.summary["progress"] < 12
    assert nudge.summary["nc"] == 0 and nudge.summary["progress"] < 12, "it touches, and ends there"
    assert nudge.reward < honest.reward and nudge.summary["score"] < honest.summary["score"]
