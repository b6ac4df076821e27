"""docs/environment.md says what the code says: options, reward, observations."""

import dataclasses
import re
from pathlib import Path

import pytest

from occsora_sim.envs.birdseye import birdseye_channels
from occsora_sim.envs.config import OBSERVATIONS, DriveConfig
from occsora_sim.envs.reward import RewardConfig
from occsora_sim.envs.road_users import road_users_space
from occsora_sim.scenes.file import save_scene
from occsora_sim.scoring.driving import ScoreConfig

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


def test_train_agent_learns_from_the_reward_that_is_told(straight_road, tmp_path):
    commands = pytest.importorskip("occsora_sim.commands.train_agent", reason="the extra `rl`")
    from occsora_sim.agents.learner_env import REWARD_SCALE

    save_scene(straight_road(), tmp_path / "straight.safetensors")
    learner = commands.LearnerConfig(copies=1)
    options = commands.Options(world="replay", scenes=str(tmp_path), starts=1, learner=learner)
    with commands.open_env(options) as env:
        assert [each.config.reward for each in env.envs] == [RewardConfig()]
    text = " ".join(PAGE.split())
    assert f"`occsora-sim train agent` learns from this reward, times {REWARD_SCALE:g} " in text


def test_at_fault_is_who_is_faster_than_it_says():
    (speed,) = re.findall(r"At fault: the car moves, faster than ([\d.]+) m/s", " ".join(PAGE.split()))
    assert float(speed) == ScoreConfig().moving


def test_the_observations_are_all_there():
    assert set(re.findall(r"^\| `(\w+)`(?:, aligned)? \| \(", PAGE, re.MULTILINE)) == set(OBSERVATIONS)
    assert road_users_space(DriveConfig().road_users).shape == (32, 10) and birdseye_channels(2) == 9
    assert len(PAGE.splitlines()) <= 150
