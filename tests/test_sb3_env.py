"""DriveVecEnv: the conventions of Stable-Baselines3, one call of the world a step, and that PPO learns in it."""

import numpy as np
import pytest
import torch

from occsora_sim.errors import ConfigurationError
from occsora_sim.grid import TINY
from occsora_sim.scenes.start import make_start
from occsora_sim.worlds.diffusion import DiffusionWorld
from occsora_sim.worlds.replay import ReplayWorld

sb3 = pytest.importorskip("stable_baselines3", reason="the extra `rl`")

from occsora_sim.agents.sb3 import DriveVecEnv  # noqa: E402  (needs Stable-Baselines3)
from occsora_sim.agents.sb3_policy import Sb3Policy  # noqa: E402

AHEAD = np.array([[0.2, 0.0], [0.0, 0.02], [-0.1, 0.0]])


class Counting(ReplayWorld):
    """Counts the calls of `step`."""

    calls = 0

    def step(self, *given, **more):
        self.calls += 1
        return super().step(*given, **more)


@pytest.fixture(params=["recorded", "generated"])
def options(request, straight_road, untrained_model):
    """Keywords of a small environment in either kind of world: one that is stepped from the host, one that is not."""
    scene = straight_road(cars=[(30.0, 3.0, 5.0)], steps=61)
    world = Counting(TINY) if request.param == "recorded" else DiffusionWorld(untrained_model, steps=1)
    starts = [make_start(scene, 0, step, world.grid, history=4) for step in (3, 4, 5)]
    return {"world": world, "scenes": starts, "seconds": 2.0, "road_users": 4}


def test_it_keeps_the_conventions_of_stable_baselines(options):
    env = DriveVecEnv(3, **options)
    env.seed(1)
    seen = env.reset()
    rewards = np.zeros(3)
    for step in range(2):
        assert env.observation_space.contains({name: value[0] for name, value in seen.items()})
        assert {name: value.dtype.name for name, value in seen.items()} == {
            "birdseye": "uint8", "road_users": "float32", "ego": "float32", "route": "float32",
        }  # fmt: skip
        before = seen
        seen, reward, done, infos = env.step(AHEAD)
        rewards += reward
        assert reward.dtype == np.float32 and reward.shape == done.shape == (3,) and len(infos) == 3
        assert done.tolist() == [step == 1] * 3 and all(bool(info) == (step == 1) for info in infos)
        assert not any(np.shares_memory(before[name], value) for name, value in seen.items())
    for row, info in enumerate(infos):
        assert info["TimeLimit.truncated"] is True and info["start"] in (0, 1, 2)
        assert info["episode"]["l"] == 2 and info["episode"]["r"] == pytest.approx(rewards[row], abs=1e-5)
        assert info["episode_score"]["seconds"] == 2 and 0 <= info["episode_score"]["score"] <= 1
        last = info["terminal_observation"]
        assert env.observation_space.contains(last)
        assert not np.array_equal(last["ego"], seen["ego"][row]), "which is of the next episode"
    _, _, done, infos = env.step(AHEAD)
    assert not done.any() and infos == [{}] * 3
    env.close()


def test_a_step_is_one_call_of_the_world(options):
    if not isinstance(options["world"], Counting):
        pytest.skip("counted in a recording")
    env = DriveVecEnv(3, **options)
    env.reset()
    for number in range(1, 5):  # an end is among them
        env.step(AHEAD)
        assert options["world"].calls == number


def test_an_episode_that_ends_by_itself_is_not_cut_off(straight_road):
    start = make_start(straight_road(), 0, 3, TINY)
    env = DriveVecEnv(1, world=ReplayWorld(TINY), scenes=[start], seconds=20.0, observation=("ego", "route"))
    env.reset()
    for _ in range(20):
        _, _, done, (info,) = env.step(np.array([[0.0, 0.6]]))
        if done[0]:
            break
    assert info["TimeLimit.truncated"] is False and info["episode_score"]["dac"] == 0


def test_seeds_options_and_attributes(options):
    one, two = DriveVecEnv(3, **options), DriveVecEnv(3, **options)
    for env in (one, two):
        assert list(env.seed(7)) == [7, 8, 9]
    first, second = one.reset(), two.reset()
    assert all(np.array_equal(first[name], value) for name, value in second.items())
    one.set_options({"start": 2})
    one.reset()
    assert one.env.state.start.tolist() == [2, 2, 2]
    one.set_options([{"start": k} for k in (2, 0, 1)])
    one.reset()
    assert one.env.state.start.tolist() == [2, 0, 1]
    one.set_options([{"start": 0}, {}, {"place": "arterial"}])
    with pytest.raises(ConfigurationError, match=r"^set_options[^\n]+$"):
        one.reset()
    assert one.get_attr("num_envs", [0, 2]) == [3, 3] and one.get_attr("render_mode") == [None] * 3
    assert one.has_attr("config") and not one.has_attr("wheels")
    one.set_attr("label", "a")
    assert one.get_attr("label", 1) == ["a"]
    with pytest.raises(ConfigurationError, match=r"^set_attr label[^\n]+$"):
        one.set_attr("label", "b", [0])
    assert one.env_method("render", indices=[1]) == [None]
    with pytest.raises(ConfigurationError, match=r"^DriveVecEnv: output[^\n]+$"):
        DriveVecEnv(1, output="numpy", **options)


def test_pictures_are_shown_of_all_rows(options):
    env = DriveVecEnv(2, render_mode="rgb_array", **options)
    env.reset()
    assert [image.shape[-1] for image in env.get_images()] == [3, 3]
    assert [row.shape[-1] for row in env.env_method("render")] == [3, 3] and env.render().ndim == 3


def test_ppo_learns_and_is_evaluated_in_it(options):
    from stable_baselines3.common.evaluation import evaluate_policy

    env = DriveVecEnv(2, action="manoeuvre", **options)
    small = {"net_arch": [8], "features_extractor_kwargs": {"cnn_output_dim": 8}}
    model = sb3.PPO("MultiInputPolicy", env, n_steps=4, batch_size=4, policy_kwargs=small, seed=0)
    before = [weight.detach().clone() for weight in model.policy.parameters()]
    model.learn(16)
    assert len(model.ep_info_buffer) == 8 and all(np.isfinite(info["r"]) for info in model.ep_info_buffer)
    after = list(model.policy.parameters())
    assert all(torch.isfinite(weight).all() for weight in after)
    assert any(not torch.equal(old, new) for old, new in zip(before, after, strict=True))
    mean, _ = evaluate_policy(model, env, n_eval_episodes=2)
    assert np.isfinite(mean)


def test_a_model_that_saw_road_users_alone_drives_as_an_agent(straight_road):
    from occsora_sim.agents.protocol import wanted_options
    from occsora_sim.envs.drive import DriveEnv

    given = {"world": ReplayWorld(TINY), "scenes": [make_start(straight_road(), 0, 3, TINY)], "seconds": 1.0}
    env = DriveVecEnv(1, observation=("road_users", "ego"), **given)
    model = sb3.PPO("MultiInputPolicy", env, n_steps=4, batch_size=4, policy_kwargs={"net_arch": [8]}, seed=0)
    agent = Sb3Policy(model, "it")
    assert set(wanted_options(agent)["observation"]) == {"road_users", "ego"}  # type: ignore[call-overload]
    plain, _ = DriveEnv(**given, **wanted_options(agent)).reset(seed=0)
    assert agent.act({name: value[None] for name, value in plain.items()}).shape == (1, 2)


def test_a_model_that_saw_the_observation_policy_drives_as_an_agent(straight_road):
    from occsora_sim.agents.episode import run_episodes
    from occsora_sim.agents.protocol import wanted_options
    from occsora_sim.envs.drive import DriveEnv

    given = {"world": ReplayWorld(), "scenes": [make_start(straight_road(), 0, 3)], "seconds": 1.0}
    small = {"net_arch": [8], "features_extractor_kwargs": {"cnn_output_dim": 8}}
    for pool in (1, 2):
        env = DriveVecEnv(1, pool=pool, **given)
        model = sb3.PPO("MultiInputPolicy", env, n_steps=4, batch_size=4, policy_kwargs=small, seed=0)
        agent = Sb3Policy(model, "it")
        assert wanted_options(agent) == {"action": "controls", "observation": "policy"} and agent.pool == pool
        drive = DriveEnv(**given, **wanted_options(agent))
        plain, _ = drive.reset(seed=0)
        env.seed(0)
        answer = agent.act({name: value[None] for name, value in plain.items()})
        assert np.array_equal(answer, model.predict(env.reset(), deterministic=True)[0])
        assert run_episodes(drive, agent, 1)[0].summary["seconds"] == 1
