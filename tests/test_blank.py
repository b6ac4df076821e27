"""Claims about starts from nothing."""

from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest
import torch

import occsora_sim  # noqa: F401  (registers the environment)
from occsora_sim.errors import ConfigurationError
from occsora_sim.grid import FREE, NUM_CLASSES
from occsora_sim.scenes.blank import blank_start
from occsora_sim.worlds.diffusion import DiffusionWorld
from occsora_sim.worlds.replay import ReplayWorld


@pytest.fixture(scope="module")
def world(untrained_model) -> DiffusionWorld:
    return DiffusionWorld(untrained_model, steps=2)


def start(seed: int, world: DiffusionWorld):
    return blank_start(np.random.default_rng(seed), world.grid)


def test_a_blank_start_shows_nothing_and_drives_along_its_route(world):
    for seed in range(20):
        blank = start(seed, world)
        assert blank.occupancy.shape == (0, *world.grid.shape)
        speed = (blank.ego_pose[1:, 0] - blank.ego_pose[:-1, 0]) / 0.5
        assert 4 <= float(speed[0]) <= 10 and torch.allclose(speed, speed[0].expand(3))
        gaps = (blank.route[1:] - blank.route[:-1]).norm(dim=-1)
        assert torch.allclose(gaps, torch.ones_like(gaps), atol=1e-3) and float(gaps.sum()) > 690
        near = blank.route[blank.route[:, 0].abs() < 30]
        assert float(near[near[:, 0] > -35][:, 1].abs().min()) == 0  # it begins on the route, straight ahead
    assert not torch.equal(start(1, world).route, start(2, world).route)
    assert torch.equal(start(1, world).route, start(1, world).route)


def test_the_first_frame_is_drawn_whole_and_differs_with_the_seed(world):
    blank = start(0, world)
    one, two, again = (world.reset([blank], [seed]) for seed in (1, 2, 1))
    assert one.occupancy.shape == (1, 1, *world.grid.shape)
    assert int(one.occupancy.max()) < NUM_CLASSES and bool((one.occupancy != FREE).any())
    assert torch.equal(one.occupancy, again.occupancy) and not torch.equal(one.occupancy, two.occupancy)
    assert torch.equal(one.ego_pose[0, 0], blank.ego_pose[-1])


def test_a_budget_of_tiles_leaves_out_nothing_of_the_first_view(world):
    blank = start(0, world)
    fast = blank.ego_pose * torch.tensor([5.0, 1.0, 1.0])  # so that each of its frames uncovers a tile
    blank = replace(blank, ego_pose=fast)
    whole, budget = (world.variant(tiles=tiles).reset([blank], [1]) for tiles in (None, 1))
    assert torch.equal(whole.occupancy, budget.occupancy)
    known = [state.memory.ground.canvas.fine.known for state in (whole, budget)]
    assert torch.equal(*known) and bool(known[0].any())


def test_a_blank_row_is_the_same_alone_and_beside_a_seen_one(world):
    blank, other = start(0, world), start(3, world)
    seen = world.reset([blank], [5])
    known = replace(other, occupancy=seen.occupancy[0].expand(4, -1, -1, -1))
    both = world.reset([known, blank], [7, 5])
    assert torch.equal(both.occupancy[1], seen.occupancy[0])
    ahead = torch.tensor([[[3.0, 0.0, 0.0], [6.0, 0.0, 0.0]]])
    alone = world.step(seen, ahead)
    together = world.step(both, ahead.expand(2, -1, -1))
    assert torch.equal(together.occupancy[1], alone.occupancy[0])


def test_an_episode_can_begin_from_nothing(world):
    env = gym.make("OccSora/Drive-v0", world=world, scenes="generate", starts=3, seconds=3.0, seed=4)
    observation, _ = env.reset(seed=1)
    assert env.observation_space.contains(observation) and float(observation["ego"][0]) >= 4
    observation, *_ = env.step(env.action_space.sample() * 0)
    assert env.observation_space.contains(observation)
    first, info = env.reset(seed=1, options={"start": "generate"})
    second, _ = env.reset(seed=2, options={"start": "generate"})
    assert info["start"] == -1 and env.get_wrapper_attr("state").origins[0].name.startswith("nothing")
    assert not np.array_equal(first["ego"], second["ego"])
    with pytest.raises(ConfigurationError, match="'generate'"):
        env.reset(options={"start": "nowhere"})


def test_a_batch_can_begin_from_nothing(world):
    envs = gym.make_vec("OccSora/Drive-v0", num_envs=2, world=world, scenes="generate", starts=2, seconds=2.0)
    observation, _ = envs.reset(seed=3, options={"start": "generate"})
    assert envs.observation_space.contains(observation)
    assert not np.array_equal(observation["ego"][0], observation["ego"][1])


def test_worlds_that_record_refuse_to_begin_from_nothing(world):
    with pytest.raises(ConfigurationError, match="nothing that was seen"):
        ReplayWorld(world.grid).reset([start(0, world)], [0])
