"""Recorded drives as demonstrations: what the learner would have seen, what was answered, and files that are none."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from small_rollout import GRID, small_rollout

pytest.importorskip("stable_baselines3", reason="the extra `rl`")

from occsora_sim.agents.episode import EpisodeGroup
from occsora_sim.agents.features import features
from occsora_sim.agents.imitation import Demonstrations, fit_policy
from occsora_sim.agents.learner import Learner, LearnerConfig
from occsora_sim.agents.learner_env import LearnerEnv
from occsora_sim.agents.recorded_drives import RecordedDrives, read_drives, situations
from occsora_sim.checkpoint import read_tensors
from occsora_sim.cli import main
from occsora_sim.commands.recording import rollout_of
from occsora_sim.envs.drive import DriveEnv
from occsora_sim.envs.imagination import Imagination
from occsora_sim.envs.vector import DriveVectorEnv
from occsora_sim.errors import SceneError
from occsora_sim.grid import OCC3D, TINY
from occsora_sim.recipe import mark_of
from occsora_sim.rendering.rollout import load_rollout, save_rollout
from occsora_sim.scenes.file import save_scene
from occsora_sim.scenes.start import make_start
from occsora_sim.worlds.replay import ReplayWorld

CONTROLS = (
    (1.0, 0.1),
    (0.3, -0.2),
    (-0.2, 0.05),
    (-1.0, 0.0),
    (-1.0, 0.0),
    (-1.0, 0.0),
    (-1.0, 0.0),
    (0.4, 0.3),
)
"""Speeds up, bends both ways, brakes to a stand, stands, and sets off."""


class Scripted:
    """Acts by a list, and keeps what it saw."""

    def __init__(self):
        self.seen = []

    def reset(self, n):
        self.seen = []

    def act(self, observation):
        self.seen.append(observation)
        return np.array([CONTROLS[len(self.seen) - 1]], np.float32)


@pytest.fixture(scope="module")
def road(straight_road):
    scene = straight_road(cars=[(60.0, 0.0, 2.0)])
    return {"world": ReplayWorld(TINY), "scenes": [make_start(scene, 0, 4, TINY, history=3)]}


def drive(road, frames, seed=0):
    """A rollout of an episode with so many frames a decision, and what its driver saw."""
    env, agent = DriveEnv(**road, frames_per_decision=frames, seconds=20.0), Scripted()
    simulation = env.simulation
    group = EpisodeGroup(simulation, Imagination(simulation), agent, [0], seed, [0])
    while group.live and len(agent.seen) < len(CONTROLS):
        group.step()
    episode = group.done.get(0) or group.episode(0, "stopped")
    return rollout_of(episode, simulation.starts[0].route, TINY, {}), agent.seen


@pytest.mark.parametrize("frames", [1, 2])
def test_what_is_rebuilt_from_the_file_is_what_the_driver_saw(road, tmp_path, frames):
    rollout, seen = drive(road, frames)
    assert len(rollout.actions) == len(CONTROLS), "nothing ended it"
    save_rollout(rollout, tmp_path / "rollout.npz")
    rebuilt = list(situations(load_rollout(tmp_path / "rollout.npz"), frames))
    first = 2 // frames
    assert len(rebuilt) == len(CONTROLS) - first
    for (situation, answer), observed, controls in zip(rebuilt, seen[first:], CONTROLS[first:], strict=True):
        np.testing.assert_array_equal(situation["occupancy"], observed["occupancy"])
        np.testing.assert_allclose(situation["ego"], observed["ego"], atol=2e-4)
        np.testing.assert_allclose(situation["route"], observed["route"], atol=1e-4)
        np.testing.assert_allclose(features(situation, TINY), features(observed, TINY), atol=1e-3)
        np.testing.assert_allclose(answer, controls, atol=1e-6)
    assert min(situation["ego"][0, 0] for situation, _ in rebuilt) < 1e-4, "it stood"


def test_a_drive_along_x_by_hand():
    rollout = small_rollout()  # 1 m a frame, 0.5 s each, the route along x
    actions = np.array([[0.0, 0.0], [0.0, 0.0], [0.5, 0.2], [-0.5, 0.4], [0.0, 0.0], [0.0, 0.0]], np.float32)
    found = list(situations(replace(rollout, actions=actions), 2))
    assert len(found) == 3, "from frames 2, 3 and 4 of 0 to 6"
    first, answer = found[0]
    assert np.allclose(first["ego"], [2.0, 0.0, 0.0, 0.0], atol=1e-6)
    assert np.allclose(first["route"][0, :, 0], np.minimum(2.0 * np.arange(1, 21), 28.0), atol=1e-5)
    assert np.array_equal(first["occupancy"][0], rollout.occupancy[1:3])
    # Half of 4 m/s2 and half of -8 m/s2, a frame each, are -1 m/s2 over both.
    car_mean = (0.5 * 4.0 - 0.5 * 8.0) / 2 / 8.0
    assert np.allclose(answer, [car_mean, 0.3], atol=1e-6)
    assert np.allclose(found[1][1], [-0.25, 0.2], atol=1e-6)


def test_demonstrations_are_mirrored_and_repeated_to_their_share(tmp_path):
    actions = np.tile(np.array([0.1, 0.4], np.float32), (6, 1))
    save_rollout(replace(small_rollout(), actions=actions), tmp_path / "a.npz")
    drives = read_drives([tmp_path / "a.npz"] * 2, GRID, 2, 0.25)
    assert drives.answers.tolist() == [pytest.approx([0.1, side * 0.4]) for side in (1, -1)] * 6
    for teacher, times in ((96, 3), (108, 3), (109, 4), (1, 1)):
        seen, answers = drives.join(torch.zeros(teacher, drives.seen.shape[1]), torch.zeros(teacher, 2))
        assert len(seen) == len(answers) == teacher + 12 * times
        assert (
            torch.equal(answers[teacher:], drives.answers.repeat(times, 1)) and 12 * times / len(seen) >= 0.25
        )


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "grid": ({"grid": replace(GRID, voxel=0.5)}, r"voxels of 0\.5 m, but this world has"),
    "no actions": ({"actions": np.zeros((0, 2), np.float32), "rewards": np.zeros(0, np.float32)}, "without actions"),
    "a manoeuvre": ({"actions": np.ones((6, 1), np.float32)}, "without actions of acceleration and steering"),
    "too large": ({"actions": np.full((6, 2), 3.0, np.float32)}, "without actions"),
    "no number": ({"actions": np.full((6, 2), np.nan, np.float32)}, "without actions"),
    "an action too few": (
        {"actions": np.zeros((5, 2), np.float32), "rewards": np.zeros(5, np.float32)},
        "without actions",
    ),
    "no route": ({"route": np.zeros((0, 2), np.float32)}, "without a route"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_a_rollout_that_cannot_teach_is_refused_in_one_line(name, tmp_path):
    changes, said = BAD[name]
    path = tmp_path / "rollout.npz"
    save_rollout(replace(small_rollout(), **changes), path)
    with pytest.raises(SceneError, match=rf"^[^\n]*rollout\.npz[^\n]*{said}[^\n]*$"):
        read_drives([path], GRID, 2, 0.25)


def test_a_short_rollout_is_refused_and_the_shortest_is_not(tmp_path):
    path = tmp_path / "rollout.npz"
    save_rollout(small_rollout(frames=4), path)
    with pytest.raises(SceneError, match=r"of 1\.5 s; a demonstration takes 2 s or more$"):
        read_drives([path], GRID, 2, 0.25)
    save_rollout(small_rollout(frames=5), path)
    assert len(read_drives([path], GRID, 2, 0.25).seen) == 2


# --------------------------------------------------------------------------- learning from them
SMALL = {"copies": 2, "rollout": 2, "minibatches": 2, "hidden": (16,)}


def train(road, out, recorded, **options):
    env = LearnerEnv(DriveVectorEnv(num_envs=2, **road, seconds=4.0, autoreset="same_step"))
    config = LearnerConfig(**{**SMALL, "rounds": 2, "decisions": 8, **options})
    return read_tensors(Learner(env=env, config=config, out=out, recorded=recorded).run(), kind="policy")[0]


def same(a, b):
    return all(torch.equal(a[name], b[name]) for name in a)


def test_demonstrations_change_what_is_learned_and_a_resumed_training_knows_them(road, tmp_path):
    save_rollout(drive(road, 1)[0], tmp_path / "rollout.npz")
    recorded = read_drives([tmp_path / "rollout.npz"], TINY, 2, 0.4)
    alone = train(road, tmp_path / "alone", None)
    whole = train(road, tmp_path / "whole", recorded)
    assert not same(alone, whole)
    train(road, tmp_path / "parts", recorded, decisions=4)
    assert same(train(road, tmp_path / "parts", recorded), whole)


def test_the_policy_answers_as_it_was_shown(road, tmp_path):
    env = LearnerEnv(DriveVectorEnv(num_envs=2, **road, seconds=4.0, autoreset="same_step"))
    policy = Learner(env=env, config=LearnerConfig(**SMALL), out=tmp_path).model.policy
    size = env.observation_space.shape[0]
    places = torch.randn(2, size, generator=torch.Generator().manual_seed(0))
    taught = Demonstrations(
        seen=places[:1].repeat(40, 1), answers=torch.zeros(40, 2), driven=places, after=places,
        reward=torch.zeros(2), goes_on=torch.ones(2),
    )  # fmt: skip
    recorded = RecordedDrives(seen=places[1:], answers=torch.tensor([[0.5, -0.3]]), share=0.5)
    fit_policy(policy, taught, torch.Generator().manual_seed(0), passes=300, recorded=recorded)
    with torch.no_grad():
        mean = policy.get_distribution(places).distribution.mean
    assert torch.allclose(mean, torch.tensor([[0.0, 0.0], [0.5, -0.3]]), atol=0.03)


# --------------------------------------------------------------------------- the command
def test_the_command_refuses_bad_demonstrations_in_one_line(straight_road, tmp_path, capsys):
    (tmp_path / "scenes").mkdir()
    save_scene(straight_road(), tmp_path / "scenes" / "straight.safetensors")
    save_rollout(small_rollout(), tmp_path / "small.npz")
    (tmp_path / "text.npz").write_text("no rollout")
    where = ["--world", "replay", "--scenes", str(tmp_path / "scenes"), "--starts", "1", "--seconds", "3"]
    for given, said in (
        ([str(tmp_path / "nowhere.npz")], "no such rollout"),
        ([str(tmp_path / "text.npz")], "not a rollout"),
        ([str(tmp_path / "small.npz")], f"but this world has {OCC3D.shape}"),
        ([str(tmp_path / "small.npz"), "--imitate", "none"], "--imitate none"),
        ([str(tmp_path / "small.npz"), "--demonstration-share", "1"], "--demonstration-share 1"),
    ):
        assert (
            main(["train", "agent", *where, "--out", str(tmp_path / "run"), "--demonstrations", *given]) == 2
        )
        captured = capsys.readouterr()
        assert captured.err.count("\n") == 1 and said in captured.err, captured.err
    assert not list((tmp_path / "run").glob("*"))


@pytest.mark.slow
def test_a_recorded_drive_is_learned_from_and_stands_in_the_recipe(straight_road, tmp_path, capsys):
    (tmp_path / "scenes").mkdir()
    save_scene(straight_road(cars=[(60.0, 0.0, 2.0)]), tmp_path / "scenes" / "straight.safetensors")
    where = ["--world", "replay", "--scenes", str(tmp_path / "scenes"), "--seconds", "4"]
    assert main(["drive", "--agent", "idm", *where, "--out", str(tmp_path / "drive"), "--skip-video"]) == 0
    size = ["--starts", "1", "--copies", "2", "--rollout", "2", "--rounds", "1", "--minibatches", "2"]
    train = ["train", "agent", *where, *size, "--decisions", "4", "--out", str(tmp_path / "run")]
    file = tmp_path / "drive" / "rollout.npz"
    assert main([*train, "--demonstrations", str(file), "--demonstration-share", "0.5"]) == 0
    recipe = read_tensors(tmp_path / "run" / "policy.safetensors", kind="policy")[1]["recipe"]
    assert recipe["demonstrations"] == [mark_of(file)] and recipe["demonstration_share"] == 0.5
    capsys.readouterr()
    assert main(train) == 2
    assert "begun with --demonstrations ['rollout.npz (sha256" in capsys.readouterr().err
