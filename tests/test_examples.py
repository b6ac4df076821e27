"""The examples, run for a few steps; learners' loops on the environment."""

import importlib.util
import re
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

from occsora_sim.agents import FunctionAgent
from occsora_sim.agents.episode import run_episodes
from occsora_sim.envs.drive import DriveEnv
from occsora_sim.errors import ActionError
from occsora_sim.grid import OCC3D, TINY
from occsora_sim.models.occsora_world import OccSora
from occsora_sim.models.weights import save_world_model
from occsora_sim.presets import paper_tiny
from occsora_sim.scenes.start import make_start
from occsora_sim.worlds.replay import ReplayWorld

ROOT = Path(__file__).parent.parent
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


def load(name):
    """An example as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "examples" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def options(straight_road):
    """Keywords of an environment on a straight road with a slow car ahead; by grid."""
    scene = straight_road(cars=[(60.0, 0.0, 2.0)])

    def make(grid=TINY, seconds=3.0):
        starts = [make_start(scene, 0, step, grid, history=3) for step in (2, 4)]
        return {"world": ReplayWorld(grid), "scenes": starts, "seconds": seconds}

    return make


LINES = {"ppo": 250}
"""Of examples that are longer than 60: a whole algorithm in one file."""


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_examples_are_short_and_say_how_to_run_them(path):
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= LINES.get(path.stem, 60)
    assert f"python examples/{path.name}" in text.split('"""')[1]


def test_every_example_is_tested_here_or_in_test_ppo():
    tests = (Path(__file__), Path(__file__).with_name("test_ppo.py"))
    loaded = {
        name for path in tests for name in re.findall(r'load\("(\w+)"\)', path.read_text(encoding="utf-8"))
    }
    assert loaded == {path.stem for path in EXAMPLES}


@pytest.mark.slow
def test_the_example_that_trains_ppo(options, tmp_path):
    pytest.importorskip("stable_baselines3", reason="the extra `rl`")
    model = load("train_ppo").train(16, str(tmp_path / "ppo"), copies=2, rollout=8, **options(OCC3D))
    assert model.num_timesteps == 16 and (tmp_path / "ppo.zip").is_file()
    assert all(torch.isfinite(weight).all() for weight in model.policy.parameters())


@pytest.mark.slow
def test_the_example_that_trains_on_ray(options, tmp_path):
    """In an environment with RLlib: two iterations of two processes that drive."""
    pytest.importorskip("ray.rllib", reason="RLlib, which pins a release of Gymnasium", exc_type=ImportError)
    import ray

    ray.init(address="local", num_cpus=3, include_dashboard=False, log_to_driver=False)
    try:
        losses = load("rllib").train(2, tmp_path / "policy", runners=2, decisions=16, **options(OCC3D))
    finally:
        ray.shutdown()
    assert len(losses) == 2 and np.isfinite(losses).all() and (tmp_path / "policy").is_dir()


def test_the_example_that_evaluates_a_planner(options, capsys):
    means = load("evaluate_planner").compare(2, **options(OCC3D))
    assert set(means) == {"cruiser", "constant-velocity", "route-follower"}
    assert 0.5 < means["cruiser"] <= 1 and "cruiser" in capsys.readouterr().out


def test_the_example_that_draws_a_clip(tmp_path):
    torch.manual_seed(0)
    weights, film = tmp_path / "weights.safetensors", tmp_path / "clip.mp4"
    save_world_model(OccSora(paper_tiny()), weights, kind="world_model", trained_on="nothing", recipe={})
    rollout = load("draw_clip").draw(weights, film, steps=2, smooth=1)
    assert rollout.occupancy.shape == (8, 32, 32, 16) and film.stat().st_size > 1000
    ahead, left, yaw = rollout.ego_pose[-1]
    assert ahead == pytest.approx(20.0, abs=1.0) and left > 0.2 and yaw > 0.1, "6 m/s for 3.5 s, then a bend"


def test_the_example_of_a_plain_function(options):
    driven = load("plain_function").drive(2, **options(OCC3D, seconds=12.0))
    assert [episode.ended for episode in driven] == ["time", "time"], "it brakes for the slow car"
    assert all(episode.summary["score"] > 0.3 for episode in driven)


# --------------------------------------------------------------------------- a plain function
def test_a_function_sees_one_observation_without_a_batch_axis(options):
    shapes = []

    def straight(observation):
        shapes.append({name: value.shape for name, value in observation.items()})
        return 5.0, 0  # clipped to 1

    (episode, _) = run_episodes(
        DriveEnv(**options(seconds=1.0)), FunctionAgent(straight), 2, batch=2, record=1
    )
    assert shapes == [{"occupancy": (2, *TINY.shape), "ego": (4,), "route": (20, 2)}] * 2
    assert episode.recording.actions.tolist() == [[1.0, 0.0]]


@pytest.mark.parametrize("answer", [None, "left", [np.nan, 0.0], [[1], [2, 3]], 0.5, [0.1, 0.2, 0.3]])
def test_a_function_that_returns_no_action_is_named_in_one_line(options, answer):
    with pytest.raises(ActionError, match=r"^[^\n]+$"):
        run_episodes(DriveEnv(**options()), FunctionAgent(lambda observation: answer), 1)


# --------------------------------------------------------------------------- loops of learners
def test_a_loop_in_the_manner_of_cleanrl_takes_a_step(options):
    """One policy-gradient step on a flat vector environment, as CleanRL's single files write it."""
    from occsora_sim.envs.wrappers import flat

    envs = gym.make_vec("OccSora/Drive-v0", num_envs=2, observation=("ego", "route"), **options())
    envs = flat(envs)
    generator = torch.Generator().manual_seed(0)
    weights = torch.zeros(44, 2, requires_grad=True)
    optimiser = torch.optim.Adam([weights], lr=1e-3)
    observation, _ = envs.reset(seed=1)
    losses = []
    for _ in range(6):
        mean = torch.as_tensor(observation) @ weights
        action = (mean + 0.1 * torch.randn(mean.shape, generator=generator)).detach()
        observation, reward, terminated, truncated, _ = envs.step(action.clamp(-1, 1).numpy())
        assert reward.shape == terminated.shape == truncated.shape == (2,)
        chance = -((action - mean) ** 2).sum(dim=1) / 0.02
        losses.append(-(chance * torch.as_tensor(reward)).mean())
    torch.stack(losses).sum().backward()
    optimiser.step()
    assert torch.isfinite(weights).all() and weights.abs().max() > 0
    envs.close()


@pytest.mark.parametrize("algorithm", ["PPO", "SAC"])
def test_stable_baselines_learns_a_few_steps_from_the_environment_as_it_is(options, algorithm):
    library = pytest.importorskip("stable_baselines3", reason="the extra `rl`")
    env = DriveEnv(**options(), observation=("ego",))
    sizes = {"n_steps": 8, "batch_size": 8} if algorithm == "PPO" else {"learning_starts": 4, "batch_size": 4}
    model = getattr(library, algorithm)("MultiInputPolicy", env, seed=0, **sizes)
    model.learn(8)
    action, _ = model.predict(env.reset(seed=0)[0], deterministic=True)
    assert env.action_space.contains(action)


def test_torchrl_takes_a_training_step_on_the_environment(options):
    wrapper = pytest.importorskip("torchrl.envs", reason="TorchRL is not installed").GymWrapper
    from tensordict.nn import TensorDictModule
    from torchrl.envs.utils import check_env_specs

    env = wrapper(DriveEnv(**options(), observation=("ego", "route")))
    check_env_specs(env)
    layer = torch.nn.Linear(4, 2)
    policy = TensorDictModule(
        torch.nn.Sequential(layer, torch.nn.Tanh()), in_keys=["ego"], out_keys=["action"]
    )
    env.set_seed(0)
    data = env.rollout(6, policy, break_when_any_done=False)  # goes on with the next episode
    assert data["next", "reward"].shape == (6, 1) and data["next", "done"].shape == (6, 1)
    before = layer.weight.detach().clone()
    optimiser = torch.optim.Adam(policy.parameters(), lr=1e-2)
    (policy(data.select("ego"))["action"] * data["next", "reward"]).sum().backward()
    optimiser.step()
    assert torch.isfinite(layer.weight).all() and not torch.equal(layer.weight, before)


def test_torchrl_drives_the_batched_environment_and_resets_it_by_masks(options):
    torchrl = pytest.importorskip("torchrl.envs", reason="TorchRL is not installed")
    from tensordict.nn import TensorDictModule

    given = {**options(seconds=2.0), "observation": "policy", "output": "torch"}
    env: Any = gym.make_vec("OccSora/Drive-v0", num_envs=2, **given)
    env.autoreset_mode = (
        gym.vector.AutoresetMode.DISABLED
    )  # TorchRL begins episodes anew itself, by `reset_mask`
    straight_on = TensorDictModule(lambda ego: 0 * ego[..., :2], in_keys=["ego"], out_keys=["action"])
    data = torchrl.GymWrapper(env).rollout(5, straight_on, break_when_any_done=False)
    assert data["next", "truncated"].squeeze(-1).tolist() == [[False, True, False, True, False]] * 2
    assert data["next", "reward"].min() > 0.5, "no step is lost to a reset"


def test_rllib_trains_a_step_on_the_environment(options):
    pytest.importorskip("ray.rllib", reason="RLlib is not installed")
    from ray.rllib.algorithms.ppo import PPOConfig
    from ray.tune.registry import register_env

    from occsora_sim.envs.wrappers import flat  # RLlib has no encoder for a Dict

    register_env("drive", lambda given: flat(DriveEnv(**options(), observation=("ego", "route"))))
    config = PPOConfig().environment("drive").env_runners(num_env_runners=0)
    config = config.training(train_batch_size=16, minibatch_size=8, num_epochs=1)
    algorithm = config.build_algo()
    assert algorithm.train()["num_env_steps_sampled_lifetime"] >= 16
    algorithm.stop()
