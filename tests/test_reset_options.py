"""What `reset` is told: options, masks and seeds; and the infos as Gymnasium's own wrappers take them."""

import sys
from typing import Any
from unittest.mock import MagicMock

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.wrappers import vector as theirs

import occsora_sim  # noqa: F401  (registers the id)
from occsora_sim.agents.episode import run_episodes
from occsora_sim.agents.random import RandomAgent
from occsora_sim.envs.drive import DriveEnv
from occsora_sim.envs.vector import DriveVectorEnv
from occsora_sim.errors import ConfigurationError, NotResetError
from occsora_sim.grid import TINY
from occsora_sim.scenes.start import make_start
from occsora_sim.worlds.replay import ReplayWorld

DRIVE = "OccSora/Drive-v0"
AHEAD = np.array([[0.4, 0.0], [0.1, 0.0], [-0.2, 0.0]], dtype=np.float32)


@pytest.fixture
def options(straight_road):
    """Keywords of a small environment: three starts on a road with a slow car ahead."""
    scene = straight_road(cars=[(60.0, 0.0, 1.0)])
    starts = [make_start(scene, 0, step, TINY, history=3) for step in (2, 4, 6)]
    return {"world": ReplayWorld(TINY), "scenes": starts, "seconds": 3.0, "observation": ("ego", "route")}


def same(a, b):
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


# --------------------------------------------------------------------------- options
@pytest.mark.parametrize("wrong", [{"strat": 1}, {"start": 1, "Place": "grid"}, {"seed": 3}, {1: 2}])
def test_an_option_of_reset_that_does_not_exist_is_refused_and_the_known_ones_are_named(options, wrong):
    for env in (DriveEnv(**options), DriveVectorEnv(num_envs=2, **options)):
        with pytest.raises(
            ConfigurationError, match=r"^reset: unknown option [^\n]*start, place, vehicles[^\n]*$"
        ):
            env.reset(options=wrong)
    with pytest.raises(ConfigurationError, match="unknown option 'reset_mask'"):
        DriveEnv(**options).reset(options={"reset_mask": np.array([True])})


@pytest.mark.parametrize("chosen", [1, "1", 1.0, np.int64(1), np.array(1), torch.tensor(1)])
def test_a_start_is_named_however_its_number_is_written(options, chosen):
    env, envs = DriveEnv(**options), DriveVectorEnv(num_envs=2, **options)
    assert env.reset(options={"start": chosen})[1]["start"] == 1
    assert envs.reset(options={"start": chosen})[1]["start"].tolist() == [1, 1]
    assert envs.reset(options={"start": [2, chosen]})[1]["start"].tolist() == [2, 1]
    assert envs.reset(options={"start": np.array([0, 2])})[1]["start"].tolist() == [0, 2]


@pytest.mark.parametrize("chosen", [3, -1, 0.5, "nowhere", True, [0, 1, 2], [[0, 1]], [0, None]])
def test_a_start_that_cannot_be_is_refused_in_one_line(options, chosen):
    with pytest.raises(ConfigurationError, match=r"^[^\n]*start=[^\n]*$"):
        DriveVectorEnv(num_envs=2, **options).reset(options={"start": chosen})


# --------------------------------------------------------------------------- masks
def test_a_reset_mask_begins_the_rows_anew_that_it_names_as_gymnasium_does(options):
    ours = DriveVectorEnv(num_envs=3, **options)
    theirs: Any = gym.vector.SyncVectorEnv([lambda: DriveEnv(**options)] * 3)
    assert same(ours.reset(seed=5)[0], theirs.reset(seed=5)[0])
    for steps, mask, seed in (
        (1, [True, False, False], 7),
        (3, [False, True, True], None),
        (1, [False, True, False], [1, 2, 3]),
    ):
        for _ in range(steps):  # three steps end the episodes whose row was not begun anew
            one, two = ours.step(AHEAD), theirs.step(AHEAD)
            assert same(one[0], two[0])
            assert all(a.tolist() == b.tolist() for a, b in zip(one[1:4], two[1:4], strict=True))  # type: ignore[union-attr]
        chosen = {"reset_mask": np.array(mask)}
        (mine, infos), (his, others) = (env.reset(seed=seed, options=dict(chosen)) for env in (ours, theirs))
        assert same(mine, his)
        assert infos["_start"].tolist() == others["_start"].tolist() == mask
        assert np.array_equal(infos["progress"], others["progress"])
    assert same(ours.step(AHEAD)[0], theirs.step(AHEAD)[0])


def test_a_masked_reset_leaves_prompts_and_infos_of_the_others_alone(options):
    envs = DriveVectorEnv(num_envs=2, **options)
    envs.reset(seed=0, options={"start": [0, 1]})
    envs.step(AHEAD[:2])
    _, infos = envs.reset(options={"reset_mask": np.array([False, True]), "start": [0, 2]})
    assert infos["start"].tolist() == [0, 2] and infos["_start"].tolist() == [False, True]
    infos = envs.step(AHEAD[:2])[4]
    assert infos["episode_score"]["seconds"].tolist() == [2.0, 1.0]


@pytest.mark.parametrize("mask", [[True], np.array([1, 0]), np.zeros(2, bool), "all", np.ones((2, 1), bool)])
def test_a_mask_that_names_no_rows_is_refused_in_one_line(options, mask):
    envs = DriveVectorEnv(num_envs=2, **options)
    envs.reset(seed=0)
    with pytest.raises(ConfigurationError, match=r"reset_mask=[^\n]*2 truth values"):
        envs.reset(options={"reset_mask": mask})


def test_a_mask_needs_episodes_that_have_begun(options):
    envs = DriveVectorEnv(num_envs=2, **options)
    with pytest.raises(NotResetError, match="without a reset_mask"):
        envs.reset(options={"reset_mask": np.array([True, False])})
    assert envs.reset(options={"reset_mask": np.array([True, True])})[1]["_start"].all()


# --------------------------------------------------------------------------- seeds
@pytest.mark.parametrize("seed", [6, "6", np.int64(6), np.array(6), 6.0])
def test_a_seed_is_the_same_however_it_is_written(options, seed):
    env, envs = DriveEnv(**options), DriveVectorEnv(num_envs=2, **options)
    assert same(env.reset(seed=seed)[0], env.reset(seed=6)[0])
    assert same(envs.reset(seed=seed)[0], envs.reset(seed=6)[0])
    assert same(envs.reset(seed=np.array([6, 7]))[0], envs.reset(seed=[seed, 7])[0])
    assert DriveEnv(**options, seed=seed).config.seed == 6
    (episode,) = run_episodes(env, RandomAgent(), 1, seed=seed)
    assert episode.seed == 6


@pytest.mark.parametrize("seed", [-1, 1.5, "six", np.nan, True, [1, 2, 3], [1, -2]])
def test_a_seed_that_cannot_be_is_refused_in_one_line(options, seed):
    env, envs = DriveEnv(**options), DriveVectorEnv(num_envs=2, **options)
    for call in (
        lambda: env.reset(seed=seed),
        lambda: envs.reset(seed=seed),
        lambda: run_episodes(env, RandomAgent(), 1, seed=seed),
        lambda: DriveEnv(**options, seed=seed),
    ):
        with pytest.raises(ConfigurationError, match=r"^seed[^\n]+$"):
            call()


# --------------------------------------------------------------------------- Gymnasium's wrappers
def numbers(infos):
    """Whether infos hold nothing but numbers, arrays of numbers, and dictionaries of these."""
    if isinstance(infos, dict):
        return all(numbers(value) for value in infos.values())
    return np.asarray(infos).dtype.kind in "biuf"


def test_infos_hold_numbers_alone(options):
    for env in (DriveEnv(**options), DriveVectorEnv(num_envs=3, **options)):
        action = AHEAD[0] if isinstance(env, DriveEnv) else AHEAD
        assert numbers(env.reset(seed=0)[1]) and all(numbers(env.step(action)[4]) for _ in range(3))


WRAPPERS: dict[str, Any] = {
    "RecordEpisodeStatistics": theirs.RecordEpisodeStatistics,
    "DictInfoToList": theirs.DictInfoToList,
    "statistics as a list": lambda env: theirs.DictInfoToList(theirs.RecordEpisodeStatistics(env)),
    "NumpyToTorch": lambda env: theirs.NumpyToTorch(env),
    "NormalizeReward": theirs.NormalizeReward,
    "NormalizeObservation": lambda env: theirs.NormalizeObservation(theirs.FlattenObservation(env)),
    "FilterObservation": lambda env: theirs.FilterObservation(env, ["ego"]),
    "FlattenObservation": theirs.FlattenObservation,
    "DtypeObservation": lambda env: theirs.DtypeObservation(theirs.FlattenObservation(env), np.float64),
    "RescaleObservation": lambda env: theirs.RescaleObservation(theirs.FlattenObservation(env), 0.0, 1.0),
    "ReshapeObservation": lambda env: theirs.ReshapeObservation(theirs.FlattenObservation(env), (4, 11)),
    "TransformObservation": lambda env: theirs.TransformObservation(
        theirs.FlattenObservation(env), lambda seen: seen * 2
    ),
    "VectorizeTransformObservation": lambda env: theirs.VectorizeTransformObservation(
        env, gym.wrappers.FlattenObservation
    ),
    "ClipAction": theirs.ClipAction,
    "RescaleAction": lambda env: theirs.RescaleAction(env, -2.0, 2.0),
    "TransformAction": lambda env: theirs.TransformAction(env, lambda action: action * 0.5),
    "ClipReward": lambda env: theirs.ClipReward(env, -1.0, 1.0),
    "TransformReward": lambda env: theirs.TransformReward(env, lambda reward: reward * 2),
}


@pytest.mark.parametrize("autoreset", ["next_step", "same_step"])
@pytest.mark.parametrize("name", WRAPPERS)
def test_the_vector_environment_runs_in_gymnasiums_own_wrappers(options, name, autoreset):
    if name == "NumpyToTorch":
        pytest.importorskip("array_api_compat", reason="Gymnasium's extra `torch`")
        if autoreset == "same_step":
            pytest.skip(
                "Gymnasium's same-step autoreset hands over final_obs as objects, which are no tensors"
            )
    envs = DriveVectorEnv(num_envs=3, **(options | {"seconds": 2.0}), autoreset=autoreset)
    try:
        env = WRAPPERS[name](envs)
    except ValueError as error:
        assert "autoreset" in str(error) and autoreset == "same_step", error
        pytest.skip("Gymnasium has this wrapper for next-step autoreset alone")
    found = env.reset(seed=0)
    action = torch.from_numpy(AHEAD) if name == "NumpyToTorch" else AHEAD
    for _ in range(5):
        found = env.step(action)
        assert len(found[1]) == 3
    if name == "NumpyToTorch":
        assert isinstance(found[0]["ego"], torch.Tensor) and isinstance(found[4]["start"], torch.Tensor)
        assert env.reset(options={"start": torch.tensor([0, 1, 2])})[1]["start"].tolist() == [0, 1, 2]
    if "list" in name or name == "DictInfoToList":
        assert len(found[4]) == 3 and "start" in found[4][0]


def test_statistics_of_a_row_that_is_begun_anew_by_a_mask_begin_anew(options):
    env = theirs.RecordEpisodeStatistics(DriveVectorEnv(num_envs=2, **options))
    env.reset(seed=0)
    env.step(AHEAD[:2])
    env.reset(options={"reset_mask": np.array([True, False])})
    lengths = [env.step(AHEAD[:2])[4].get("episode", {"l": np.zeros(2)})["l"].tolist() for _ in range(3)]
    assert lengths == [[0, 0], [0, 3], [3, 0]]


def test_the_single_environment_becomes_tensors_too(options):
    pytest.importorskip("array_api_compat", reason="Gymnasium's extra `torch`")
    env = gym.wrappers.NumpyToTorch(DriveEnv(**options))
    assert isinstance(env.reset(seed=0)[1]["start"], torch.Tensor)
    assert isinstance(env.step(torch.zeros(2))[4]["terms"]["nc"], torch.Tensor)


# --------------------------------------------------------------------------- limits of steps
def test_an_episode_that_gymnasium_cuts_off_has_its_score(options):
    for env in (
        gym.make(DRIVE, max_episode_steps=2, **options),
        gym.wrappers.TimeLimit(DriveEnv(**options), 2),
        DriveEnv(**options, max_episode_steps="2"),
    ):
        env.reset(seed=0)
        assert not env.step(AHEAD[0])[3]
        _, _, _, truncated, info = env.step(AHEAD[0])
        assert truncated and info["episode_score"]["seconds"] == 2.0
        (episode,) = run_episodes(env, RandomAgent(), 1)
        assert episode.summary["seconds"] <= 2.0
    for mode in ("vector_entry_point", "sync"):
        envs = gym.make_vec(DRIVE, num_envs=2, vectorization_mode=mode, max_episode_steps=2, **options)
        envs.reset(seed=0)
        envs.step(AHEAD[:2])
        _, _, _, truncated, infos = envs.step(AHEAD[:2])
        assert truncated.all() and infos["episode_score"]["seconds"].tolist() == [2.0, 2.0]
    assert (
        run_episodes(gym.make_vec(DRIVE, num_envs=2, max_episode_steps=1, **options), RandomAgent(), 1)[
            0
        ].summary["seconds"]
        == 1.0
    )


@pytest.mark.parametrize("limit", [0, -3, 1.5, "soon", True])
def test_a_limit_of_steps_that_cannot_be_is_refused(options, limit):
    for make in (DriveEnv, lambda **given: DriveVectorEnv(num_envs=2, **given)):
        with pytest.raises(ConfigurationError, match=r"^max_episode_steps=[^\n]+$"):
            make(**options, max_episode_steps=limit)
    assert DriveEnv(**options, max_episode_steps=-1).simulation.max_steps is None, "Gymnasium's word for none"


# --------------------------------------------------------------------------- films
@pytest.mark.parametrize(("frames", "rate"), [(1, 2), (2, 1), (4, 0.5)])
def test_gymnasiums_films_show_an_episode_at_its_own_speed(options, tmp_path, monkeypatch, frames, rate):
    options = options | {"world": ReplayWorld(TINY, frames_per_chunk=4), "frames_per_decision": frames}
    env = gym.make(DRIVE, render_mode="rgb_array", **options)
    assert env.metadata["render_fps"] == rate == 1 / (0.5 * frames)
    envs = gym.make_vec(DRIVE, num_envs=2, render_mode="rgb_array", **options)
    assert envs.metadata["render_fps"] == rate
    for name in ("moviepy", "gymnasium.utils.save_video"):  # asked for, and used only to write the file
        monkeypatch.setitem(sys.modules, name, MagicMock())
    assert gym.wrappers.RecordVideo(env, str(tmp_path)).frames_per_sec == rate
