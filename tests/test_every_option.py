"""Every option of the environment changes what it should, through every way of running episodes."""

import dataclasses
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from untrained import untrained_world_model

import occsora_sim  # noqa: F401  (registers the id)
from occsora_sim.agents.episode import run_episodes
from occsora_sim.envs.config import DriveConfig
from occsora_sim.errors import ConfigurationError, OccSoraError
from occsora_sim.grid import TINY
from occsora_sim.models.weights import save_world_model
from occsora_sim.scenes.start import make_start
from occsora_sim.worlds.replay import ReplayWorld

DRIVE = "OccSora/Drive-v0"
WAYS = ("make", "make_vec", "run_episodes", "imagine")
DRIVEN = ("make", "make_vec", "run_episodes")
"""All ways but imagination, which has no clock, shows no observation, and begins where it is."""

TABLE: dict[str, tuple[Any, tuple[str, ...]]] = {
    "world": (ReplayWorld(TINY), DRIVEN),  # what is imagined begins from the same frames, in the same weights
    "weights": ("OTHER", WAYS),
    "steps": (2, DRIVEN),  # imagination has its own
    "tiles": (1, DRIVEN),  # imagination draws one a step
    "ahead": (300.0, WAYS),  # refused
    "scenes": ("ELSEWHERE", WAYS),
    "place": ("motorway", WAYS),
    "vehicles": (55.0, WAYS),
    "starts": (1, WAYS),
    "action": ("trajectory", WAYS),
    "ego": ("recorder", WAYS),  # refused where nobody recorded
    "least_future": (500.0, WAYS),  # refused where no scene lasts so long
    "observation": (("ego",), DRIVEN),
    "road_users": (0, WAYS),  # refused
    "frames_per_decision": (1, WAYS),
    "seconds": (1.0, WAYS),  # what follows a start is as long as the episode, so others are to be had
    "reward": ({"progress": 7.0}, WAYS),
    "score": ({"reference_speed": 33.0}, WAYS),
    "vehicle": ({"wheelbase": 1.2}, WAYS),
    "birdseye": ("aligned", ()),  # the image is not observed; tests/test_policy_observation.py
    "output": ("torch", WAYS),  # refused where there is no batch
    "pool": (1, ()),  # of output="torch" alone; tests/test_output_torch.py
    "autoreset": ("same_step", ("make_vec",)),
    "imagination": ("oracle", ("imagine",)),
    "imagination_steps": (None, ("imagine",)),  # None: all tiles that are wanted, not one a step
    "device": ("meta", WAYS),  # refused where there is a world to make
    "seed": (5, WAYS),
    "max_episode_steps": (1, DRIVEN),  # no option of DriveConfig: Gymnasium's own
}
"""Another value of each option, and the ways in which it changes what comes out."""


class Still:
    """An agent of two or six numbers that shows afterwards what it saw."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.seen: list[dict[str, np.ndarray]] = []

    def reset(self, n: int) -> None:
        self.seen = []

    def act(self, observation: dict[str, np.ndarray]) -> np.ndarray:
        self.seen.append({name: value.copy() for name, value in observation.items()})
        return np.full((len(next(iter(observation.values()))), self.size), 0.2, np.float32)


@pytest.fixture(scope="module")
def base(tmp_path_factory, straight_road, built_street):
    """Options of a small generated world, and what the words of the table mean."""
    folder = tmp_path_factory.mktemp("weights")
    for name, model in {
        "one": untrained_world_model(seed=2),
        "other": untrained_world_model(seed=1),
    }.items():  # seed 2: who moves
        torch.nn.init.constant_(model.entries.rate.bias, -4.0)  # type: ignore[arg-type]  # a fresh one expects nobody
        save_world_model(model, folder / f"{name}.safetensors", kind="world_model", trained_on="", recipe={})
    scene, elsewhere = built_street(steps=61), straight_road(ego_speed=5.0, steps=61)
    options = {
        "weights": folder / "one.safetensors", "scenes": [scene], "starts": 3, "steps": 1, "seconds": 2.0, "seed": 4,
    }  # fmt: skip
    return options, {"OTHER": folder / "other.safetensors", "ELSEWHERE": [elsewhere]}


def outcome(way: str, options: dict[str, Any]) -> Any:
    """All that comes out of two steps, or of what is imagined about two."""
    if way == "make_vec":
        env: Any = gym.make_vec(DRIVE, num_envs=2, **options)
        actions = np.full(env.action_space.shape, 0.2, np.float32)
        return [env.reset(), env.step(actions), env.step(actions)]
    env = gym.make(DRIVE, disable_env_checker=True, **options)
    action = np.full(env.action_space.shape, 0.2, np.float32)
    if way == "run_episodes":
        agent = Still(len(action))
        return [run_episodes(env, agent, 2, batch=2, record=1), agent.seen]
    out: list[Any] = [env.reset()]
    if way == "imagine":
        return env.unwrapped.imagine(np.stack([[action, action]]), frames=True)
    while len(out) < 3 and not (len(out) > 1 and (out[-1][2] or out[-1][3])):
        out.append(env.step(action))
    return out


def fingerprint(value: Any) -> Any:
    """`value` as something that can be compared."""
    if isinstance(value, torch.Tensor):
        return ("tensor", fingerprint(value.numpy()))
    if isinstance(value, np.ndarray) and value.dtype != object:
        return (value.shape, value.tobytes())
    if isinstance(value, dict):
        return {name: fingerprint(part) for name, part in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [fingerprint(part) for part in value]
    if dataclasses.is_dataclass(value):
        return {entry.name: fingerprint(getattr(value, entry.name)) for entry in dataclasses.fields(value)}
    return value


def result(way: str, options: dict[str, Any]) -> Any:
    try:
        return fingerprint(outcome(way, options))
    except OccSoraError as error:
        return str(error)


@pytest.fixture(scope="module")
def before(base):
    """What comes out with the options as they are."""
    return {way: result(way, base[0]) for way in WAYS}


def test_the_table_holds_every_option_and_what_comes_out_is_the_same_twice(base, before):
    assert set(TABLE) == {entry.name for entry in dataclasses.fields(DriveConfig)} | {"max_episode_steps"}
    assert {way: result(way, base[0]) for way in WAYS} == before
    assert not any(isinstance(found, str) for found in before.values())


@pytest.mark.parametrize("option", TABLE)
def test_an_option_changes_what_it_should_through_every_way(base, before, option):
    options, words = base
    value, ways = TABLE[option]
    value = words.get(value, value) if isinstance(value, str) else value
    changed = {way: result(way, {**options, option: value}) != before[way] for way in WAYS}
    assert changed == {way: way in ways for way in WAYS}


def test_a_prompt_that_the_world_cannot_take_is_refused_when_the_environment_is_made(straight_road):
    deaf = ReplayWorld(TINY)
    starts = [make_start(straight_road(), 0, 6, TINY)]
    with pytest.raises(ConfigurationError, match="takes no scene prompt"):
        gym.make(DRIVE, world=deaf, scenes=starts, vehicles=3.0)
    with pytest.raises(ConfigurationError, match="takes no scene prompt"):
        gym.make_vec(DRIVE, num_envs=2, world=deaf, scenes=starts, vehicles=3.0)
