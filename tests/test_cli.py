"""The commands at work: what they write, and how bad input ends in one line with status 2."""

import csv
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from untrained import untrained_world_model

from occsora_sim.agents.suite import SUITES
from occsora_sim.checkpoint import write_tensors
from occsora_sim.cli import main
from occsora_sim.commands.evaluate_agent import Options as EvaluateAgent
from occsora_sim.commands.recording import plans
from occsora_sim.models.weights import save_world_model
from occsora_sim.rendering.rollout import load_rollout
from occsora_sim.scenes.file import save_scene
from occsora_sim.scenes.source import open_scenes
from occsora_sim.worlds.diffusion import default_weights

README = Path(__file__).parent.parent / "README.md"


@pytest.fixture
def scenes(straight_road, tmp_path: Path) -> str:
    """A folder with one short scene."""
    folder = tmp_path / "scenes"
    folder.mkdir()
    save_scene(straight_road(cars=[(60.0, 0.0, 1.0)]), folder / "straight.safetensors")
    return str(folder)


def refusal(capsys, *arguments: str | Path) -> str:
    """The line that a refused command leaves on standard error."""
    assert main(list(map(str, arguments))) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1, captured.err
    assert "Traceback" not in captured.err
    return captured.err


def drive(scenes: str, out: Path, *more: str) -> int:
    arguments = [
        "drive",
        "--world",
        "replay",
        "--scenes",
        scenes,
        "--seconds",
        "3",
        "--out",
        str(out),
        "--skip-video",
    ]
    return main([*arguments, *more])


def test_drive_writes_the_rollout_and_its_score(scenes, tmp_path, capsys):
    out = tmp_path / "out"
    assert drive(scenes, out, "--json", str(tmp_path / "also.json")) == 0
    assert sorted(path.name for path in out.iterdir()) == ["rollout.npz", "summary.json"]
    rollout = load_rollout(out / "rollout.npz")
    assert rollout.seconds == 3.0 and len(rollout.actions) == len(rollout.rewards)
    assert rollout.header["agent"] == "route-follower" and rollout.header["world"] == "replay"
    summary = json.loads((out / "summary.json").read_text())
    assert summary == json.loads((tmp_path / "also.json").read_text())
    assert summary["seconds_simulated"] == 3.0 and len(summary["episodes"]) == 1
    assert 0.0 <= summary["score"] <= 1.0
    assert f"{summary['score']:.2f}" in capsys.readouterr().out


def test_the_same_seed_drives_the_same_rollout(scenes, tmp_path):
    rollouts = []
    for name in ("a", "b"):
        assert drive(scenes, tmp_path / name, "--seed", "3") == 0
        rollouts.append(load_rollout(tmp_path / name / "rollout.npz"))
    assert np.array_equal(rollouts[0].occupancy, rollouts[1].occupancy)
    assert np.array_equal(rollouts[0].ego_pose, rollouts[1].ego_pose)


def test_an_episode_that_ends_early_is_followed_by_another(straight_road, tmp_path):
    folder = tmp_path / "wall"
    folder.mkdir()
    save_scene(straight_road(cars=[(90.0, 0.0, 0.0)]), folder / "a.safetensors")
    out = tmp_path / "out"
    options = ["--world", "replay", "--scenes", str(folder), "--out", str(out), "--skip-video"]
    assert main(["drive", "--agent", "constant-velocity", "--seconds", "13", *options]) == 0
    summary = json.loads((out / "summary.json").read_text())
    assert summary["episodes"][0]["ended"] == "collision"  # the agent is blind to the standing car
    assert len(summary["episodes"]) >= 2 and (out / "rollout-2.npz").exists()
    assert summary["seconds_simulated"] == pytest.approx(13.0)


@pytest.mark.slow
def test_render_draws_one_frame_of_a_rollout(scenes, tmp_path, capsys):
    assert drive(scenes, tmp_path) == 0
    picture = tmp_path / "frame.png"
    assert main(["render", str(tmp_path / "rollout.npz"), "--frame", "2", "--out", str(picture)]) == 0
    assert picture.read_bytes().startswith(b"\x89PNG")
    capsys.readouterr()
    assert "frames 0 to 6" in refusal(
        capsys, "render", tmp_path / "rollout.npz", "--frame", "7", "--out", picture
    )


def test_evaluate_agent_writes_the_terms_of_the_score(scenes, tmp_path, capsys):
    report = tmp_path / "agent.json"
    options = ["--world", "replay", "--scenes", scenes, "--seconds", "2", "--episodes", "3", "--batch", "2"]
    assert main(["evaluate", "agent", *options, "--json", str(report)]) == 0
    figures = json.loads(report.read_text())
    keys = {"agent", "world", "episodes", "score", "nc", "dac", "ttc", "ep", "comfort", "seconds_simulated"}
    assert keys | {"wall_seconds"} <= figures.keys()
    assert figures["episodes"] == 3 and figures["seconds_simulated"] == pytest.approx(6.0)
    assert figures["nc"] == 1.0
    low, high = figures["intervals"]["score"]
    assert 0 <= low <= figures["score"] <= high <= 1


def test_evaluate_agent_writes_every_episode_and_records_the_worst(scenes, tmp_path, capsys):
    table, out = tmp_path / "episodes.csv", tmp_path / "worst"
    options = ["--world", "replay", "--scenes", scenes, "--seconds", "8", "--episodes", "3"]
    more = [
        "--agent",
        "constant-velocity",
        "--csv",
        str(table),
        "--worst",
        "2",
        "--out",
        str(out),
        "--skip-video",
    ]
    assert main(["evaluate", "agent", *options, *more]) == 0
    assert "worst-1: episode" in capsys.readouterr().out.replace("\n", "")
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["episode"] for row in rows] == ["0", "1", "2"] and len({row["start"] for row in rows}) == 3
    scores = sorted(float(row["score"]) for row in rows)
    found = [load_rollout(out / f"worst-{rank}.npz").header["score"]["score"] for rank in (1, 2)]
    assert found == scores[:2] and sorted(path.name for path in out.iterdir()) == [
        "worst-1.npz",
        "worst-2.npz",
    ]


def test_a_suite_fixes_what_is_driven(capsys):
    settled = EvaluateAgent(suite="validation").settled()
    assert settled == EvaluateAgent(scenes="traffic:500100-500107", episodes=16, seconds=20.0, seed=0)
    assert EvaluateAgent().settled().episodes == 8
    first = {name: int(suite.scenes.split(":")[1].split("-")[0]) for name, suite in SUITES.items()}
    last = {name: int(suite.scenes.split("-")[1]) for name, suite in SUITES.items()}
    assert 96 <= first["validation"] and last["validation"] < 800000 <= first["test"]
    line = refusal(capsys, "evaluate", "agent", "--suite", "test", "--episodes", "3")
    assert "--suite test fixes" in line
    assert "--worst -1" in refusal(capsys, "evaluate", "agent", "--worst", "-1")
    assert "nightly" in refusal(capsys, "evaluate", "agent", "--suite", "nightly")


@pytest.mark.slow
def test_evaluate_world_writes_the_forecasts(scenes, tmp_path):
    weights = tmp_path / "tiny.safetensors"
    save_world_model(untrained_world_model(), weights, kind="world_model", trained_on="nothing", recipe={})
    report = tmp_path / "world.json"
    options = ["--scenes", scenes, "--weights", str(weights), "--windows-per-scene", "1", "--batch", "1"]
    assert main(["evaluate", "world", *options, "--json", str(report)]) == 0
    figures = json.loads(report.read_text())
    assert figures["windows"] == 1 and list(figures["forecast"]) == ["1.0", "2.0", "3.0"]
    assert {"model", "ego_warp", "copy", "tokenizer"} <= figures["forecast"]["1.0"].keys()
    # The ground truth of a straight road at constant speed: the warp is nearly right.
    assert figures["forecast"]["1.0"]["ego_warp"]["miou"] > 0.3


@pytest.mark.slow
def test_bench_writes_frames_per_second(scenes, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("occsora_sim.commands.bench.FRAMES", 64)
    report = tmp_path / "bench.json"
    options = ["--preset", "tiny", "--scenes", scenes, "--chunks", "1", "--batches", "1", "2", "--skip-paper"]
    assert main(["bench", *options, "--json", str(report)]) == 0
    figures = json.loads(report.read_text())
    assert [row["batch"] for row in figures["world"]] == [1, 2]
    assert (
        min(row["frames_per_second"] for row in figures["world"]) > 0 and figures["env_steps_per_second"] > 0
    )
    assert figures["preset"] == "tiny" and figures["paper_seconds_per_clip"] is None
    assert [row["batch"] for row in figures["env"]] == [1, 2] and figures["host_waits_per_step"] == 0
    few, more = figures["operations_per_step"]["1"], figures["operations_per_step"]["2"]
    assert 1000 < few <= more < 1.05 * few  # some copies fall away in a batch of one
    for row in figures["env"]:
        assert row["steps_per_second"] > 0 and 0 < row["memory_mb"] < 100
        assert {"traffic", "ground", "voxels", "score", "observation", "other"} == row[
            "seconds_by_part"
        ].keys()
        assert min(row["seconds_by_part"].values()) > 0
        assert 0 < row["share_of_matrix_product"] < 1 and row["share_of_copy"] > 0
        assert row["flops_per_step"] > 1e5 and row["bytes_per_step"] > 1e6
    assert min(figures["ceilings"].values()) > 1e8
    assert all(row["steps_per_second"] > 0 for row in figures["peers"] if row["package"] == "highway-env")
    assert [row["batch"] for row in figures["voxeliser"]] == [1, 8, 64]
    assert all(row["frames_per_second"] > 0 and row["scenes"] == 1 for row in figures["voxeliser"])
    assert "voxeliser, batch 64, one core" in " ".join(capsys.readouterr().out.split())


def test_scenes_info_says_what_is_in_a_folder(scenes, tmp_path, capsys):
    report = tmp_path / "info.json"
    assert main(["scenes", "info", scenes, "--json", str(report)]) == 0
    assert "straight" in capsys.readouterr().out
    (scene,) = json.loads(report.read_text())["scenes"]
    assert (
        scene["seconds"] == 20.0 and scene["tracks"] == {"car": 2} and scene["ego_motions"] == {"expert": 1}
    )
    assert scene["extent"] == [400.0, 120.0]
    assert scene["lane_metres"] == pytest.approx(349.0)


def test_scenes_make_writes_files_that_open_again(scenes, tmp_path):
    assert main(["scenes", "make", "--scenes", scenes, "--out", str(tmp_path / "made")]) == 0
    assert [scene.name for scene in open_scenes(str(tmp_path / "made"))] == ["straight"]


def test_a_real_process_from_another_folder(scenes, tmp_path):
    command = [sys.executable, "-m", "occsora_sim.cli"]
    done = subprocess.run([*command, "scenes", "info", scenes], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and "straight" in done.stdout, done.stderr
    done = subprocess.run(
        [*command, "scenes", "info", "nowhere"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.count("\n") == 1 and "nowhere" in done.stderr


@pytest.mark.parametrize(("given", "kept"), [(None, "3000"), ("7", "7")])
def test_threads_that_wait_soon_give_way_to_other_programs_if_nothing_else_is_asked(monkeypatch, given, kept):
    monkeypatch.setenv("GOMP_SPINCOUNT", given or "")
    if given is None:
        monkeypatch.delenv("GOMP_SPINCOUNT")
    main(["--version"])
    assert os.environ["GOMP_SPINCOUNT"] == kept


def test_bad_options_end_in_one_line(scenes, tmp_path, capsys):
    assert "unknown agent 'pilot'" in refusal(capsys, "drive", "--agent", "pilot", "--out", tmp_path / "o")
    assert "'moon'" in refusal(capsys, "drive", "--world", "moon", "--out", tmp_path / "o")
    assert "--seconds nan" in refusal(capsys, "drive", "--seconds", "nan", "--out", tmp_path / "o")
    assert "--seed -1" in refusal(capsys, "drive", "--seed", "-1", "--out", tmp_path / "o")
    assert "toaster" in refusal(
        capsys, "drive", "--device", "toaster", "--skip-video", "--out", tmp_path / "o"
    )
    assert "preset 'huge' is unknown" in refusal(capsys, "bench", "--preset", "huge")
    assert "exclude each other" in refusal(capsys, "bench", "--preset", "tiny", "--weights", "w.safetensors")
    said = refusal(capsys, "train", "tokenizer", "--preset", "huge", "--out", tmp_path / "o")
    assert "preset 'huge' is unknown" in said
    assert "must be positive" in refusal(
        capsys, "train", "tokenizer", "--steps", "0", "--out", tmp_path / "o"
    )
    assert "end in one of .mp4" in refusal(capsys, "render", "x.npz", "--out", "picture.webm")


def test_bad_scenes_end_in_one_line(tmp_path, capsys):
    out = ["--world", "replay", "--skip-video", "--out", tmp_path / "out", "--scenes"]
    (tmp_path / "empty").mkdir()
    foreign = tmp_path / "foreign.safetensors"
    foreign.write_bytes(b"PK\x03\x04 something else")
    assert "nowhere" in refusal(capsys, "drive", *out, "nowhere")
    assert "no scene file" in refusal(capsys, "drive", *out, tmp_path / "empty")
    assert "traffic:A-B" in refusal(capsys, "drive", *out, "traffic:9-2")
    assert "foreign" in refusal(capsys, "drive", *out, foreign)
    assert list((tmp_path / "out").iterdir()) == []


def test_bad_weights_end_in_one_line_and_leave_nothing_behind(scenes, tmp_path, capsys):
    def said(path: Path) -> str:
        out = tmp_path / "out"
        line = refusal(capsys, "drive", "--skip-video", "--weights", path, "--scenes", scenes, "--out", out)
        assert list(out.iterdir()) == []
        return line

    other = tmp_path / "other.safetensors"
    write_tensors(other, {"a": torch.zeros(2)}, {"kind": "tokenizer"})
    assert "'tokenizer'" in said(other)
    truncated = tmp_path / "truncated.safetensors"
    truncated.write_bytes(other.read_bytes()[:20])
    assert "truncated.safetensors" in said(truncated)
    foreign = tmp_path / "foreign.safetensors"
    foreign.write_text("weights, surely")
    assert "foreign.safetensors" in said(foreign)
    assert "no such weights file" in said(tmp_path / "missing.safetensors")


def test_a_place_that_cannot_be_written_is_said_before_any_work(scenes, tmp_path, capsys):
    (tmp_path / "file").write_text("mine")
    said = refusal(
        capsys, "drive", "--world", "replay", "--scenes", scenes, "--out", tmp_path / "file" / "below"
    )
    assert "a file is in the way" in said
    said = refusal(capsys, "bench", "--preset", "tiny", "--scenes", scenes, "--json", tmp_path)
    assert "is a folder" in said
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 truncated", b"\x93NUMPY\x01\x00"])
def test_a_rollout_that_is_none_is_refused(content, tmp_path, capsys):
    path = tmp_path / "rollout.npz"
    path.write_bytes(content)
    assert "rollout.npz" in refusal(capsys, "render", path, "--out", tmp_path / "film.mp4")
    assert not (tmp_path / "film.mp4").exists()


@pytest.mark.slow
@pytest.mark.skipif(not default_weights().exists(), reason="the shipped weights are not in this checkout")
def test_the_code_in_the_readme_drives():
    (code,) = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)[:1]
    assert "seconds=10.0" in code and len(code.splitlines()) <= 21
    names: dict = {}
    exec(code.replace("seconds=10.0", "seconds=2.0, starts=4"), names)
    assert names["env"].observation_space.contains(names["observation"])
    assert names["truncated"] and not names["terminated"], "it drives for as long as it is asked"


def test_plans_go_on_at_the_last_motion():
    # Two actions of two frames: 4 m and 8 m ahead, then 10 m and 20 m.
    asked = np.zeros((2, 2, 3), dtype=np.float32)
    asked[0, :, 0], asked[1, :, 0] = (4, 8), (10, 20)
    planned = plans(asked, frames=3)
    assert planned.shape == (5, 3, 3)
    assert planned[..., 0].tolist() == [[4, 8, 12], [4, 8, 12], [10, 20, 30], [10, 20, 30], [10, 20, 30]]
    assert np.abs(planned[..., 1:]).max() == 0
