"""Rollouts on Ray: a local cluster of two workers gives the serial tables to the last bit, also when a worker dies."""

import json
import os
import signal
import socket
import sys
from functools import partial
from typing import Any

import numpy as np
import pytest
from untrained import untrained_world_model

from occsora_sim import cluster
from occsora_sim.agents.remote_env import RemoteEnv, remote_envs
from occsora_sim.cli import main
from occsora_sim.cluster import Alone, batches, open_crew
from occsora_sim.envs.vector import DriveVectorEnv
from occsora_sim.errors import ClusterError, ConfigurationError
from occsora_sim.grid import TINY
from occsora_sim.models.weights import save_world_model
from occsora_sim.scenes.file import load_scene, save_scene
from occsora_sim.scenes.start import make_start
from occsora_sim.worlds.replay import ReplayWorld

PLANNER = """
import os, pathlib, signal
import numpy as np

class Fragile:
    def reset(self, n):
        self.n = n
    def act(self, observation):
        armed = pathlib.Path(__file__).with_name("armed")
        if armed.exists():
            armed.unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        return np.tanh(observation["ego"][:, :1] * [0.1, 0.01])

class Wrong(Fragile):
    def act(self, observation):
        return np.zeros((self.n, 7))
"""


@pytest.fixture(scope="module")
def ray():
    """Ray on this machine with two workers, as `--ray local:2` starts it; later commands find it there."""
    library = pytest.importorskip("ray")
    assert cluster._join("local:2") and not cluster._join("local:2")
    yield library
    library.shutdown()


@pytest.fixture(scope="module")
def given(built_street, straight_road, tmp_path_factory):
    """Options of a small generated world, and a folder with a planner of one's own."""
    folder = tmp_path_factory.mktemp("given")
    scenes, weights = folder / "scenes", folder / "tiny.safetensors"
    scenes.mkdir()
    save_scene(built_street(cars=[(60.0, 2.0, 4.0)]), scenes / "street.safetensors")
    save_scene(straight_road(cars=[(30.0, -2.0, 2.0)]), scenes / "road.safetensors")
    save_world_model(untrained_world_model(), weights, kind="world_model", trained_on="nothing", recipe={})
    (folder / "planner.py").write_text(PLANNER)
    return ["--scenes", str(scenes), "--weights", str(weights), "--steps", "1"], folder


def figures(command, folder, *options):
    """What a command writes with --json, without the time that it took; and the rows of --csv."""
    report, rows = folder / "figures.json", folder / "rows.csv"
    csv = [] if command == "world" else ["--csv", str(rows)]
    assert main(["evaluate", command, *options, "--json", str(report), *csv]) == 0
    found = json.loads(report.read_text())
    found.pop("wall_seconds", None)
    return found, rows.read_text() if csv else ""


@pytest.mark.slow
def test_evaluate_agent_gives_the_serial_table_also_when_a_worker_dies(ray, given, tmp_path, capfd):
    common, folder = given
    options = [*common, "--agent", f"{folder}/planner.py:Fragile", "--episodes", "5", "--batch", "2"]
    options += ["--seconds", "3"]
    serial = figures("agent", tmp_path, *options)
    (folder / "armed").touch()
    assert figures("agent", tmp_path, *options, "--ray", "local:2") == serial
    assert not (folder / "armed").exists(), "a worker was to die"


@pytest.mark.slow
def test_evaluate_transfer_gives_the_serial_table(ray, given, tmp_path):
    common, _ = given
    options = [*common, "--against", "replay", "--agents", "random", "standstill", "--episodes", "3"]
    options += ["--batch", "2", "--seconds", "2"]
    serial = figures("transfer", tmp_path, *options)
    assert figures("transfer", tmp_path, *options, "--ray", "local:2") == serial


@pytest.mark.slow
def test_evaluate_world_gives_the_serial_table(ray, given, tmp_path):
    common, _ = given
    options = [*common, "--windows-per-scene", "2", "--batch", "1", "--control", "2", "--drift", "2"]
    options += ["--traffic", "2", "--drift-seconds", "4", "--steps", "1"]
    serial = figures("world", tmp_path, *options)
    assert figures("world", tmp_path, *options, "--ray", "local:2") == serial


@pytest.mark.slow
def test_scenes_are_made_by_workers_as_here(ray, tmp_path):
    written = []
    for name, extra in (("here", []), ("there", ["--ray", "local:2"])):
        folder = tmp_path / name
        assert main(["scenes", "make", "--scenes", "traffic:0-1", "--out", str(folder), *extra]) == 0
        written.append({path.name: load_scene(path) for path in sorted(folder.iterdir())})
    here, there = written
    assert here.keys() == there.keys() == {"traffic-0.safetensors", "traffic-1.safetensors"}
    for name, scene in here.items():  # the order of a file's header is not fixed
        for field, value in vars(scene).items():
            other = getattr(there[name], field)
            assert np.array_equal(value, other) if isinstance(value, np.ndarray) else value == other


@pytest.fixture
def halve():
    """A unit of work of two parts; made here, so that workers need not find this file."""

    def halve(held, unit, told):
        told()
        if unit == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if unit < 0:
            raise ConfigurationError(f"{unit} of {held} is below zero")
        told()
        return held * unit / 2

    return halve


def test_a_crew_of_one_works_in_order_and_tells_of_every_part(halve):
    parts: list[None] = []
    with open_crew(None, 4, lambda: 4) as crew:
        assert list(crew.map(halve, [3, 1, 2], lambda: parts.append(None))) == [6.0, 2.0, 4.0]
    assert len(parts) == 6 and isinstance(crew, Alone)
    assert batches(5, 2) == [range(0, 2), range(2, 4), range(4, 5)] and batches(0, 2) == []


@pytest.mark.slow
def test_workers_answer_in_order_and_what_they_refuse_is_said_in_one_line(ray, halve, monkeypatch):
    monkeypatch.setattr(cluster, "RETRIES", 0)
    parts: list[None] = []
    with open_crew("auto", 4, lambda: 4) as crew:
        assert list(crew.map(halve, [3, 1, 2], lambda: parts.append(None))) == [6.0, 2.0, 4.0]
        assert len(parts) == 6
        with pytest.raises(ConfigurationError, match=r"^-1 of 4 is below zero$"):
            list(crew.map(halve, [1, -1, 2]))
        with pytest.raises(ClusterError, match=r"^Ray: a worker was lost[^\n]+$"):
            list(crew.map(halve, ["die"]))  # type: ignore[list-item]


@pytest.fixture
def make(straight_road):
    """Makes small environments, as a learner has them."""
    start = make_start(straight_road(cars=[(30.0, 0.0, 2.0)], steps=61), 0, 6, TINY, history=3)
    given = {
        "world": ReplayWorld(TINY),
        "scenes": [start],
        "seconds": 2.0,
        "autoreset": "same_step",
        "seed": 3,
    }
    return partial(DriveVectorEnv, **given)  # type: ignore[arg-type]


def learned_from(envs, kill=lambda: None):
    """All that a learner is shown in two short rollouts; `kill` is called in the middle of each."""
    from occsora_sim.agents.learner_env import LearnerEnv

    env, rng = LearnerEnv(*envs), np.random.default_rng(0)
    seen = [env.reset()]
    for seed in range(2):
        env.seed(seed)
        seen.append(env.reset())
        for step in range(4):
            if step == 2:
                kill()
            env.step_async(rng.uniform(-0.5, 0.5, (3, 2)).astype(np.float32))
            seen += env.step_wait()[:3]
    return seen


class Forgetful:
    """Workers in this process, which lose all that they hold when they are told to."""

    lost = False

    def send(self, value):
        return value

    def add(self, again):
        return [again, again()]

    def run(self, worker, work, unit):
        if self.lost:
            worker[1], self.lost = worker[0](), False
        return work(worker[1], unit, None)


def test_a_worker_that_has_lost_everything_shows_a_learner_the_same(make):
    pytest.importorskip("stable_baselines3", reason="the extra `rl`")
    workers: Any = Forgetful()
    envs = [RemoteEnv(workers, partial(make, num_envs=n), make(num_envs=1), n) for n in (2, 1)]
    here = learned_from([make(num_envs=2), make(num_envs=1)])
    there = learned_from(envs, lambda: setattr(workers, "lost", True))
    assert len(here) == len(there) == 27 and all(map(np.array_equal, here, there))


@pytest.mark.slow
def test_a_learner_is_shown_the_same_by_workers_also_when_one_dies(ray, make):
    pytest.importorskip("stable_baselines3", reason="the extra `rl`")
    here = learned_from([make(num_envs=2), make(num_envs=1)])
    with remote_envs("local:2", make, (2, 1)) as envs:
        doomed = [env._workers.run(env._worker, lambda held, unit, told: os.getpid(), None) for env in envs]
        assert os.getpid() not in doomed

        def kill():
            if doomed:
                os.kill(doomed.pop(), signal.SIGKILL)

        there = learned_from(envs, kill)
    assert not doomed and len(here) == len(there) and all(map(np.array_equal, here, there))


@pytest.mark.slow
def test_an_agent_that_is_refused_in_a_worker_ends_the_command_in_one_line(ray, given, tmp_path, capsys):
    common, folder = given
    options = [*common, "--agent", f"{folder}/planner.py:Wrong", "--episodes", "2", "--seconds", "2"]
    said = []
    for extra in ([], ["--ray", "local:2"]):
        assert main(["evaluate", "agent", *options, *extra]) == 2
        said.append(capsys.readouterr().err)
    assert said[0] == said[1] and said[0].count("\n") == 1


@pytest.mark.parametrize(
    "command", ["evaluate agent", "evaluate transfer", "evaluate world", "scenes make", "train agent"]
)
@pytest.mark.parametrize("address", ["", "local:0", "locally", "host", "host:port", "http://a:1"])
def test_what_is_no_address_is_refused_in_one_line(command, address, capsys):
    assert main([*command.split(), "--ray", address]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "HOST:PORT" in said


def test_an_address_where_nobody_answers_is_told_in_one_line(tmp_path, capsys):
    pytest.importorskip("ray").shutdown()  # or what is there already would be joined
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    for address in (f"127.0.0.1:{port}", f"ray://127.0.0.1:{port}", "127.0.0.1:99999"):
        assert main(["scenes", "make", "--out", str(tmp_path), "--ray", address]) == 2
        said = capsys.readouterr().err
        assert said.count("\n") == 1 and f"--ray {address}: no cluster answers" in said


def test_ray_chooses_the_gpu(capsys):
    assert main(["evaluate", "agent", "--ray", "auto", "--device", "cuda:1"]) == 2
    assert "let Ray say which" in capsys.readouterr().err


def test_without_ray_the_line_that_installs_it_is_said(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ray", None)
    assert main(["scenes", "make", "--scenes", "traffic:0-1", "--ray", "local"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and 'pip install "occsora-sim[ray]"' in said
