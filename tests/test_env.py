"""The Gymnasium environments on the replay world: contract, determinism, reward, errors."""

import subprocess
import sys
import warnings

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode

import occsora_sim  # noqa: F401  (registers the id)
from occsora_sim.envs.drive import DriveEnv
from occsora_sim.envs.vector import DriveVectorEnv
from occsora_sim.errors import ActionError, ConfigurationError, NotResetError
from occsora_sim.grid import TINY
from occsora_sim.scenes.start import make_start
from occsora_sim.worlds.replay import ReplayWorld

STILL, AHEAD, BRAKE = np.array([0.0, 0.0]), np.array([0.4, 0.0]), np.array([-1.0, 0.0])


@pytest.fixture
def options(straight_road):
    """Keywords of a small environment: two starts on a road with a slow car ahead and one oncoming."""
    scene = straight_road(cars=[(60.0, 0.0, 1.0), (100.0, 3.0, -6.0)])
    starts = [make_start(scene, 0, step, TINY, history=3) for step in (2, 4)]
    return {"world": ReplayWorld(TINY), "scenes": starts, "seconds": 6.0}


def rollout(env, actions, seed):
    observation, _ = env.reset(seed=seed)
    out = [(observation, 0.0, False, False)]
    for action in actions:
        out.append(env.step(action.astype(np.float32))[:4])
        if out[-1][2] or out[-1][3]:
            break
    return out


def same(a, b):
    return all(np.array_equal(a[name], b[name]) for name in a) and a.keys() == b.keys()


@pytest.mark.parametrize("action", ["controls", "trajectory"])
def test_check_env_passes_without_a_warning(options, action):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(DriveEnv(**options, action=action), skip_render_check=True)


@pytest.mark.parametrize("name", ["OccSora/Drive-v0", "occsora_sim:OccSora/Drive-v0"])
def test_make(options, name):
    env = gym.make(name, **options)
    observation, info = env.reset(seed=1)
    assert env.observation_space.contains(observation) and observation["occupancy"].shape == (2, 48, 48, 16)
    assert env.get_wrapper_attr("simulation").starts[info["start"]].name.startswith("straight/0@")
    with pytest.raises(NotResetError):
        gym.make(name, **options).step(env.action_space.sample())


def test_make_vec(options):
    env = gym.make_vec("OccSora/Drive-v0", num_envs=3, **options)
    assert isinstance(env, DriveVectorEnv) and env.metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP
    observation, _ = env.reset(seed=1)
    assert env.observation_space.contains(observation)
    observation, reward, terminated, truncated, infos = env.step(np.zeros((3, 2), dtype=np.float32))
    assert env.observation_space.contains(observation)
    assert reward.shape == terminated.shape == truncated.shape == (3,) and infos["_reward_terms"].all()
    assert infos["ego_pose"].shape == (3, 3) and infos["reward_terms"]["progress"].shape == (3,)


def test_an_import_of_the_package_brings_no_open3d_and_no_models():
    code = (
        "import sys, occsora_sim, gymnasium; gymnasium.spec('OccSora/Drive-v0');"
        "heavy = ('open3d', 'libsumo', 'occsora_sim.models', 'occsora_sim.worlds');"
        "print([name for name in sys.modules if name.startswith(heavy)])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_same_seed_and_actions_give_the_same_rollout(options):
    actions = np.random.default_rng(0).uniform(-0.3, 0.5, size=(6, 2))
    first, second = rollout(DriveEnv(**options), actions, 5), rollout(DriveEnv(**options), actions, 5)
    assert len(first) == len(second) > 3
    for a, b in zip(first, second, strict=True):
        assert same(a[0], b[0]) and a[1:] == b[1:]


def test_an_episode_is_the_same_alone_and_in_a_batch(options):
    actions = np.random.default_rng(1).uniform(-0.3, 0.5, size=(6, 9, 2)).astype(np.float32)
    batch = DriveVectorEnv(num_envs=9, **options)
    observation, _ = batch.reset(seed=20)
    alone = [rollout(DriveEnv(**options), actions[:, row], 20 + row) for row in range(9)]
    for row in range(9):
        assert same(alone[row][0][0], {name: value[row] for name, value in observation.items()})
    over = np.zeros(9, dtype=bool)
    for step in range(6):
        observation, reward, terminated, truncated, _ = batch.step(actions[step])
        for row in np.flatnonzero(~over).tolist():
            one = alone[row][step + 1]
            assert same(one[0], {name: value[row] for name, value in observation.items()})
            assert one[1:] == (reward[row], terminated[row], truncated[row])
        over |= terminated | truncated


def test_next_step_autoreset_ignores_the_action_and_starts_anew(options):
    env = DriveVectorEnv(num_envs=2, **(options | {"seconds": 2.0}))
    env.reset(seed=3, options={"start": [0, 1]})
    env.step(np.stack((STILL, STILL)))
    _, _, terminated, truncated, infos = env.step(np.stack((STILL, STILL)))
    assert truncated.all() and not terminated.any() and infos["_episode_score"].all()
    assert infos["episode_score"]["seconds"].tolist() == [2.0, 2.0]
    _, reward, _, truncated, infos = env.step(np.full((2, 2), np.nan))
    assert reward.tolist() == [0, 0] and not truncated.any() and infos["progress"].tolist() == [0, 0]
    assert not env.step(np.stack((STILL, STILL)))[3].any()


def test_next_step_autoreset_of_one_row_leaves_the_others_alone(options):
    lone = DriveEnv(**options)
    lone.reset(seed=31, options={"start": 0})
    env = DriveVectorEnv(num_envs=2, **options)
    env.reset(seed=30, options={"start": [1, 0]})
    fast = np.array([1.0, 0.0])
    ended = []
    for _ in range(6):
        observation, reward, terminated, truncated, _ = env.step(np.stack((fast, BRAKE)))
        one = lone.step(BRAKE)
        assert same(one[0], {name: value[1] for name, value in observation.items()}) and one[1] == reward[1]
        ended.append(terminated[0] or truncated[0])
    assert any(ended[:-1]) and one[3] and truncated[1]


def test_same_step_autoreset_hands_over_the_last_observation(options):
    env = DriveVectorEnv(num_envs=2, **(options | {"seconds": 1.0}), autoreset="same_step")
    assert env.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
    env.reset(seed=3, options={"start": [0, 1]})
    observation, _, _, truncated, infos = env.step(np.stack((AHEAD, BRAKE)))
    assert truncated.all()
    for row in range(2):
        assert infos["final_obs"][row]["ego"][0] != observation["ego"][row, 0]
    assert infos["final_info"]["progress"][0] > infos["final_info"]["progress"][1] > 0
    assert infos["progress"].tolist() == [0, 0]


def test_reward_is_the_sum_of_its_terms_and_weights_switch_them(options):
    env = DriveEnv(**options)
    env.reset(seed=0)
    _, reward, _, _, info = env.step(AHEAD)
    assert (
        reward == pytest.approx(sum(info["reward_terms"].values())) and info["reward_terms"]["progress"] > 0
    )
    env = DriveEnv(**options, reward={"progress": 0.0, "comfort": 0.0})
    env.reset(seed=0)
    assert env.step(AHEAD)[1] == 0


def test_driving_into_a_car_ends_the_episode_and_pays_less_than_stopping(options):
    def drive(stop_after):
        env, total = DriveEnv(**options, reward={"comfort": 0.0}), 0.0
        env.reset(seed=0, options={"start": 0})
        for step in range(6):
            _, reward, terminated, truncated, info = env.step(BRAKE if step >= stop_after else AHEAD)
            total += reward
            if terminated or truncated:
                return total, terminated, info
        raise AssertionError("no end")

    crash, crashed, info = drive(9)
    careful, ended, _ = drive(2)
    assert crashed and info["terms"]["nc"] == 0 and info["episode_score"]["score"] == 0
    assert not ended and careful > crash and crash < 0


def test_leaving_the_road_for_good_ends_the_episode(options):
    env = DriveEnv(**options)
    env.reset(seed=0, options={"start": 0})
    for _ in range(6):
        _, _, terminated, truncated, info = env.step(np.array([0.0, 0.25]))
        if terminated or truncated:
            break
    assert terminated and info["terms"]["outside"] and info["episode_score"]["dac"] == 0


def test_standing_still_earns_nothing(options):
    env, rewards = DriveEnv(**options, reward={"comfort": 0.0}), []
    env.reset(seed=0)
    env.step(BRAKE)
    env.step(BRAKE)
    for _ in range(4):
        rewards.append(env.step(STILL)[1])
    assert rewards == [0, 0, 0, 0]


def test_a_decision_can_last_one_frame(options):
    env = DriveEnv(**options, frames_per_decision=1)
    observation, _ = env.reset(seed=0)
    assert observation["occupancy"].shape[0] == 1
    _, _, _, _, info = env.step(AHEAD)
    assert (
        info["episode_score"]["seconds"] == 0.5
        if "episode_score" in info
        else info["trajectory"].shape == (1, 3)
    )


def test_a_straight_trajectory_action_drives_straight(options):
    env = DriveEnv(**options, action="trajectory")
    _, before = env.reset(seed=0)
    action = np.array([-0.36, 0, 0, -0.36, 0, 0])  # 4 m a frame: 8 m/s
    _, _, _, _, info = env.step(action)
    np.testing.assert_allclose(info["ego_pose"] - before["ego_pose"], [8.0, 0, 0], atol=1e-4)
    assert info["speed"] == pytest.approx(8.0)


def test_steering_left_turns_left(options):
    env = DriveEnv(**options)
    env.reset(seed=0)
    observation, _, _, _, info = env.step(np.array([0.0, 0.1]))
    assert info["ego_pose"][2] > 0 and observation["ego"][2] > 0 and observation["route"][5, 1] < 0


@pytest.mark.parametrize(
    "action",
    [
        np.array([np.nan, 0]),
        np.array([0, 1.01]),
        np.zeros(3),
        np.zeros((1, 2)),
        "left",
        np.array([np.inf, 0]),
    ],
)
def test_bad_actions_are_refused_in_one_line(options, action):
    env = DriveEnv(**options)
    env.reset(seed=0)
    with pytest.raises(ActionError, match=r"^[^\n]+$"):
        env.step(action)
    env.step(np.array([1 + 1e-7, 0.0]))  # rounding is forgiven, and the refused action left no trace


def test_a_bad_row_of_a_batch_is_named(options):
    env = DriveVectorEnv(num_envs=2, **options)
    env.reset(seed=0)
    with pytest.raises(ActionError, match="environment 1"):
        env.step(np.array([[0, 0], [2.0, 0]]))


def test_step_needs_a_reset_before_and_after(options):
    env = DriveEnv(**(options | {"seconds": 1.0}))
    with pytest.raises(NotResetError, match="reset"):
        env.step(STILL)
    env.reset(seed=0)
    assert env.step(STILL)[3]
    with pytest.raises(NotResetError, match="ended"):
        env.step(STILL)
    with pytest.raises(NotResetError):
        DriveVectorEnv(num_envs=2, **options).step(np.zeros((2, 2)))


@pytest.mark.parametrize(
    "wrong",
    [
        {"world": "carla"},
        {"action": "buttons"},
        {"frames_per_decision": 3},
        {"seconds": 0},
        {"colour": "red"},
        {"reward": {"fame": 1.0}},
        {"scenes": [1, 2]},
        {"scenes": []},
        {"render_mode": "film"},
        {"autoreset": "never"},
    ],
)
def test_wrong_options_are_refused_in_one_line(options, wrong):
    with pytest.raises(ConfigurationError, match=r"^[^\n]+$"):
        DriveEnv(**(options | wrong))


def test_a_start_that_does_not_exist_is_refused(options):
    with pytest.raises(ConfigurationError, match="0 to 1"):
        DriveEnv(**options).reset(options={"start": 7})


def test_scenes_are_turned_into_starts(straight_road):
    env = DriveEnv(world=ReplayWorld(TINY), scenes=[straight_road(steps=61)], starts=3)
    assert len(env.simulation.starts) == 3
    env.reset(seed=0)
    assert env.step(STILL)[0]["occupancy"].shape == (2, 48, 48, 16)


def test_render_gives_a_picture(options):
    env = DriveEnv(**options, render_mode="rgb_array")
    env.reset(seed=0)
    picture = env.render()
    assert picture.dtype == np.uint8 and picture.ndim == 3 and picture.shape[2] == 3 and picture.std() > 5
    batch = DriveVectorEnv(num_envs=2, **options, render_mode="rgb_array")
    batch.reset(seed=0)
    assert len(batch.render()) == 2
    assert DriveEnv(**options).render() is None
