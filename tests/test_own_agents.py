"""Planners of one's own in the commands: a class, a function, a model of Stable-Baselines3; and what is refused."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_rollout import small_rollout

from occsora_sim.agents import make_agent
from occsora_sim.agents.loader import agent_title
from occsora_sim.agents.protocol import ImaginingAgent, wanted_options
from occsora_sim.cli import main
from occsora_sim.errors import ActionError, ConfigurationError, OccSoraError
from occsora_sim.rendering.rollout import save_rollout
from occsora_sim.scenes.file import save_scene

PLANNERS = """
import dataclasses
import numpy as np

def coast(observation):
    assert observation["ego"].shape == (4,)
    return 0.0, 0.0

def slow(observation):
    return 2
slow.action, slow.observation = "manoeuvre", ("ego", "route")

@dataclasses.dataclass
class Standing:
    brake: float = -0.4
    def reset(self, n):
        self.n = n
    def act(self, observation):
        return np.full((self.n, 2), [self.brake, 0.0])

class Imagines(Standing):
    def plan(self, observation, imagine):
        return self.act(observation)

ready = Standing(-1.0)

class NeedsMore:
    def __init__(self, speed): ...
    def reset(self, n): ...
    def act(self, observation): ...

class Forgetful:
    def act(self, observation): ...

def breaks(observation):
    return observation["lidar"]

def words(observation):
    return "left"

number = 3
"""
OBSERVATION = {
    "occupancy": np.zeros((2, 2, 4, 4, 2), np.uint8),
    "ego": np.zeros((2, 4), np.float32),
    "route": np.zeros((2, 20, 2), np.float32),
}


@pytest.fixture
def planners(tmp_path: Path, monkeypatch) -> Path:
    """A file with planners, in the folder that the command runs in."""
    path = tmp_path / "own_planners.py"
    path.write_text(PLANNERS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "own_planners", raising=False)
    return path


@pytest.fixture
def scenes(straight_road, tmp_path: Path) -> list[str]:
    folder = tmp_path / "scenes"
    save_scene(straight_road(), folder / "straight.safetensors")
    return ["--scenes", str(folder), "--seconds", "2"]


def test_a_class_and_a_function_of_a_file_or_a_module_are_agents(planners):
    for source in (str(planners), "own_planners.py", "own_planners"):
        for name, first in (("coast", 0.0), ("Standing", -0.4), ("ready", -1.0)):
            agent = make_agent(f"{source}:{name}")
            agent.reset(2)
            assert agent.act(OBSERVATION)[:, 0].tolist() == pytest.approx([first, first])
    assert isinstance(make_agent(f"{planners}:Imagines"), ImaginingAgent)
    assert not isinstance(make_agent(f"{planners}:Standing"), ImaginingAgent)


def test_a_rollout_is_an_agent_that_repeats_its_actions_and_then_goes_straight_on(tmp_path):
    actions = np.array([[0.5, -0.1], [0.2, 0.3]], np.float32)
    drive = replace(small_rollout(frames=3), actions=actions)
    save_rollout(drive, tmp_path / "rollout.npz")
    agent: Any = make_agent(str(tmp_path / "rollout.npz"))
    for _ in range(2):
        agent.reset(2)
        seen = np.stack([agent.act({"ego": np.zeros((2, 4))}) for _ in range(3)])
        np.testing.assert_array_equal(seen, np.stack([[a, a] for a in (*actions, np.zeros(2))]))
    save_rollout(replace(drive, actions=np.zeros((2, 12), np.float32)), tmp_path / "other.npz")
    with pytest.raises(ConfigurationError, match=r"other\.npz: its actions .* \(2, 12\)"):
        make_agent(str(tmp_path / "other.npz"))


def test_an_agent_of_ones_own_says_which_options_it_is_made_for(planners):
    agent = make_agent(f"{planners}:slow")
    assert wanted_options(agent) == {"action": "manoeuvre", "observation": ("ego", "route")}
    assert agent.act(OBSERVATION).tolist() == [2, 2]
    assert wanted_options(make_agent(f"{planners}:Standing")) == {}


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("own_planners.py:Gone", r"there is no Gone in own_planners.py; there are coast, slow, Standing"),
        ("gone.py:Cruiser", r"there is no file gone.py"),
        ("gone_module:Cruiser", r"there is no module gone_module"),
        ("own_planners.py", r"say which class or function in it: own_planners.py:NAME"),
        ("own_planners.py:NeedsMore", r"cannot be made without arguments: TypeError: .*speed"),
        ("own_planners.py:Forgetful", r"has no method reset"),
        ("own_planners.py:number", r"is a int; give a class"),
        ("model.zip", r"holds pickles, which can run any code when they are read; add --trust"),
        ("broken.py:agent", r"cannot be read: SyntaxError: .*broken.py, line 1"),
        ("raising.py:agent", r"cannot be read: ZeroDivisionError: division by zero .*raising.py, line 2"),
        ("ending.py:agent", r"it ended the program"),
    ],
)
def test_what_is_no_agent_is_refused_in_one_line(name, says, planners):
    Path("broken.py").write_text("def agent(:\n")
    Path("raising.py").write_text("\n1 / 0\n")
    Path("ending.py").write_text("raise SystemExit(3)\n")
    with pytest.raises(ConfigurationError, match=rf"^agent [^\n]*{says}[^\n]*$"):
        make_agent(name)


def test_what_goes_wrong_in_a_planner_is_told_with_its_place(planners):
    agent = make_agent(f"{planners}:breaks")
    with pytest.raises(ActionError, match=r"failed: KeyError: 'lidar' \(.*own_planners.py, line \d+\)$"):
        agent.act(OBSERVATION)
    with pytest.raises(ActionError, match=r"returned 'left'"):
        make_agent(f"{planners}:words").act(OBSERVATION)
    wrong = make_agent(f"{planners}:Standing")
    wrong.reset(3)
    with pytest.raises(
        ActionError, match=r"of shape \(3, 2\); answer finite numbers, a row for each of the 2"
    ):
        wrong.act(OBSERVATION)


def test_every_command_that_names_an_agent_takes_ones_own(planners, scenes, tmp_path, capsys, monkeypatch):
    options = [*scenes, "--world", "replay", "--agent"]
    assert main(["drive", *options, "own_planners.py:coast", "--out", "d", "--skip-video"]) == 0
    assert main(["evaluate", "agent", *options, "own_planners:Standing", "--episodes", "1"]) == 0
    report = json.loads(Path("d/summary.json").read_text())
    assert report["agent"] == "own_planners.py:coast"
    capsys.readouterr()
    for command in (
        ["drive", "--skip-video", "--out", "d", "--agent", "own_planners.py:Gone"],
        ["evaluate", "agent", "--agent", "own_planners.py:Gone"],
        ["evaluate", "transfer", "--also", "own_planners.py:Gone", "--json", "t.json"],
        ["evaluate", "transfer", "--agents", "idm", "own_planners.py:Gone"],
        [
            "drive",
            "--skip-video",
            "--world",
            "replay",
            *scenes,
            "--out",
            "d",
            "--agent",
            "own_planners.py:breaks",
        ],
    ):
        assert main(command) == 2
        said = capsys.readouterr().err
        assert said.count("\n") == 1 and "own_planners.py" in said


def test_every_such_command_explains_it(capsys):
    for verb in (["drive"], ["evaluate", "agent"], ["evaluate", "transfer"]):
        assert main([*verb, "--help"]) == 0
        said = capsys.readouterr().out
        assert "FILE.py:NAME" in said and "--trust" in said, verb


def test_titles_are_short():
    assert [agent_title(name) for name in ("idm", "a/b/policy.safetensors", "x/own.py:Cruiser", "own:f")] == [
        "idm",
        "policy",
        "Cruiser",
        "f",
    ]


def test_a_model_of_stable_baselines_drives_when_it_is_trusted(straight_road, tmp_path):
    sb3 = pytest.importorskip("stable_baselines3", reason="needs Stable-Baselines3 (the extra `rl`)")
    import gymnasium as gym

    from occsora_sim.agents.episode import run_episodes
    from occsora_sim.envs.wrappers import learner
    from occsora_sim.scenes.start import make_start
    from occsora_sim.worlds.replay import ReplayWorld

    starts = [make_start(straight_road(), 0, 3)]
    seen = ("birdseye", "ego", "route")
    options: dict[str, Any] = {
        "world": ReplayWorld(),
        "scenes": starts,
        "seconds": 2.0,
        "action": "manoeuvre",
        "observation": seen,
    }
    env = gym.make("OccSora/Drive-v0", **options)
    small = {"net_arch": [8], "features_extractor_kwargs": {"cnn_output_dim": 8}}
    model = sb3.PPO(
        "MultiInputPolicy", learner(env, pool=4), n_steps=8, batch_size=8, policy_kwargs=small, seed=0
    )
    path = str(tmp_path / "ppo.zip")
    model.save(path)
    with pytest.raises(ConfigurationError, match="pickles"):
        make_agent(path)
    agent = make_agent(path, trust=True)
    assert wanted_options(agent) == {"action": "manoeuvre", "observation": seen} and agent.pool == 4
    wrapped = learner(env, pool=4)
    first, _ = wrapped.reset(seed=0)
    plain, _ = env.reset(seed=0)
    answer = agent.act({name: value[None] for name, value in plain.items()})
    assert answer.tolist() == [model.predict(first, deterministic=True)[0]]
    (episode,) = run_episodes(env, agent, 1)
    assert episode.summary["seconds"] > 0


def test_a_zip_that_is_no_model_is_refused_in_one_line(tmp_path):
    import zipfile

    (tmp_path / "text.zip").write_text("hello")
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("data", "{}")
    for name, says in (("gone", "no such file"), ("text", "no model"), ("other", "an algorithm")):
        with pytest.raises(OccSoraError, match=rf"^agent [^\n]*{says}[^\n]*$"):
            make_agent(str(tmp_path / f"{name}.zip"), trust=True)
