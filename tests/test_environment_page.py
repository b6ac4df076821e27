"""docs/environment.md says what the code says: options, reward, observations."""

import dataclasses
import re
from pathlib import Path

import pytest

from occsora_sim.envs.birdseye import birdseye_channels
from occsora_sim.envs.config import OBSERVATIONS, DriveConfig
from occsora_sim.envs.reward import RewardConfig
from occsora_sim.envs.road_users import road_users_space

PAGE = (Path(__file__).parent.parent / "docs" / "environment.md").read_text(encoding="utf-8")


def test_every_option_stands_in_the_table():
    table = PAGE.split("## Options")[1]
    named = set(re.findall(r"`(\w+)`", "".join(re.findall(r"^\| (`[^|]*) \|", table, re.MULTILINE))))
    wanted = {option.name for option in dataclasses.fields(DriveConfig)}
    assert named == wanted | {"render_mode", "max_episode_steps"}


def test_the_reward_has_the_weights_that_it_has():
    section = PAGE.split("## Reward")[1].split("### ")[0]
    rows = re.findall(r"^\| `(\w+)` \| (-?[\d.]+) \|", section, re.MULTILINE)
    assert {name: float(weight) for name, weight in rows} == dataclasses.asdict(RewardConfig())


def test_the_reward_of_train_agent_is_the_one_that_is_told():
    REWARD = pytest.importorskip("occsora_sim.commands.train_agent", reason="the extra `rl`").REWARD
    text = " ".join(PAGE.split())
    for name, weight in REWARD.items():
        assert f"{name} {weight:g}" in text, name


def test_the_observations_are_all_there():
    assert set(re.findall(r"^\| `(\w+)`(?:, aligned)? \| \(", PAGE, re.MULTILINE)) == set(OBSERVATIONS)
    assert road_users_space(DriveConfig().road_users).shape == (32, 10) and birdseye_channels(2) == 9
    assert len(PAGE.splitlines()) <= 150
