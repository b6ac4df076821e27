"""Every action and observation option of the environment, and the wrappers, on the replay world."""

import warnings

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env

from occsora_sim.envs import wrappers
from occsora_sim.envs.birdseye import birdseye_image
from occsora_sim.envs.config import ACTIONS, OBSERVATIONS
from occsora_sim.envs.drive import DriveEnv
from occsora_sim.envs.manoeuvre import MANOEUVRES, manoeuvres_to_trajectory
from occsora_sim.envs.vector import DriveVectorEnv
from occsora_sim.errors import ActionError, ConfigurationError, NotResetError
from occsora_sim.grid import CAR, DRIVEABLE, FREE, MANMADE, SIDEWALK, TINY
from occsora_sim.scenes.start import make_start
from occsora_sim.scoring.route import make_routes
from occsora_sim.vehicle import Vehicle
from occsora_sim.worlds.replay import ReplayWorld

STOP, SLOW, STEADY, FAST, FASTEST, LEFT, RIGHT = range(7)
CHOICES = [
    (action, seen) for action in ACTIONS for seen in (*((name,) for name in OBSERVATIONS), OBSERVATIONS)
]
NAMES = [f"{action}-{'+'.join(observation)}" for action, observation in CHOICES]


@pytest.fixture
def options(straight_road):
    """Keywords of a small environment: two starts on a road with a slow car ahead and one oncoming."""
    scene = straight_road(cars=[(60.0, 0.0, 1.0), (100.0, 3.0, -6.0)])
    starts = [make_start(scene, 0, step, TINY, history=3) for step in (2, 4)]
    return {"world": ReplayWorld(TINY), "scenes": starts, "seconds": 6.0}


def same(a, b):
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


# --------------------------------------------------------------------------- the checkers
@pytest.mark.parametrize(("action", "observation"), CHOICES, ids=NAMES)
def test_gymnasium_check_env_passes_without_a_warning(options, action, observation):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(DriveEnv(**options, action=action, observation=observation), skip_render_check=True)


@pytest.mark.parametrize(("action", "observation"), CHOICES, ids=NAMES)
def test_stable_baselines_check_env_passes_without_a_warning(options, action, observation):
    checker = pytest.importorskip("stable_baselines3.common.env_checker", reason="the extra `rl`")
    env = wrappers.learner(DriveEnv(**options, action=action, observation=observation))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        checker.check_env(env)


@pytest.mark.parametrize("wrap", [wrappers.image, wrappers.flat, lambda env: wrappers.image(env, pool=2)])
def test_wrapped_environments_pass_both_checkers(options, wrap):
    env = wrap(DriveEnv(**options, action="manoeuvre", observation=("birdseye",)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings(
            "ignore", message=".*minimal resolution.*"
        )  # 24 x 24 of the test's small grid
        warnings.filterwarnings("ignore", message=".*different from the unwrapped version.*")
        check_env(env, skip_render_check=True)
        checker = pytest.importorskip("stable_baselines3.common.env_checker", reason="the extra `rl`")
        checker.check_env(env)


# --------------------------------------------------------------------------- determinism
@pytest.mark.slow
@pytest.mark.parametrize("action", ACTIONS)
def test_two_environments_with_the_same_seed_agree_over_60_random_steps(options, action):
    envs = [
        DriveEnv(**options, action=action, observation=OBSERVATIONS, frames_per_decision=1) for _ in range(2)
    ]
    envs[0].action_space.seed(3)
    first, second = (env.reset(seed=11)[0] for env in envs)
    assert same(first, second)
    episodes = 0
    for _ in range(60):
        drawn = envs[0].action_space.sample()
        one, two = (env.step(drawn) for env in envs)
        assert same(one[0], two[0]) and one[1:4] == two[1:4]
        assert one[4]["reward_terms"] == two[4]["reward_terms"]
        if one[2] or one[3]:
            episodes += 1
            assert same(*(env.reset()[0] for env in envs))
    assert episodes > 1


@pytest.mark.parametrize("action", ACTIONS)
def test_a_batch_is_its_singles(options, action):
    batch = DriveVectorEnv(num_envs=4, **options, action=action, observation=OBSERVATIONS)
    singles = [DriveEnv(**options, action=action, observation=OBSERVATIONS) for _ in range(4)]
    batch.action_space.seed(1)
    observation, _ = batch.reset(seed=40)
    for row, env in enumerate(singles):
        assert same(env.reset(seed=40 + row)[0], {name: value[row] for name, value in observation.items()})
    for _ in range(12):
        actions = batch.action_space.sample()
        observation, reward, terminated, truncated, _ = batch.step(actions)
        for row, env in enumerate(singles):
            if env._ended:  # the batch begins anew by itself, in the next step
                one = (env.reset()[0], 0.0, False, False)
            else:
                one = env.step(actions[row])[:4]
            assert same(one[0], {name: value[row] for name, value in observation.items()})
            assert one[1:] == (reward[row], terminated[row], truncated[row])


# --------------------------------------------------------------------------- manoeuvres
def along(manoeuvre, speed, y=0.0, line=((0.0, 0.0), (200.0, 0.0)), frames=4):
    """Trajectory (f, 3), speeds (f,) of a manoeuvre from (0, y), heading along x."""
    routes = make_routes([torch.tensor(line)])
    pose, near = torch.tensor([[0.0, y, 0.0]], dtype=torch.float64), torch.zeros(1)
    number, fast = torch.tensor([manoeuvre]), torch.tensor([speed], dtype=torch.float64)
    trajectory, speeds, _ = manoeuvres_to_trajectory(number, routes, near, pose, fast, frames, Vehicle())
    return trajectory[0], speeds[0]


def test_at_the_speed_that_is_asked_for_speed_and_line_are_held():
    trajectory, speeds = along(FAST, 9.0)
    torch.testing.assert_close(speeds, torch.full((4,), 9.0, dtype=torch.float64))
    expected = torch.tensor([[4.5 * k, 0.0, 0.0] for k in range(1, 5)], dtype=torch.float64)
    torch.testing.assert_close(trajectory, expected)


def test_a_speed_is_reached_after_a_second_or_as_fast_as_is_comfortable_whatever_it_is_now():
    assert along(STEADY, 5.0)[1].tolist() == pytest.approx([5.5, 6.0, 6.0, 6.0])
    assert along(FAST, 0.0)[1].tolist() == pytest.approx([1.0, 2.0, 3.0, 4.0])
    assert along(STOP, 5.0)[1].tolist() == pytest.approx([3.0, 1.0, 0.0, 0.0])
    assert along(SLOW, 5.0, frames=2)[1].tolist() == pytest.approx([4.0, 3.0])


def test_left_and_right_go_to_a_line_three_metres_beside_and_a_speed_comes_back():
    trajectory, _ = along(LEFT, 8.0, frames=8)
    assert trajectory[-1, 1].item() == pytest.approx(3.0, abs=0.2)
    mirrored, _ = along(RIGHT, 8.0, frames=8)
    torch.testing.assert_close(mirrored[:, 1], -trajectory[:, 1])
    assert along(LEFT, 7.0)[1].tolist() == pytest.approx([7.0] * 4)
    back, _ = along(FAST, 8.0, y=3.0, frames=8)
    assert back[-1, 1].item() == pytest.approx(-3.0, abs=0.2), "relative to where it began"


def test_every_manoeuvre_follows_a_bend():
    bend = [(20 * np.sin(k / 10), 20 - 20 * np.cos(k / 10)) for k in range(16)]
    trajectory, _ = along(STEADY, 6.0, line=bend, frames=8)
    x, y = trajectory[-1, 0].item(), trajectory[-1, 1].item()
    assert np.hypot(x, y - 20) == pytest.approx(20.0, abs=0.5) and trajectory[-1, 2] > 0.8


def test_past_the_end_of_its_route_a_manoeuvre_goes_straight_on():
    trajectory, _ = along(FAST, 9.0, line=((-20.0, 0.0), (2.0, 0.0)), frames=4)
    assert trajectory[-1].tolist() == pytest.approx([18.0, 0.0, 0.0], abs=1e-6)


def test_a_manoeuvre_is_an_action_of_the_environment(options):
    env = DriveEnv(**options, action="manoeuvre")
    assert env.action_space.n == len(MANOEUVRES)
    _, before = env.reset(seed=0)
    info = env.step(np.int64(STOP))[4]
    assert info["speed"] == pytest.approx(before["speed"] - 4.0)
    assert env.step(LEFT)[4]["ego_pose"][1] > 0.2


@pytest.mark.parametrize("action", [7, -1, 0.5, np.nan, "left", None, [0], np.zeros(2)])
def test_what_is_no_manoeuvre_is_refused_in_one_line(options, action):
    env = DriveEnv(**options, action="manoeuvre")
    with pytest.raises(NotResetError, match=r"^[^\n]+$"):
        env.step(STOP)
    env.reset(seed=0)
    with pytest.raises(ActionError, match=r"^[^\n]+$"):
        env.step(action)
    batch = DriveVectorEnv(num_envs=2, **options, action="manoeuvre")
    batch.reset(seed=0)
    with pytest.raises(ActionError, match=r"environment 1: 7\.0 is no manoeuvre; choose one of 0: 0 m/s"):
        batch.step([0, 7])


# --------------------------------------------------------------------------- observations
def test_the_birdseye_image_shows_ground_obstacles_and_route():
    frame = torch.full((1, 1, *TINY.shape), FREE, dtype=torch.uint8)
    frame[..., TINY.ground] = SIDEWALK
    frame[:, :, :, 20:28, TINY.ground] = DRIVEABLE
    frame[0, 0, 30:34, 22:24, 2:4] = CAR
    frame[0, 0, 40, :, 2:6] = MANMADE
    frame[0, 0, 5, 24, 12] = MANMADE  # a branch above the road
    route = torch.tensor([[[2.0 * k, 0.0] for k in range(1, 21)]])
    image = birdseye_image(frame, route, TINY)
    assert image.shape == (1, 5, 48, 48) and image.dtype == torch.uint8
    drivable, off, users, static, way = (image[0] > 0).unbind()
    assert drivable.sum() == 48 * 8 and off.sum() == 48 * 40 and not (drivable & off).any()
    assert users.nonzero().tolist() == [[x, y] for x in range(30, 34) for y in (22, 23)]
    assert static.nonzero()[:, 0].unique().tolist() == [40] and static.sum() == 48
    assert way[26:48, 23:25].all() and not way[:24].any() and not way[:, :22].any() and not way[:, 26:].any()
    assert set(image.unique().tolist()) == {0, 255}


def test_what_is_observed_is_what_was_asked_for(options):
    env = DriveEnv(**options, observation=["route", "birdseye"])
    observation, _ = env.reset(seed=0)
    assert set(observation) == {"route", "birdseye"} and observation["birdseye"].shape == (9, 48, 48)
    assert set(DriveEnv(**options, observation="ego").reset(seed=0)[0]) == {"ego"}


@pytest.mark.parametrize(
    "wrong",
    [
        {"observation": ("radar",)},
        {"observation": ()},
        {"observation": ("ego", "ego")},
        {"observation": 3},
        {"imagination": "dreams"},
        {"frames_per_decision": 0},
        {"frames_per_decision": 1.5},
        {"frames_per_decision": True},
        {"action": "manoeuver"},
        {"steps": 0},
        {"steps": True},
    ],
)
def test_wrong_options_are_refused_in_one_line(options, wrong):
    with pytest.raises(ConfigurationError, match=r"^[^\n]+$"):
        DriveEnv(**(options | wrong))
    with pytest.raises(ConfigurationError, match=r"^[^\n]+$"):
        DriveVectorEnv(num_envs=2, **(options | wrong))


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("frames", [1, 2])
def test_a_decision_lasts_the_frames_that_it_says(options, action, frames):
    env = DriveEnv(**options, action=action, frames_per_decision=frames)
    env.action_space.seed(0)
    assert env.reset(seed=0)[0]["occupancy"].shape[0] == frames
    info = env.step(env.action_space.sample())[4]
    assert info["trajectory"].shape == (frames, 3) and info["ego_poses"].shape == (frames, 3)


# --------------------------------------------------------------------------- wrappers
def rows_of(observation, row):
    return (
        observation[row]
        if isinstance(observation, np.ndarray)
        else {k: v[row] for k, v in observation.items()}
    )


def equal(a, b):
    return np.array_equal(a, b) if isinstance(a, np.ndarray) else same(a, b)


WRAPPERS = {
    "image": lambda env: wrappers.image(env, pool=4),
    "learner": lambda env: wrappers.learner(env, pool=2),
    "flat": wrappers.flat,
    "stack": lambda env: wrappers.frame_stack(env, 3),
    "stacked image": lambda env: wrappers.frame_stack(wrappers.image(env), 2),
}


@pytest.mark.parametrize("autoreset", ["next_step", "same_step"])
@pytest.mark.parametrize("name", WRAPPERS)
def test_a_wrapped_batch_shows_what_its_wrapped_singles_show(options, name, autoreset):
    options = options | {"seconds": 2.0, "observation": ("birdseye", "ego")}
    batch = WRAPPERS[name](DriveVectorEnv(num_envs=2, **options, autoreset=autoreset))
    singles = [WRAPPERS[name](DriveEnv(**options)) for _ in range(2)]
    observation, _ = batch.reset(seed=5)
    assert batch.observation_space.contains(observation)
    for row, env in enumerate(singles):
        alone = env.reset(seed=5 + row)[0]
        assert env.observation_space.contains(alone) and equal(alone, rows_of(observation, row))
    action = np.array([[0.3, 0.0], [-0.4, 0.02]], dtype=np.float32)
    over, ends = [False, False], 0
    for _ in range(5):
        observation, _, _, _, infos = batch.step(action)
        for row, env in enumerate(singles):
            if over[row]:
                alone, over[row] = env.reset()[0], False
            else:
                alone, _, terminated, truncated, _ = env.step(action[row])
                over[row] = terminated or truncated
                if over[row] and autoreset == "same_step":
                    ends += 1
                    assert equal(alone, infos["final_obs"][row])
                    alone, over[row] = env.reset()[0], False
            assert equal(alone, rows_of(observation, row))
    assert batch.observation_space.contains(observation) and (ends == 4 or autoreset == "next_step")


def test_pooling_keeps_a_thin_obstacle(options):
    env = DriveEnv(**options, observation=("birdseye",))
    full = env.reset(seed=0)[0]["birdseye"]
    small = wrappers.image(env, pool=4).reset(seed=0)[0]
    assert small.shape == (9, 12, 12)
    assert np.array_equal(small > 0, full.reshape(9, 12, 4, 12, 4).any(axis=(2, 4)))


def test_wrappers_say_what_they_need(options):
    for make in (DriveEnv, lambda **given: DriveVectorEnv(num_envs=2, **given)):
        with pytest.raises(ConfigurationError, match="birdseye"):
            wrappers.image(make(**options))
        with pytest.raises(ConfigurationError, match="does not divide"):
            wrappers.image(make(**options, observation=("birdseye",)), pool=5)
        with pytest.raises(ConfigurationError, match="size 0"):
            wrappers.frame_stack(make(**options), 0)


def test_gymnasium_make_takes_every_option(options):
    env = gym.make("OccSora/Drive-v0", **options, action="manoeuvre", observation=("birdseye", "route"))
    observation, _ = env.reset(seed=1)
    assert env.observation_space.contains(observation)
    assert env.step(env.action_space.sample())[0]["birdseye"].dtype == np.uint8
