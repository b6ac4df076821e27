"""Training a policy: imitation and PPO on a small recorded world, exact resume, the stored policy."""

import csv
import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors import safe_open

pytest.importorskip("stable_baselines3", reason="the extra `rl`")

from occsora_sim.agents import LearnedPolicy, RouteFollower, make_agent
from occsora_sim.agents.episode import run_episodes
from occsora_sim.agents.features import feature_count, features
from occsora_sim.agents.imitation import demonstrate, fit_policy, fit_value, with_pedestrian
from occsora_sim.agents.learned import PolicyConfig, load_policy, policy_network, save_policy
from occsora_sim.agents.learner import Learner, LearnerConfig, actor_tensors
from occsora_sim.agents.learner_env import REWARD_SCALE, LearnerEnv
from occsora_sim.checkpoint import write_tensors
from occsora_sim.cli import main
from occsora_sim.envs.drive import DriveEnv
from occsora_sim.envs.vector import DriveVectorEnv
from occsora_sim.errors import CheckpointError, ConfigurationError
from occsora_sim.grid import DRIVEABLE, FREE, OCC3D, PEDESTRIAN, TINY
from occsora_sim.scenes.file import save_scene
from occsora_sim.scenes.start import Start, make_start
from occsora_sim.worlds.replay import ReplayWorld

SMALL = {
    "copies": 2,
    "rollout": 4,
    "rounds": 1,
    "minibatches": 2,
    "epochs": 2,
    "hidden": (16,),
    "keep_every": 2,
}


@pytest.fixture
def road(straight_road):
    """Keywords of an environment on a straight road with a slow car ahead."""
    scene = straight_road(cars=[(60.0, 0.0, 2.0)])
    starts = [make_start(scene, 0, step, TINY, history=3) for step in (2, 4)]
    return {"world": ReplayWorld(TINY), "scenes": starts, "seconds": 4.0, "autoreset": "same_step"}


def learner(road, out, workers=1, **options):
    config = LearnerConfig(**{**SMALL, "decisions": 32, **options})
    env = LearnerEnv(*(DriveVectorEnv(num_envs=config.copies // workers, **road) for _ in range(workers)))
    return Learner(env=env, config=config, out=out, about={"scenes": "straight"})


def weights(path):
    with safe_open(path, framework="np") as file:
        return {name: file.get_tensor(name) for name in file.keys()}


def equal(a, b):
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


# --------------------------------------------------------------------------- the environment of the learner
def test_the_learner_sees_features_scaled_rewards_and_the_last_observation(road):
    env, plain = LearnerEnv(DriveVectorEnv(num_envs=2, **road)), DriveVectorEnv(num_envs=2, **road)
    env.seed(5)
    seen, (raw, _) = env.reset(), plain.reset(seed=5)
    assert seen.shape == (2, feature_count()) and np.array_equal(seen, features(raw, TINY))
    action = np.array([[0.2, 0.0], [5.0, 0.0]], dtype=np.float32)
    for step in range(4):
        env.step_async(action)
        seen, reward, done, infos = env.step_wait()
        raw, expected, terminated, truncated, found = plain.step(np.clip(action, -1, 1))
        np.testing.assert_allclose(reward, REWARD_SCALE * expected, rtol=1e-6)
        assert np.array_equal(done, terminated | truncated) and np.array_equal(seen, features(raw, TINY))
        for row in np.flatnonzero(done):
            last = {name: value[None] for name, value in found["final_obs"][row].items()}
            assert np.array_equal(infos[row]["terminal_observation"], features(last, TINY)[0])
            assert infos[row]["TimeLimit.truncated"] == (not terminated[row])
        assert not done.any() or step > 0
    assert done[0] and len(env.scores) >= 1 and 0 <= env.scores[0]["score"] <= 1


def test_reaching_the_goal_is_no_end_to_fear(road):
    start = road["scenes"][0]
    near = Start(
        occupancy=start.occupancy, ego_pose=start.ego_pose, route=start.route[:36], source=start.source
    )
    env = LearnerEnv(DriveVectorEnv(num_envs=1, **{**road, "scenes": [near], "seconds": 30.0}))
    env.reset()
    for _ in range(12):
        _, _, done, infos = env.step(np.zeros((1, 2)))
        if done[0]:
            break
    assert done[0] and infos[0]["TimeLimit.truncated"] and env.scores[0]["nc"] == 1
    assert env.scores[0]["seconds"] < 30


def test_the_wrong_environment_is_refused(road):
    with pytest.raises(ConfigurationError, match="same_step"):
        LearnerEnv(DriveVectorEnv(num_envs=1, **{**road, "autoreset": "next_step"}))


# --------------------------------------------------------------------------- imitation
def test_imitation_answers_as_its_teacher(road, tmp_path):
    taught = learner(road, tmp_path, hidden=(64, 64))
    policy, draws = taught.model.policy, torch.Generator().manual_seed(0)
    taught.env.seed(0)
    data = demonstrate(taught.env, RouteFollower(grid=TINY), policy, 4, 1.0, np.random.default_rng(0))
    assert len(data.seen) == len(data.answers) == 2 * 4 * 12 and len(data.driven) == len(data.reward) == 2 * 4
    assert set(data.goes_on.tolist()) <= {0.0, 1.0}

    def error():
        with torch.no_grad():
            mean = policy.get_distribution(data.seen).distribution.mean
        return float((mean - data.answers).abs().mean())

    before = error()
    fit_policy(policy, data, draws, passes=400)
    assert error() < 0.3 * before
    first = fit_value(policy, data, 0.9, draws, sweeps=1)
    assert fit_value(policy, data, 0.9, draws, sweeps=60) < 0.5 * first


# --------------------------------------------------------------------------- training
def test_training_writes_a_policy_a_curve_and_its_logs(road, tmp_path):
    path = learner(road, tmp_path).run()
    assert path == tmp_path / "policy.safetensors"
    names = {entry.name for entry in tmp_path.iterdir()}
    assert names == {
        "policy.safetensors", "policy-16.safetensors", "policy-32.safetensors", "resume.safetensors", "curve.csv",
        "tensorboard",
    }  # fmt: skip
    with (tmp_path / "curve.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["decisions"] for row in rows] == ["8", "16", "24", "32"]
    assert [row["phase"] for row in rows] == ["imitation"] + ["reinforcement"] * 3
    assert all(0 <= float(row["score"]) <= 1 for row in rows)
    assert list((tmp_path / "tensorboard").glob("events*"))
    with safe_open(path, framework="np") as file:
        header = json.loads(file.metadata()["header"])
    assert header["kind"] == "policy" and header["recipe"]["scenes"] == "straight"
    assert header["recipe"]["decisions"] == 32 and header["recipe"]["learner"]["seed"] == 0


@pytest.mark.parametrize("cut", [8, 16, 24])
def test_an_interrupted_training_ends_with_the_same_weights(road, tmp_path, cut):
    whole = weights(learner(road, tmp_path / "whole", rounds=2).run())
    learner(road, tmp_path / "parts", rounds=2, decisions=cut).run()
    part = weights(tmp_path / "parts" / "policy.safetensors")
    assert not equal(part, whole)
    assert equal(weights(learner(road, tmp_path / "parts", rounds=2).run()), whole)
    curves = [
        [
            row.split(",")[:2] + row.split(",")[3:]
            for row in (tmp_path / name / "curve.csv").read_text().split()
        ]
        for name in ("whole", "parts")
    ]
    assert curves[0] == curves[1], "but for the minutes"


def test_imitation_that_was_over_goes_on_with_what_it_was_shown(road, tmp_path):
    whole = weights(learner(road, tmp_path / "whole", rounds=2, decisions=16).run())
    learner(road, tmp_path / "longer", rounds=1, decisions=8).run()
    assert equal(weights(learner(road, tmp_path / "longer", rounds=2, decisions=16).run()), whole)


def test_the_number_of_workers_changes_nothing(road, tmp_path):
    alone, spread = (weights(learner(road, tmp_path / str(n), workers=n).run()) for n in (1, 2))
    assert equal(alone, spread)


def test_another_seed_gives_other_weights_and_both_phases_change_them(road, tmp_path):
    changes: list[dict] = [{}, {"seed": 1}, {"decisions": 8}, {"imitate": "none"}]
    found = [
        weights(learner(road, tmp_path / str(number), **change).run())
        for number, change in enumerate(changes)
    ]
    for a in range(4):
        for b in range(a):
            assert not equal(found[a], found[b])


def test_time_up_ends_the_training_in_order(road, tmp_path):
    path = learner(road, tmp_path, minutes=1e-9).run()
    assert (tmp_path / "curve.csv").read_text().count("\n") == 1, "the header alone"
    assert load_policy(path, TINY).act(DriveVectorEnv(num_envs=2, **road).reset(seed=0)[0]).shape == (2, 2)


def test_a_resume_file_of_other_options_is_refused_in_one_line(road, tmp_path):
    learner(road, tmp_path, decisions=8).run()
    for other in ({"seed": 3}, {"hidden": (8,)}, {"lr": 1e-3}):
        with pytest.raises(CheckpointError, match=r"^[^\n]*another --out$"):
            learner(road, tmp_path, **other).run()


@pytest.mark.parametrize(
    "wrong",
    [
        {"copies": 0},
        {"decisions": 0},
        {"gamma": 1.0},
        {"gae": 2.0},
        {"lr": 0.0},
        {"minutes": -1.0},
        {"rollout": 1},
    ],
)
def test_options_that_cannot_work_are_refused_in_one_line(wrong):
    with pytest.raises(ConfigurationError, match=r"^[^\n]+$"):
        LearnerConfig(**{**SMALL, **wrong})


# --------------------------------------------------------------------------- the stored policy
def test_the_stored_policy_acts_as_the_trained_one(road, tmp_path):
    trained = learner(road, tmp_path)
    stored = load_policy(trained.run(), TINY)
    observation, _ = DriveVectorEnv(num_envs=2, **road).reset(seed=3)
    expected, _ = trained.model.predict(features(observation, TINY), deterministic=True)
    np.testing.assert_allclose(stored.act(observation), expected, atol=1e-6)
    again = LearnedPolicy(policy_network(PolicyConfig(hidden=(16,))), TINY)
    again.network.load_state_dict(actor_tensors(trained.model.policy))
    assert np.array_equal(again.act(observation), stored.act(observation))


def test_a_learned_policy_drives_the_same_alone_and_in_a_batch(road, tmp_path):
    stored = load_policy(learner(road, tmp_path).run(), TINY)
    env = DriveEnv(**{**road, "seconds": 3.0})
    assert run_episodes(env, stored, 3, batch=3) == run_episodes(env, stored, 3, batch=1)


def test_what_is_no_policy_is_refused_in_one_line(tmp_path):
    network, config = policy_network(PolicyConfig()), PolicyConfig()
    good = tmp_path / "policy.safetensors"
    save_policy(good, network.state_dict(), config, {})
    assert isinstance(make_agent(str(good)), LearnedPolicy)
    foreign = tmp_path / "foreign.safetensors"
    write_tensors(foreign, {"a": torch.zeros(1)}, {"kind": "tokenizer"})
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(good.read_bytes()[:-40])
    older = tmp_path / "older.safetensors"
    header = {"hidden": [128, 128], "features": 0, "inputs": 9, "outputs": 2}
    write_tensors(older, network.state_dict(), {"kind": "policy", "policy": header, "recipe": {}})
    other = tmp_path / "other.safetensors"
    save_policy(other, policy_network(PolicyConfig(hidden=(8,))).state_dict(), config, {})
    for path, said in (
        (foreign, "'tokenizer'"),
        (cut, "damaged"),
        (older, "version 0"),
        (other, "no policy"),
    ):
        with pytest.raises(CheckpointError, match=rf"^[^\n]*{said}[^\n]*$"):
            make_agent(str(path))
    with pytest.raises(ConfigurationError, match="hidden"):
        PolicyConfig(hidden=())


# --------------------------------------------------------------------------- the command
@pytest.mark.slow
def test_train_agent_and_what_drives_its_policy(straight_road, tmp_path, capsys):
    (tmp_path / "scenes").mkdir()
    save_scene(straight_road(cars=[(60.0, 0.0, 2.0)]), tmp_path / "scenes" / "straight.safetensors")
    where = ["--world", "replay", "--scenes", str(tmp_path / "scenes"), "--seconds", "3"]
    size = [
        "--copies",
        "2",
        "--rollout",
        "3",
        "--rounds",
        "1",
        "--minibatches",
        "2",
        "--decisions",
        "12",
        "--starts",
        "2",
        "--workers",
        "2",
    ]
    assert main(["train", "agent", *where, *size, "--out", str(tmp_path / "run")]) == 0
    policy = tmp_path / "run" / "policy.safetensors"
    assert str(policy) in capsys.readouterr().out.replace("\n", "")
    report = tmp_path / "agent.json"
    assert (
        main(["evaluate", "agent", "--agent", str(policy), *where, "--episodes", "2", "--json", str(report)])
        == 0
    )
    assert json.loads(report.read_text())["agent"] == str(policy)
    out = ["--out", str(tmp_path / "drive"), "--skip-video"]
    assert main(["drive", "--agent", str(policy), *where, *out]) == 0
    assert (tmp_path / "drive" / "rollout.npz").is_file()


@pytest.mark.parametrize("library", ["stable_baselines3", "tensorboard"])
def test_a_missing_library_says_how_to_install_it(library, straight_road, tmp_path):
    save_scene(straight_road(), tmp_path / "straight.safetensors")
    code = (
        f"import sys; sys.modules[{library!r}] = None; from occsora_sim.cli import main; "
        f"sys.exit(main(['train', 'agent', '--world', 'replay', '--scenes', {str(tmp_path)!r}, '--starts', '1', "
        f"'--out', {str(tmp_path / 'run')!r}]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert "is not installed: pip install" in done.stderr and "Traceback" not in done.stderr


def test_train_agent_refuses_bad_options_in_one_line(tmp_path, capsys):
    for options, said in (
        (["--steps", "0"], "--steps 0"),
        (["--seconds", "nan"], "--seconds nan"),
        (["--copies", "0"], "copies 0"),
        (["--workers", "3", "--copies", "2"], "--workers 3"),
        (["--imitate", "granny"], "granny"),
        (["--world", "replay", "--weights", "w.safetensors"], "--weights are of"),
        (["--scenes", "nowhere"], "nowhere"),
        (["--device", "toaster"], "toaster"),
    ):
        assert main(["train", "agent", "--out", str(tmp_path / "run"), *options]) == 2
        captured = capsys.readouterr()
        assert captured.err.count("\n") == 1 and said in captured.err, captured.err


def test_the_teacher_is_asked_about_pedestrians_who_cross_and_brakes_for_those_in_the_way():
    occupancy = np.full((16, 2, *OCC3D.shape), FREE, np.uint8)
    occupancy[..., OCC3D.ground] = DRIVEABLE
    route = np.stack((np.arange(2.0, 42.0, 2.0), np.zeros(20)), axis=-1).astype(np.float32)
    street = {
        "occupancy": occupancy,
        "ego": np.tile(np.array([8.0, 0.0, 0.0, 0.0], np.float32), (16, 1)),
        "route": np.tile(route, (16, 1, 1)),
    }
    crossed = with_pedestrian(street, np.random.default_rng(0), OCC3D)
    for row in crossed["occupancy"]:
        for frame in row:
            columns = np.argwhere((frame == PEDESTRIAN).any(-1))
            assert len(columns) == 1
            x, y = OCC3D.centres_xy()[tuple(columns[0])].tolist()
            assert 2.5 < x < 29.5 and abs(y) < 4.2  # the frame before may lie 4 m further, the ego's way
    assert np.array_equal((crossed["occupancy"] == PEDESTRIAN).sum((1, 2, 3, 4)), np.full(16, 8))
    before, after = (RouteFollower().act(view)[:, 0] for view in (street, crossed))
    assert 0.1 < (after < before - 0.01).mean() < 0.9
    assert not (occupancy == PEDESTRIAN).any()
