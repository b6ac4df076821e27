"""The agents that see one observation at a time, and the runner of episodes, on the replay world."""

import json

import numpy as np
import pytest

from occsora_sim.agents import (
    AGENTS,
    ConstantVelocity,
    IntelligentDriver,
    RandomAgent,
    RouteFollower,
    make_agent,
)
from occsora_sim.agents.driving_policy import shipped_driving_policy
from occsora_sim.agents.episode import average, run_episodes
from occsora_sim.agents.learned import shipped_policy
from occsora_sim.checkpoint import read_header
from occsora_sim.envs.drive import DriveEnv
from occsora_sim.envs.vector import DriveVectorEnv
from occsora_sim.errors import ConfigurationError
from occsora_sim.grid import CAR, DRIVEABLE, FREE, MANMADE, OCC3D
from occsora_sim.scenes.start import Start, make_start
from occsora_sim.worlds.replay import ReplayWorld


@pytest.fixture
def road(straight_road):
    """An environment on a straight road: a slow leader, an oncoming car, a parked one beside the lane."""
    scene = straight_road(cars=[(60.0, 0.0, 3.0), (100.0, 3.0, -6.0), (180.0, -3.2, 0.0)], steps=61)
    starts = [make_start(scene, 0, step) for step in (3, 5)]
    return DriveVectorEnv(num_envs=2, world=ReplayWorld(), scenes=starts)


def see(speed, route, obstacles=()):
    """An observation of an open road; obstacles are (label, x, y) boxes of 2 x 2 m."""
    frame = np.full((2, *OCC3D.shape), FREE, dtype=np.uint8)
    frame[..., OCC3D.ground] = DRIVEABLE
    for label, x, y in obstacles:
        i, j = round((x + 40) / 0.4), round((y + 40) / 0.4)
        frame[:, i : i + 5, j - 2 : j + 3, 3:7] = label
    ego = np.array([[speed, 0, 0, 0]], dtype=np.float32)
    return {"occupancy": frame[None], "ego": ego, "route": np.asarray(route, dtype=np.float32)[None]}


STRAIGHT = [(2.0 * k, 0.0) for k in range(1, 21)]
LEFT = [(10 * np.sin(k / 5), 10 - 10 * np.cos(k / 5)) for k in range(1, 21)]


def act(observation):
    return RouteFollower().act(observation)[0]


def test_constant_velocity_does_nothing():
    assert ConstantVelocity().act(see(5.0, STRAIGHT)).tolist() == [[0.0, 0.0]]


def test_follower_speeds_up_on_a_free_straight_road_and_holds_its_speed():
    assert act(see(2.0, STRAIGHT))[0] > 0.2 and act(see(2.0, STRAIGHT))[1] == 0
    assert abs(act(see(9.0, STRAIGHT))[0]) < 0.02
    assert act(see(14.0, STRAIGHT))[0] < -0.2


def test_follower_steers_towards_the_route_and_slows_for_the_curve():
    assert act(see(4.0, LEFT))[1] > 0.1
    mirrored = [(x, -y) for x, y in LEFT]
    assert act(see(4.0, mirrored))[1] == pytest.approx(-act(see(4.0, LEFT))[1])
    assert act(see(9.0, LEFT))[0] < -0.1, "9 m/s on a radius of 10 m is 8 m/s2"


def test_follower_brakes_hard_for_a_wall_and_not_for_one_beside_the_route():
    assert act(see(9.0, STRAIGHT, [(MANMADE, 12.0, 0.0)]))[0] < -0.5
    assert act(see(5.0, STRAIGHT, [(MANMADE, 12.0, 3.0)]))[0] == act(see(5.0, STRAIGHT))[0]
    assert act(see(0.0, STRAIGHT, [(CAR, 4.5, 0.0)]))[0] <= 0, "it stays standing before an obstacle"


def test_follower_brakes_for_what_stands_in_its_curve():
    x, y = LEFT[6]
    assert act(see(4.0, LEFT, [(CAR, x, y)]))[0] < act(see(4.0, LEFT))[0] - 0.05


def test_follower_ignores_a_single_voxel():
    observation = see(5.0, STRAIGHT)
    observation["occupancy"][:, :, 130, 100, 4] = CAR
    assert np.array_equal(act(observation), act(see(5.0, STRAIGHT)))


def test_follower_refuses_another_grid():
    observation = see(5.0, STRAIGHT)
    observation["occupancy"] = observation["occupancy"][:, :, ::2]
    with pytest.raises(ConfigurationError, match="grid"):
        act(observation)


def test_the_follower_beats_constant_velocity_behind_a_slow_leader(road):
    floor = average(run_episodes(road, make_agent("constant-velocity"), 2))
    rule = average(run_episodes(road, make_agent("route-follower"), 2))
    assert floor["nc"] == 0 and floor["score"] == 0
    assert rule["nc"] == rule["dac"] == 1 and rule["score"] > 0.7
    assert rule["seconds_simulated"] == 40


def test_episodes_do_not_depend_on_the_batch(road):
    starts = road.simulation.starts
    road = DriveEnv(world=ReplayWorld(), scenes=starts, seconds=5.0)
    agent = make_agent("route-follower")
    together, alone = (run_episodes(road, agent, 3, seed=4, batch=batch) for batch in (3, 1))
    assert together == alone
    assert [episode.seed for episode in together] == [4, 5, 6]
    assert together[0].start == together[2].start != together[1].start, "starts are taken in turn"


def test_a_recording_holds_every_frame_and_pose(road):
    first, second = run_episodes(road, make_agent("constant-velocity"), 2, record=1)
    assert second.recording is None and first.ended == "collision"
    log = first.recording
    steps = len(log.actions)
    assert log.occupancy.shape == (1 + 2 * steps, *OCC3D.shape) and log.occupancy.dtype == np.uint8
    assert log.ego_pose.shape == (1 + 2 * steps, 3) and log.trajectories.shape == (steps, 2, 3)
    assert log.rewards.sum() == pytest.approx(first.reward) and len(log.terms) == len(log.routes) == steps
    assert log.terms[-1]["nc"] == 0 and log.terms[0]["nc"] == 1
    ahead = log.trajectories[:, :, 0].reshape(steps, 2)[:, 1].cumsum()  # straight along x
    np.testing.assert_allclose(log.ego_pose[2::2, 0] - log.ego_pose[0, 0], ahead, atol=1e-3)


def test_the_single_environment_runs_too_and_foreign_ones_are_refused(straight_road):
    env = DriveEnv(world=ReplayWorld(), scenes=[make_start(straight_road(steps=61), 0, 3)], seconds=3.0)
    (episode,) = run_episodes(env, make_agent("constant-velocity"), 1)
    assert episode.ended == "time" and episode.summary["score"] > 0.9
    with pytest.raises(ConfigurationError, match="driving environment"):
        run_episodes(object(), make_agent("constant-velocity"), 1)


def test_the_goal_ends_an_episode(straight_road):
    start = make_start(straight_road(steps=61), 0, 3)
    near = Start(
        occupancy=start.occupancy, ego_pose=start.ego_pose, route=start.route[:40], source=start.source
    )
    (episode,) = run_episodes(DriveEnv(world=ReplayWorld(), scenes=[near]), make_agent("route-follower"), 1)
    assert episode.ended == "goal" and episode.summary["nc"] == 1


def test_random_actions_fill_the_space_and_do_not_depend_on_the_neighbours():
    observation = {"ego": np.arange(800, dtype=np.float32).reshape(200, 4)}
    agent = RandomAgent(seed=1)
    agent.reset(200)
    first, second = agent.act(observation), agent.act(observation)
    assert first.shape == (200, 2) and first.dtype == np.float32 and not np.array_equal(first, second)
    assert -1 <= first.min() < -0.95 and 0.95 < first.max() <= 1 and abs(first.mean()) < 0.1
    agent.reset(1)
    assert np.array_equal(agent.act({"ego": observation["ego"][7:8]}), first[7:8]), "the same alone"
    assert not np.array_equal(RandomAgent(seed=2).act(observation), first)


def idm(observation):
    return IntelligentDriver().act(observation)[0]


def test_the_intelligent_driver_model_is_its_formula():
    free = 1.8 * (1 - (4.5 / 9.0) ** 4) / 4.0  # of the largest acceleration, 4 m/s2
    assert idm(see(4.5, STRAIGHT)) == pytest.approx([free, 0.0])
    assert idm(see(9.0, STRAIGHT))[0] == pytest.approx(0.0, abs=1e-6)
    ahead = see(4.5, STRAIGHT, [(MANMADE, 20.0, 0.0)])
    gap = 20.0 - 3.084  # from the front bumper to the obstacle's near side
    wish = 2.5 + 4.5 * 1.2 + 4.5**2 / (2 * np.sqrt(1.8 * 2.5))
    assert idm(ahead)[0] == pytest.approx(free - 1.8 * (wish / gap) ** 2 / 4.0, abs=0.01)


def test_the_intelligent_driver_does_not_slow_for_a_bend_and_the_follower_does():
    assert idm(see(8.0, LEFT))[0] > 0 > act(see(8.0, LEFT))[0]
    assert idm(see(8.0, LEFT))[1] == act(see(8.0, LEFT))[1]


def test_agents_by_name():
    rules = {"random", "constant-velocity", "idm", "route-follower", "imagining-planner"}
    assert set(AGENTS) == rules | {"learned", "ppo"}
    assert all(callable(make_agent(name).reset) for name in AGENTS)
    with pytest.raises(ConfigurationError, match="constant-velocity"):
        make_agent("human")


def test_the_shipped_policy_steers_to_its_route_and_brakes_for_a_wall():
    policy = make_agent("learned")

    def answer(observation):
        return policy.act(observation)[0]

    assert abs(answer(see(7.0, STRAIGHT))[1]) < 0.05
    assert answer(see(5.0, LEFT))[1] > 0.1
    free, wall = answer(see(7.0, STRAIGHT))[0], answer(see(7.0, STRAIGHT, [(MANMADE, 12.0, 0.0)]))[0]
    assert wall < -0.2 < free


def test_the_shipped_policy_names_its_recipe_and_no_path():
    header = read_header(shipped_policy(), kind="policy")
    assert header["recipe"]["world"] == "diffusion"
    assert header["recipe"]["weights"] == "parts-1-to-8.safetensors", (
        "the shipped ones but for the last parts"
    )
    assert "/" not in json.dumps(header)


def test_the_shipped_policy_of_ppo_drives_up_to_a_slow_car_and_does_not_touch_it(straight_road):
    scene = straight_road(cars=[(60.0, 0.0, 2.0)], steps=61)
    env = DriveVectorEnv(
        num_envs=1, world=ReplayWorld(), scenes=[make_start(scene, 0, 3)], seconds=20.0, observation="policy",
        action="manoeuvre",
    )  # fmt: skip
    (episode,) = run_episodes(env, make_agent("ppo"), 1)
    assert episode.summary["nc"] == 1.0 and episode.ended == "time"
    assert 50.0 < episode.summary["progress"] < 100.0


def test_the_shipped_policy_of_ppo_names_its_recipe_and_no_path():
    recipe = read_header(shipped_driving_policy(), kind="driving-policy")["recipe"]
    card = shipped_driving_policy().with_name("README.md").read_text().split("# learned.safetensors")[0]
    assert recipe["world"] == "diffusion" and f"{int(recipe['steps_taken']):,} decisions of its" in card
    assert "/" not in json.dumps(recipe)


@pytest.mark.slow
def test_the_follower_beats_constant_velocity_in_a_town():
    pytest.importorskip("libsumo", reason="towns need SUMO (the extra `traffic`)")
    from occsora_sim.scenes.traffic import make_town

    env = DriveVectorEnv(num_envs=4, world=ReplayWorld(), scenes=[make_town(500000)], starts=4)
    floor = average(run_episodes(env, make_agent("constant-velocity"), 4))
    rule = average(run_episodes(env, make_agent("route-follower"), 4))
    assert rule["score"] > floor["score"] + 0.3
