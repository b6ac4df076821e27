"""examples/ppo.py: the advantages, a training in small that goes on from its checkpoint, and what it leaves."""

import dataclasses

import gymnasium as gym
import numpy as np
import pytest
import torch
from test_examples import load

from occsora_sim.agents import make_agent
from occsora_sim.agents.driving_policy import (
    DrivingAgent,
    DrivingPolicy,
    along_route,
    directions,
    image_along_route,
)
from occsora_sim.agents.protocol import wanted_options
from occsora_sim.errors import ConfigurationError
from occsora_sim.grid import TINY
from occsora_sim.scenes.start import make_start
from occsora_sim.worlds.diffusion import DiffusionWorld
from occsora_sim.worlds.replay import ReplayWorld

pytest.importorskip("tensorboard", reason="the extra `train`")


@pytest.fixture(scope="module")
def ppo():
    return load("ppo")


def column(*values, kind=torch.float64):
    return torch.tensor(values, dtype=kind)[:, None]


def flags(*values):
    return column(*values, kind=torch.bool)


def test_advantages_of_an_episode_that_goes_on(ppo):
    none = flags(0, 0, 0)
    found = ppo.advantages(
        column(1, 2, 3), column(10, 20, 30), none, none, none, column(40)[0], gamma=0.5, gae=0.5
    )
    third = 3 + 0.5 * 40 - 30
    second = 2 + 0.5 * 30 - 20 + 0.25 * third
    assert found[:, 0].tolist() == [1 + 0.5 * 20 - 10 + 0.25 * second, second, third]


@pytest.mark.parametrize("cut", [False, True])
def test_advantages_stop_at_an_end_and_skip_the_step_that_begins_anew(ppo, cut):
    """Steps: drives, ends, is ignored (its reward and value are nonsense), drives again."""
    ends = flags(0, 1, 0, 0)
    terminated, truncated = (flags(0, 0, 0, 0), ends) if cut else (ends, flags(0, 0, 0, 0))
    value = column(10, 20, 30, 40)  # 30: of the last observation of the episode that has ended
    found = ppo.advantages(
        column(1, 2, 99, 4), value, terminated, truncated, flags(0, 0, 1, 0), column(50)[0], 0.5, 0.5
    )
    fourth = 4 + 0.5 * 50 - 40
    second = 2 + (0.5 * 30 if cut else 0.0) - 20
    assert found[:, 0].tolist() == [1 + 0.5 * 20 - 10 + 0.25 * second, second, 0, fourth]


def test_nothing_passes_from_one_rollout_into_the_next_episode(ppo):
    """A rollout that begins with the step that is ignored, and one that ends with an end."""
    none = flags(0, 0)
    found = ppo.advantages(column(7, 1), column(3, 5), none, none, flags(1, 0), column(5)[0], 1.0, 1.0)
    assert found[:, 0].tolist() == [0, 1]
    found = ppo.advantages(column(1, 1), column(3, 5), flags(0, 1), none, none, column(99)[0], 1.0, 1.0)
    assert found[:, 0].tolist() == [1 + 5 - 3 - 4, -4]


def test_a_policy_does_not_mind_the_order_of_road_users_nor_empty_places(ppo):
    torch.manual_seed(0)
    policy = DrivingPolicy()
    users = torch.randn(1, 6, 10).abs().floor()
    users[..., 0] = torch.tensor([1, 1, 1, 1, 0, 0])
    seen = {
        "birdseye": torch.zeros(1, 9, 100, 100, dtype=torch.uint8),
        "ego": torch.ones(1, 4),
        "route": torch.ones(1, 20, 2),
        "road_users": users,
    }
    chance, value = policy(seen)
    other = users[:, [3, 4, 1, 0, 5, 2]].clone()
    other[0, 1, 1:] = 3.0  # no road user is there
    again, valued = policy({**seen, "road_users": other})
    assert torch.allclose(chance.logits, again.logits) and torch.allclose(value, valued)
    assert sum(part.numel() for part in policy.parameters()) < 1e6


def bend():
    """A route of 10 m ahead, then 10 m to the left, in steps of 2 m."""
    straight = [(2.0 * k, 0.0) for k in range(6)]
    return torch.tensor([straight + [(10.0, 2.0 * k) for k in range(1, 6)]])


def test_who_is_round_the_bend_is_on_the_route():
    points = bend()
    ahead = directions(points)
    crossing = [1, 10, 6, 0, 1, 0, 5, 4, 2, 4]  # goes as the route does there, at 5 m/s
    beside = [1, 4, 3, -1, 0, -8, 0, 4, 2, 4]  # comes the other way, 3 m to the left
    told = along_route(torch.tensor([[crossing, beside]]).float(), points, ahead)[0]
    wanted = torch.tensor([[16.0, 0, 5, 0, 1, 0], [4, 3, -8, 0, -1, 0]])
    torch.testing.assert_close(told, wanted, atol=1e-5, rtol=0)


def test_the_image_is_read_along_the_route_and_beside_it():
    image, points = torch.zeros(1, 2, 100, 100), bend()
    image[0, 0, 50:, 50:55] = 1.0  # up to 4 m to the left of the ego, and as far ahead as the image goes
    image[0, 1, 62:64, 55:60] = 1.0  # round the bend, from 4 to 8 m to the left
    read = image_along_route(image, points + 0.01, directions(points))
    assert read.shape == (1, 2, 11, 5)
    assert read[0, 0, 1:5].tolist() == [[0, 0, 1, 1, 0]] * 4  # right of it, on it, 2 m to its left
    assert read[0, 1, 7:9, 2].tolist() == [1, 1] and not read[0, 1, :6].any()


def test_a_route_that_has_ended_leads_ahead():
    points = torch.tensor([[(0.0, 0.0), (0.0, 3.0), (0.0, 3.0), (0.0, 3.0)]])
    assert directions(points)[0].tolist() == [[0, 1], [0, 1], [1, 0], [1, 0]]


@pytest.fixture
def options(straight_road, untrained_model):
    """Keywords of the small untrained world."""
    world = DiffusionWorld(untrained_model, steps=1)
    scene = straight_road(cars=[(30.0, 3.0, 5.0)], steps=61)
    starts = [make_start(scene, 0, step, world.grid, history=4) for step in (3, 4, 5)]
    return {"world": world, "scenes": starts, "seconds": 2.0, "road_users": 4}


def small(ppo, out, **more):
    return ppo.Args(num_envs=2, rollout=4, epochs=1, minibatches=2, save_every=1, out=out, **more)


def test_a_collision_costs_a_learner_a_share_of_what_it_costs(ppo, options, tmp_path):
    trainer = ppo.Trainer(small(ppo, tmp_path / "ppo", collisions=0.25), **options)
    trainer.seen, _ = trainer.env.reset(seed=0)
    trainer.over = torch.zeros(2, dtype=torch.bool)
    goes_on = torch.zeros(2, dtype=torch.bool)
    hit = {"reward_terms": {"collision": torch.tensor([-20.0, 0.0])}}
    trainer.env.step = lambda action: (trainer.seen, torch.tensor([-19.5, 0.5]), goes_on, goes_on, hit)
    assert float(trainer.drive()[1]["drive/reward_per_step"]) == pytest.approx((-4.5 + 0.5) / 2)
    trainer.board.close()


@pytest.mark.slow
def test_it_trains_goes_on_from_its_checkpoint_and_is_an_agent(ppo, options, tmp_path, capsys):
    args = small(ppo, tmp_path / "ppo", total_steps=16)
    first = ppo.Trainer(args, **options).run()
    kept = {name: value.clone() for name, value in first.state_dict().items()}
    assert "step 16: " in capsys.readouterr().out and list(args.out.glob("events.out.tfevents.*"))
    done = ppo.Trainer(args, **options)
    assert done.steps == 16 and all(
        torch.equal(kept[name], value) for name, value in done.run().state_dict().items()
    )
    more = ppo.Trainer(dataclasses.replace(args, total_steps=24), **options)
    moments = [state["step"].item() for state in more.optimiser.state.values()]
    assert len(moments) == len(kept) and set(moments) == {4}, "the optimiser goes on, too"
    second = more.run().state_dict()
    assert more.steps == 24 and any(not torch.equal(kept[name], value) for name, value in second.items())
    assert all(torch.isfinite(value).all() for value in second.values())

    agent = make_agent(str(args.out / "policy.safetensors"))
    assert wanted_options(agent) == {"action": "manoeuvre", "observation": "policy"}
    figures = ppo.evaluate(args.out, 2, world=ReplayWorld(TINY), scenes=options["scenes"], seconds=2.0)
    assert 0 <= figures["score"] <= 1 and figures["seconds_simulated"] <= 4


@pytest.mark.slow
def test_it_trains_in_a_world_that_is_stepped_from_the_host(ppo, options, tmp_path):
    given = {**options, "world": ReplayWorld(TINY), "seconds": 1.0}  # every second step begins anew
    policy = ppo.Trainer(small(ppo, tmp_path, total_steps=8, action="controls"), **given).run()
    assert all(np.isfinite(value.numpy()).all() for value in policy.state_dict().values())
    agent = DrivingAgent(policy)
    assert wanted_options(agent)["action"] == "controls"
    env = gym.make_vec("OccSora/Drive-v0", 3, observation="policy", **{**given, "seconds": 2.0})
    seen, _ = env.reset(seed=0)
    alone = [agent.act({name: part[row : row + 1] for name, part in seen.items()})[0] for row in range(3)]
    assert np.array_equal(agent.act(seen), alone) and np.abs(alone).max() <= 1


def test_a_policy_for_longer_decisions_says_so():
    seen = {"birdseye": np.zeros((1, 13, 8, 8), np.uint8), "ego": np.zeros((1, 4), np.float32)}
    with pytest.raises(ConfigurationError, match="made for images of 9 channels, observed 13"):
        DrivingAgent(DrivingPolicy()).act(seen)
