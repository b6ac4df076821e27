"""Options of the environment as people write them."""

import gymnasium as gym
import numpy as np
import pytest
import torch

import occsora_sim  # noqa: F401  (registers the id)
from occsora_sim.agents.episode import run_episodes
from occsora_sim.agents.random import RandomAgent
from occsora_sim.envs.config import DriveConfig, make_config
from occsora_sim.envs.drive import DriveEnv
from occsora_sim.envs.vector import DriveVectorEnv
from occsora_sim.errors import ConfigurationError, OccSoraError
from occsora_sim.grid import TINY
from occsora_sim.scenes.file import save_scene
from occsora_sim.scenes.start import make_start
from occsora_sim.worlds.replay import ReplayWorld


@pytest.fixture
def road(straight_road):
    return straight_road(steps=61)


@pytest.fixture
def options(road):
    return {"world": ReplayWorld(TINY), "scenes": [make_start(road, 0, 4, TINY)]}


def test_scenes_are_a_path_or_a_list_of_paths(road, tmp_path):
    paths = [tmp_path / "a.safetensors", tmp_path / "b.safetensors"]
    for path in paths:
        save_scene(road, path)
    for given, count in (
        (paths[0], 1),
        (str(paths[0]), 1),
        (tmp_path, 2),
        (paths, 2),
        (tuple(map(str, paths)), 2),
    ):
        env = DriveEnv(world=ReplayWorld(TINY), scenes=given, starts=2)
        assert len({id(start.source[0]) for start in env.simulation.starts}) == count
    with pytest.raises(OccSoraError, match=r"nowhere[^\n]*no such file"):
        DriveEnv(world=ReplayWorld(TINY), scenes=[paths[0], tmp_path / "nowhere"])


def test_one_start_or_scene_need_not_be_a_list(road, options):
    assert DriveEnv(**(options | {"scenes": road}), starts=3).simulation.starts[2].source[0] is road
    assert len(DriveEnv(**(options | {"scenes": options["scenes"][0]})).simulation.starts) == 1


@pytest.mark.parametrize(
    ("name", "written", "meant"),
    [
        ("seconds", "12.5", 12.5), ("seconds", np.float32(3), 3.0), ("seconds", float("inf"), float("inf")),
        ("starts", "8", 8), ("starts", np.int64(8), 8), ("starts", 8.0, 8), ("steps", "4", 4), ("steps", None, None),
        ("frames_per_decision", np.array(1), 1), ("vehicles", "7", 7.0), ("seed", np.uint8(7), 7),
        ("device", torch.device("cpu"), "cpu"), ("observation", ["ego"], ("ego",)), ("imagination_steps", None, None),
    ],
)  # fmt: skip
def test_an_option_is_taken_however_it_is_written(name, written, meant):
    assert getattr(make_config({name: written}), name) == meant
    assert type(getattr(make_config({name: written}), name)) is type(meant)


@pytest.mark.parametrize(
    "wrong",
    [
        {"seconds": float("nan")}, {"seconds": "long"}, {"seconds": None}, {"starts": 1.5}, {"starts": "many"},
        {"starts": 0}, {"seed": -1}, {"seed": [1, 2]}, {"steps": 2.5}, {"reward": {"progress": float("nan")}},
        {"reward": {"collision": "hard"}}, {"reward": 3}, {"reward": None}, {"score": "strict"},
        {"vehicle": {"width": float("nan")}}, {"vehicle": "van"}, {"vehicles": "many"}, {"weights": 3}, {"scenes": 3},
        {"scenes": [None]}, {"scenes": ["a", None]}, {"scenes": {"a": 1}}, {"world": 3}, {"world": None},
        {"world": "replay", "device": "gpu"}, {"world": "replay", "device": "meta"},
        {"world": "replay", "device": None}, {"imagination": 3}, {"observation": None},
        {"observation": [["ego"]]}, {"action": None}, {"autoreset": 1},
    ],
    ids=str,
)  # fmt: skip
def test_an_option_that_means_nothing_is_refused_in_one_line(options, wrong):
    (name,) = wrong.keys() - {"world"} or {"world"}
    with pytest.raises(ConfigurationError, match=rf"^[^\n]*{name}[^\n]*$"):
        DriveEnv(**(options | wrong))
    with pytest.raises(ConfigurationError, match=r"^[^\n]+$"):
        gym.make_vec("OccSora/Drive-v0", num_envs=2, **(options | wrong))


def test_a_number_of_environments_and_of_episodes_may_be_numpys_and_must_be_one(options):
    assert DriveVectorEnv(num_envs=np.int64(2), **options).num_envs == 2  # type: ignore[arg-type]
    for wrong in (0, -1, 1.5, "two", True, None):
        with pytest.raises(ConfigurationError, match="num_envs"):
            DriveVectorEnv(num_envs=wrong, **options)  # type: ignore[arg-type]
        with pytest.raises(ConfigurationError, match="episodes"):
            run_episodes(DriveEnv(**options), RandomAgent(), wrong)  # type: ignore[arg-type]
    options["seconds"] = 1.0
    env = DriveEnv(**options)
    episodes = run_episodes(
        env, RandomAgent(), np.int64(2), batch=np.int64(2), record=np.int64(1), starts=np.zeros(2, int)
    )  # type: ignore[arg-type]
    assert [episode.recording is not None for episode in episodes] == [True, False]
    with pytest.raises(ConfigurationError, match="batch"):
        run_episodes(env, RandomAgent(), 2, batch=0)
    with pytest.raises(ConfigurationError, match="3 for 2 episodes"):
        run_episodes(env, RandomAgent(), 2, starts=[0, 0, 0])


def test_a_configuration_made_by_hand_is_checked_as_one_from_keywords():
    assert DriveConfig(reward={"progress": "2"}).reward.progress == 2.0  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="unknown reward option 'fame'"):
        DriveConfig(reward={"fame": 1.0})  # type: ignore[arg-type]
