"""EPDMS (NAVSIM v2): what it adds to PDMS, on poses with known answers."""

import pytest
import torch
from test_driving_score import CAR_EGO, OCC3D, drive, open_road_start, road

from occsora_sim.agents.constant_velocity import ConstantVelocity
from occsora_sim.agents.episode import run_episodes
from occsora_sim.commands.evaluate_agent import as_the_human
from occsora_sim.envs.drive import DriveEnv
from occsora_sim.envs.vector import DriveVectorEnv
from occsora_sim.errors import ConfigurationError
from occsora_sim.grid import TINY
from occsora_sim.scenes.start import make_start
from occsora_sim.scoring.driving import ScoreConfig
from occsora_sim.scoring.episode import advance, begin_episodes
from occsora_sim.scoring.extended import (
    TERMS,
    begin_extended,
    epdms,
    extend,
    extended_comfort,
    human_filter,
)
from occsora_sim.scoring.human import human_terms
from occsora_sim.scoring.route import make_routes
from occsora_sim.worlds.diffusion import DiffusionWorld
from occsora_sim.worlds.replay import ReplayWorld

EPDMS = ScoreConfig(kind="epdms")
STRAIGHT = torch.stack((torch.arange(0.0, 201.0), torch.zeros(201)), dim=-1)


def along(speed, frames, y=0.0, x=50.0):
    """World poses (4 + frames, 3) at a constant speed [m/s] along x; the fourth is at `x`."""
    way = x + 0.5 * speed * torch.arange(-3.0, frames + 1)
    return torch.stack((way, torch.full_like(way, y), torch.zeros_like(way)), dim=-1)


def judged(poses, route=STRAIGHT, config=EPDMS):
    """Each term after the frames of `poses` (4 + f, 3), one frame a step."""
    routes, state = make_routes([route]), begin_extended(torch.zeros(1))
    near, anywhere = torch.zeros(1), routes.length
    found = []
    for last in range(5, len(poses) + 1):
        near, distance = routes.project(poses[None, last - 1, :2], near, anywhere)
        seen = poses[None, last - 5 : last].double()
        state = extend(state, seen, routes, near[:, None], distance[:, None], config)
        found.append({name: value.item() for name, value in state.terms(torch.tensor([last - 4.0])).items()})
    return found


def test_along_the_route_every_term_is_one():
    assert all(set(terms.values()) == {1.0} for terms in judged(along(8.0, 6)))


def test_driving_direction_is_judged_by_metres_in_a_second():
    assert [terms["ddc"] for terms in judged(along(-8.0, 2))] == [0.5, 0.0], "4 m, then 8 m in a second"
    assert [terms["ddc"] for terms in judged(along(-1.0, 4))] == [1.0] * 4, "1 m in a second is tolerated"
    assert [terms["ddc"] for terms in judged(along(-3.0, 4))] == [1.0, 0.5, 0.5, 0.5]


@pytest.mark.parametrize(
    ("y", "keep", "least"), [(3.3, 2.0, 0), (-3.3, 2.0, 1), (3.3, -2.0, 1), (-3.3, -2.0, 0)]
)
def test_the_lane_of_those_who_come_towards_it_is_on_the_side_that_is_said(y, keep, least):
    config = ScoreConfig(kind="epdms", oncoming=keep)
    assert judged(along(8.0, 3, y=y), config=config)[-1]["ddc"] == least


def test_two_seconds_on_end_half_a_metre_aside_leave_the_lane():
    assert [terms["lk"] for terms in judged(along(8.0, 5, y=0.6))] == pytest.approx([1, 1, 1, 3 / 4, 3 / 5])
    assert judged(along(8.0, 5, y=0.4))[-1]["lk"] == 1
    swerve = torch.cat((along(8.0, 3, y=0.6), along(8.0, 1, x=66.0)[-1:], along(8.0, 2, y=0.6, x=66.0)[-1:]))
    assert judged(swerve)[-1]["lk"] == 1, "back on the lane in between"


def test_where_the_route_turns_lane_and_direction_are_not_judged():
    corner = torch.cat((STRAIGHT[:101], torch.stack((torch.full((60,), 100.0), torch.arange(1.0, 61.0)), -1)))
    inside = along(1.0, 8, y=3.0, x=95.0)
    assert judged(inside, corner)[-1] == judged(along(1.0, 8, x=95.0), corner)[-1]
    assert judged(along(1.0, 8, y=3.0, x=50.0), corner)[-1]["lk"] < 1


def sped(accelerations):
    """Poses whose speed, 8 m/s before, changes by these accelerations [m/s2], a frame each."""
    speed = 8.0 + 0.5 * torch.tensor([0.0, 0.0, 0.0, *accelerations]).cumsum(0)
    x = torch.cat((torch.zeros(1), 0.5 * speed.cumsum(0)))
    return torch.stack((x, 0 * x, 0 * x), dim=-1)[None].double()


def test_extended_comfort_is_lost_by_what_differs_from_the_step_before():
    assert extended_comfort(sped([0.0, 0.0])) == 1
    assert extended_comfort(sped([0.2, 0.2])) == 1, "a jerk of 0.4 in one frame of two"
    assert extended_comfort(sped([1.0, 1.0])) == 0
    turning = along(4.0, 2)[None].double()
    turning[:, 4:, 2] = torch.tensor([0.1, 0.2])  # 0.2 rad/s where it went straight
    assert extended_comfort(turning) == 0


def test_the_score_weighs_as_published():
    ones = {name: torch.ones(1) for name in TERMS}
    assert epdms(ones) == 1
    for name, share in {"nc": 0, "dac": 0, "ddc": 0, "tlc": 0}.items():
        assert epdms({**ones, name: torch.zeros(1)}) == share
    for name, weight in {"ttc": 5, "ep": 5, "lk": 2, "comfort": 2, "ec": 2}.items():
        assert epdms({**ones, name: torch.zeros(1)}).item() == pytest.approx(1 - weight / 16)
    assert epdms({**ones, "ddc": torch.full((1,), 0.5), "ec": torch.zeros(1)}).item() == pytest.approx(7 / 16)


def test_what_the_human_fails_in_is_not_asked():
    agent = {name: torch.zeros(2) for name in TERMS} | {"nc": torch.ones(2), "score": torch.zeros(2)}
    human = {name: torch.tensor([0.0, 0.3]) for name in TERMS}
    kept = human_filter(agent, human)
    assert (
        kept["score"].tolist() == [1, 0] and kept["dac"].tolist() == [1, 0] and kept["nc"].tolist() == [1, 1]
    )


def scored(poses, starts):
    """The summary of episodes driven along world poses (b, f, 3)."""
    episodes = begin_episodes(starts, config=EPDMS)
    occupancy = road().expand(len(starts), -1, -1, -1)[:, None].expand(-1, poses.shape[1], -1, -1, -1)
    speed = torch.full(poses.shape[:2], 10.0)
    return advance(episodes, occupancy, poses, speed, OCC3D, CAR_EGO, EPDMS)[0]


def test_an_episode_tells_all_terms_and_rows_are_scored_as_alone():
    starts = [open_road_start(), open_road_start(80.0)]
    poses = torch.stack((along(10.0, 4, x=0.0)[4:], along(10.0, 4, y=3.0, x=0.0)[4:]))
    both = scored(poses, starts)
    found = both.summary(EPDMS)
    assert set(found) == {"score", "progress", "seconds", *TERMS}
    assert found["score"][0] == 1 and found["score"][1] == 0 and found["ddc"].tolist() == [1, 0]
    for row in range(2):
        alone = scored(poses[row : row + 1], starts[row : row + 1]).summary(EPDMS)
        assert all(alone[name][0] == found[name][row] for name in found)
        fresh = both.replace([row], begin_episodes([starts[row]], config=EPDMS)).summary(EPDMS)
        assert fresh["ddc"][row] == 1 and fresh["ddc"][1 - row] == found["ddc"][1 - row]
        assert both.select([row]).summary(EPDMS)["score"][0] == found["score"][row]


def test_pdms_stays_what_it_was():
    summary, _ = drive([(5.0 * step, 3.0, 0.0) for step in range(1, 6)])
    assert set(summary) == {"score", "nc", "dac", "ttc", "ep", "comfort", "progress", "seconds"}


@pytest.mark.parametrize("generated", [False, True])
def test_environments_score_by_it_in_any_world(straight_road, untrained_model, generated):
    scene = straight_road()
    world = DiffusionWorld(untrained_model) if generated else ReplayWorld(TINY)
    starts = [make_start(scene, 0, step, TINY, history=4) for step in (4, 5)]
    env = DriveVectorEnv(
        num_envs=2, world=world, scenes=starts, score={"kind": "epdms"}, imagination="oracle", seconds=2.0
    )
    env.reset(seed=0)
    told = env.step([[0.0, 0.0]] * 2)[-1]["episode_score"]
    assert {*TERMS} <= set(told) and (told["ddc"] == 1).all() and (told["lk"] == 1).all()
    assert env.imagine([[[[0.0, 0.0]]]] * 2).score.shape == (2, 1)


def test_a_score_that_cannot_be_is_refused_in_one_line():
    for wrong in ({"kind": "pdm"}, {"oncoming": 0}):
        with pytest.raises(ConfigurationError, match=r"^score: [^\n]+$"):
            DriveEnv(score=wrong)


def test_a_human_who_drives_into_a_parked_car_excuses_the_agent(straight_road):
    scene = straight_road(cars=[(34.0, 0.0, 0.0)])
    start, world = make_start(scene, 0, 3, TINY, history=4), ReplayWorld(TINY)
    human = human_terms(start, world, 10.0, CAR_EGO, EPDMS)
    assert human["nc"] == 0 and human["ddc"] == human["lk"] == 1 and human["seconds"] == 10
    env = DriveEnv(world=world, scenes=[start], score={"kind": "epdms"}, seconds=6.0)
    episodes = run_episodes(env, ConstantVelocity(), 1)
    assert episodes[0].summary["nc"] == episodes[0].summary["score"] == 0
    (kept,), counts = as_the_human(env.simulation, episodes)
    assert kept.summary["nc"] == 1 and kept.summary["score"] > 0.5 and counts["nc"] == 1
