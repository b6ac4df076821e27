"""The observation "road_users", and the road users of a recorded episode."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env

from occsora_sim.agents.constant_velocity import ConstantVelocity
from occsora_sim.agents.episode import run_episodes
from occsora_sim.envs.drive import DriveEnv
from occsora_sim.envs.vector import DriveVectorEnv
from occsora_sim.envs.wrappers import learner
from occsora_sim.errors import ConfigurationError
from occsora_sim.grid import CAR, TINY
from occsora_sim.scenes.start import make_start
from occsora_sim.worlds.diffusion import DiffusionWorld
from occsora_sim.worlds.replay import ReplayWorld


@pytest.fixture
def options(straight_road):
    """A slow car ahead, one that comes towards the ego on the other lane, one far away."""
    scene = straight_road(cars=[(60.0, 3.0, -5.0), (30.0, 0.0, 2.0), (300.0, 0.0, 0.0)])
    starts = [make_start(scene, 0, step, TINY) for step in (3, 4)]
    return {
        "world": ReplayWorld(TINY),
        "scenes": starts,
        "observation": ("ego", "road_users"),
        "road_users": 4,
    }


def test_the_nearest_are_told_first_in_the_ego_frame_with_their_tracks(options):
    env = DriveEnv(**options)
    seen, info = env.reset(seed=0, options={"start": 0})
    users = seen["road_users"]
    # At 1.5 s the ego is at 12 m; boxes are at 33 and 52.5 m.
    wanted = [[1, 21, 0, 1, 0, 2, 0, 4.4, 1.8, CAR], [1, 40.5, 3, 1, 0, -5, 0, 4.4, 1.8, CAR]]
    assert np.allclose(users[:2], wanted, atol=1e-4) and not users[2:].any()
    assert info["road_user_ids"].tolist() == [2, 1, -1, -1] and info["road_user_ids"].dtype == np.int64
    seen, _, _, _, info = env.step(np.zeros(2, np.float32))
    assert info["road_user_ids"].tolist() == [2, 1, -1, -1]
    assert np.allclose(seen["road_users"][0, 1:3], [21 - 8 + 2, 0], atol=0.3)


def test_single_and_vector_environments_tell_the_same(options):
    single, many = DriveEnv(**options), DriveVectorEnv(num_envs=2, **options)
    seen, infos = many.reset(seed=3, options={"start": [0, 1]})
    for row in (0, 1):
        one, info = single.reset(seed=3 + row, options={"start": row})
        assert np.array_equal(one["road_users"], seen["road_users"][row])
        assert np.array_equal(info["road_user_ids"], infos["road_user_ids"][row])
    seen, _, _, _, infos = many.step(np.zeros((2, 2), np.float32))
    assert seen["road_users"].shape == (2, 4, 10) and infos["road_user_ids"].shape == (2, 4)


def test_the_checker_and_the_learner_take_road_users(options):
    check_env(DriveEnv(**options), skip_render_check=True)
    env = learner(DriveEnv(**options))
    seen, _ = env.reset(seed=0)
    assert env.observation_space.contains(seen) and seen["road_users"].shape == (40,)


class Unpeopled(DiffusionWorld):
    """A world that tells no road users apart."""

    def reset(self, starts, seeds):
        return replace(super().reset(starts, seeds), users=None)


def test_a_world_without_road_users_refuses_them_in_one_line(options, untrained_model):
    grid = untrained_model.config.grid
    starts = [make_start(options["scenes"][0].source[0], 0, 4, grid)]
    env = DriveEnv(**{**options, "world": Unpeopled(untrained_model, steps=1), "scenes": starts})
    with pytest.raises(ConfigurationError, match=r"^[^\n]*road users[^\n]*$"):
        env.reset(seed=0)


@pytest.mark.parametrize("count", [0, -1, 2.5, True])
def test_a_number_of_road_users_that_cannot_be_is_refused(options, count):
    with pytest.raises(ConfigurationError, match=r"^[^\n]*road_users[^\n]*$"):
        DriveEnv(**{**options, "road_users": count})


def test_a_recorded_episode_keeps_the_road_users_of_each_frame(options):
    (episode,) = run_episodes(DriveEnv(**options, seconds=4.0), ConstantVelocity(), 1, record=1)
    recording = episode.recording
    users = recording.users
    assert len(users.valid) == len(recording.occupancy) == len(recording.ego_pose)
    slow = [int(np.flatnonzero(ids == 2)[0]) for ids in users.id]
    x = np.array([pose[slot, 0] for pose, slot in zip(users.pose, slow, strict=True)])
    assert np.allclose(np.diff(x), 1.0, atol=1e-4)  # 2 m/s, frame by frame
    assert np.allclose([users.velocity[k, slot, 0] for k, slot in enumerate(slow)], 2.0, atol=1e-4)
    assert torch.equal(torch.from_numpy(users.id >= 0), torch.from_numpy(users.valid))
