"""Claims that hold for every training: both precisions, exact resume from any file it wrote, refusal of other options,
one time budget.
"""

import errno
import math
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from forked import trained_together

from occsora_sim.checkpoint import read_header, read_tensors
from occsora_sim.cli import main
from occsora_sim.errors import CheckpointError, ConfigurationError
from occsora_sim.grid import TINY
from occsora_sim.models.occsora_world import OccSora
from occsora_sim.models.weights import save_world_model
from occsora_sim.models.world_model import WorldModel
from occsora_sim.presets import paper_tiny, tiny
from occsora_sim.scenes.file import save_scene
from occsora_sim.training import checkpoints, occsora, stages
from occsora_sim.training import loop as loop_module
from occsora_sim.training.encoder import EncoderTraining, train_encoder
from occsora_sim.training.ground.train import GroundTraining, train_ground
from occsora_sim.training.loop import LoopConfig
from occsora_sim.training.occsora import TokenizerTraining, WorldModelTraining
from occsora_sim.training.traffic import ROLLED, TrafficTraining, train_traffic

GROUND = {"preset": "tiny", "plan_steps": 2, "validate": ""}
TRAFFIC = {"preset": "tiny", "rollout_steps": 6, "rollout_frames": 1, "entry_steps": 2}

TRAININGS: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "traffic": (train_traffic, TrafficTraining, TRAFFIC),
    "traffic --init": (train_traffic, TrafficTraining, {"init": "world_model", **TRAFFIC}),
    "ground": (train_ground, GroundTraining, GROUND),
    "ground --init": (train_ground, GroundTraining, {"init": "world_model", **GROUND}),
    "encoder": (lambda options: train_encoder(options, TINY), EncoderTraining, {}),
    "tokenizer": (occsora.train_tokenizer, TokenizerTraining, {"preset": "paper-tiny"}),
    "world-model": (occsora.train_world_model, WorldModelTraining, {"tokenizer": "tokenizer"}),
    "world-model --pool": (occsora.train_world_model, WorldModelTraining, {"tokenizer": "tokenizer", "pool": 2}),
}  # fmt: skip
"""What trains, its options, and those that are not the defaults; weights by their names in `begin`."""

every_training = pytest.mark.parametrize("name", TRAININGS)


@pytest.fixture(scope="module")
def begin(tmp_path_factory) -> dict[str, Path]:
    """Weights with random numbers, to begin from."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("weights")
    models: dict[str, WorldModel | OccSora] = {
        "tokenizer": OccSora(paper_tiny()),
        "world_model": WorldModel(tiny()),
    }
    for name, model in models.items():
        kind = "world_model" if name == "world_model" else "tokenizer"
        save_world_model(model, folder / name, kind=kind, trained_on="nothing", recipe={})
    return {name: folder / name for name in models}


@pytest.fixture(scope="module")
def scenes(tmp_path_factory, straight_road) -> str:
    folder = tmp_path_factory.mktemp("scenes")
    save_scene(straight_road(cars=[(20.0, 0.0, 6.0), (25.0, -4.0, 0.0)]), folder / "road.safetensors")
    return str(folder)


@pytest.fixture(scope="module")
def begun(scenes, begin):
    """Trains by name in a folder: options of the loop by their names, others in `options`."""

    def call(name: str, out: Path, options: dict | None = None, **loop) -> Path:
        training, kind, own = TRAININGS[name]
        own = {
            key: begin.get(value, value) if isinstance(value, str) else value for key, value in own.items()
        }
        config = LoopConfig(
            **{"steps": 2, "batch": 2, "warmup": 1, "precision": "float32", "ema": 0.5, **loop}
        )
        return training(kind(**{"scenes": scenes, "out": out, "loop": config, **own, **(options or {})}))

    return call


@pytest.fixture
def train(begun, tmp_path):
    """As `begun`; the folder by its name."""
    return lambda name, out, options=None, **loop: begun(name, tmp_path / out, options, **loop)


@pytest.fixture(scope="module")
def finished(begun, tmp_path_factory):
    """A copy of a finished training of two steps, which is made once; returns the weights."""
    root, made = tmp_path_factory.mktemp("finished"), {}

    def copied(name: str, out: Path) -> Path:
        if name not in made:
            made[name] = begun(name, root / name)
        shutil.copytree(root / name, out)
        return out / made[name].name

    return copied


def numbers(path: Path) -> dict[str, torch.Tensor]:
    kind = {"encoder": "occupancy_encoder", "traffic": "traffic"}.get(path.stem, "tokenizer")
    try:
        return read_tensors(path, kind=kind)[0]
    except CheckpointError:
        return read_tensors(path, kind="world_model")[0]


def same(one: Path, two: Path) -> bool:
    a, b = numbers(one), numbers(two)
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


# --------------------------------------------------------------------------- precision
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@every_training
def test_every_stage_of_every_training_runs_in_every_precision(train, name, precision):
    weights = numbers(train(name, "run", precision=precision))
    assert all(value.isfinite().all() for value in weights.values() if value.is_floating_point())


def test_traffic_is_averaged_between_what_the_recording_and_what_own_rollouts_taught(finished, tmp_path):
    weights = numbers(finished("traffic", tmp_path / "run"))
    files = [tmp_path / "run" / part / "resume.safetensors" for part in ("", "rollouts")]
    ends = [read_tensors(path, kind="resume")[0] for path in files]
    ends = [{key.removeprefix("ema."): value for key, value in end.items()} for end in ends]
    before, after = ends
    changed = [
        name for name in before if f"traffic.{name}" in weights and not torch.equal(before[name], after[name])
    ]
    assert len(changed) > 10
    for name in changed:
        mean = (1 - ROLLED) * before[name] + ROLLED * after[name]
        torch.testing.assert_close(weights[f"traffic.{name}"], mean)


# --------------------------------------------------------------------------- resume
@pytest.mark.slow
@every_training
def test_a_training_that_is_interrupted_after_every_file_it_writes_ends_with_the_same_weights(
    train, finished, name, monkeypatch, tmp_path
):
    whole = finished(name, tmp_path / "whole")
    monkeypatch.setattr(loop_module, "CHECKPOINT_SECONDS", 0.0)  # a checkpoint after each step
    written: list[Path] = []

    def cut(write):
        def written_and_cut(place, tensors, header):
            write(place, tensors, header)
            if place.stem != "next":  # which becomes a checkpoint when it is whole
                written.append(place)
                raise KeyboardInterrupt

        return written_and_cut

    monkeypatch.setattr(checkpoints, "write_next", cut(checkpoints.write_next))
    monkeypatch.setattr(checkpoints, "write", cut(checkpoints.write))
    for _ in range(40):
        try:
            parts = train(name, "parts")
            break
        except KeyboardInterrupt:
            continue
    assert same(whole, parts)
    assert len(written) >= 2 and all(written.count(path) == 1 for path in written if path.stem == "pool")


@every_training
def test_a_finished_training_says_so_and_leaves_its_weights_alone(train, finished, name, capsys, tmp_path):
    weights = finished(name, tmp_path / "run")
    before = weights.stat()
    capsys.readouterr()
    assert train(name, "run") == weights
    said = capsys.readouterr().err
    assert said == f"{weights}: was finished before; more --steps or --minutes go on from here\n"
    assert weights.stat().st_mtime_ns == before.st_mtime_ns and weights.stat().st_ino == before.st_ino


@every_training
def test_a_finished_training_goes_on_where_more_steps_are_asked_for(train, finished, name, tmp_path):
    first = numbers(finished(name, tmp_path / "run"))
    path = train(name, "run", steps=3)
    second = numbers(path)
    assert any(not torch.equal(first[key], second[key]) for key in first)
    assert read_header(path.with_name("resume.safetensors"), kind="resume")["step"] == 3


@every_training
def test_other_options_in_the_same_folder_are_refused_in_one_line(
    train, finished, name, tmp_path, straight_road
):
    weights = finished(name, tmp_path / "run")
    before = weights.read_bytes()
    save_scene(straight_road(), tmp_path / "other.safetensors")
    other: list[tuple[dict, dict, str]] = [
        (
            {"scenes": str(tmp_path / "other.safetensors")},
            {},
            r"begun with --scenes \S*scenes\d, not \S*other",
        ),
        ({}, {"lr": 0.5}, "begun with --lr 0.0006, not 0.5"),
        ({}, {"precision": "bfloat16"}, "begun with --precision float32, not bfloat16"),
    ]
    if name.endswith("--init"):
        (tmp_path / "new").write_bytes(weights.read_bytes())
        other.append(
            ({"init": tmp_path / "new"}, {}, r"begun with --init world_model \(sha256 \w+\), not new")
        )
    if name in ("traffic", "ground"):
        other.append(({"init": tmp_path / "new"}, {}, "begun without --init, not with --init"))
    for options, loop, said in other:
        with pytest.raises(CheckpointError, match=said) as error:
            train(name, "run", options, **loop)
        assert str(error.value).endswith("use the same options or another --out")
        assert "\n" not in str(error.value)
    assert weights.read_bytes() == before


def test_other_weights_at_the_same_place_are_other_weights(train, begin, tmp_path):
    tokenizer = tmp_path / "tokenizer.safetensors"
    tokenizer.write_bytes(begin["tokenizer"].read_bytes())
    train("world-model", "run", {"tokenizer": tokenizer})
    torch.manual_seed(1)
    save_world_model(OccSora(paper_tiny()), tokenizer, kind="tokenizer", trained_on="nothing", recipe={})
    with pytest.raises(CheckpointError, match=r"--tokenizer tokenizer\.safetensors \(sha256"):
        train("world-model", "run", {"tokenizer": tokenizer})


def test_a_folder_of_another_command_is_refused(train, finished, tmp_path):
    finished("world-model", tmp_path / "run")
    with pytest.raises(CheckpointError, match="begun with command train world-model, not train encoder"):
        train("encoder", "run")


# --------------------------------------------------------------------------- processes
@pytest.mark.slow
@every_training
def test_two_processes_train_what_one_does_that_takes_its_batch_in_two_parts(train, name, tmp_path):
    batch = 4 if name.startswith("ground") else 2  # three crops of the plan, in parts of 1 and 2
    one = numbers(train(name, "one", batch=batch, accumulate=2))
    trained_together(2, lambda: train(name, "two", batch=batch), tmp_path / "log")
    two = numbers(train(name, "two", batch=batch))  # it was finished before: its path
    for key, value in one.items():
        if "running" not in key and "batches" not in key:  # statistics are of the first process alone
            torch.testing.assert_close(two[key], value, rtol=1e-4, atol=1e-5)


# --------------------------------------------------------------------------- time
def test_minutes_bound_all_stages_together_and_what_is_left_over_goes_to_later_ones(monkeypatch, tmp_path):
    now = [0.0]
    monkeypatch.setattr(stages.time, "monotonic", lambda: now[0])
    plan = [
        stages.Stage(name="first", steps=10, share=1),
        stages.Stage(name="none", steps=0, share=5),
        stages.Stage(name="main", steps=10, share=2, main=True),
        stages.Stage(name="last", steps=10, share=1),
    ]
    course = stages.Stages(tmp_path, 2.0, {}, plan, weights=tmp_path / "w")
    now[0] = 40.0  # spent on opening the scenes
    first = course.begin("first")
    assert first.title == "stage 1 of 3, first" and first.seconds == pytest.approx(80 / 4)
    assert first.progress(5) == 0.5
    now[0] += 15.0
    assert first.progress(5) == 0.75
    first.close(6)
    turn = course.begin("main")
    assert turn.seconds == pytest.approx(65 * 2 / 3)
    now[0] += 100.0
    assert turn.progress(0) == 1.0
    turn.close(3)
    assert course.begin("last").progress(0) == 1.0


def test_drawing_a_pool_ends_in_time_and_the_steps_have_the_rest(monkeypatch, tmp_path, capsys):
    now = [0.0]
    monkeypatch.setattr(stages.time, "monotonic", lambda: now[0])
    course = stages.Stages(
        tmp_path, 1.0, {}, [stages.Stage(name="only", steps=10, main=True)], weights=tmp_path
    )
    turn = course.begin("only")

    def draw() -> occsora.Encoded:
        drawn = []
        for number in turn.draws(100):
            now[0] += 10.0
            drawn.append(number)
        return occsora.Encoded(latents=torch.tensor(drawn), prompt=torch.zeros(0))

    pool = turn.pool(occsora.Encoded, draw, "cpu")
    assert pool.latents.tolist() == [0, 1, 2] and "3 of 100" in capsys.readouterr().err
    assert turn.progress(0) == 0.0
    now[0] += 15.0
    assert turn.progress(0) == 0.5
    later = stages.Stages(tmp_path, 1.0, {}, course.stages, weights=tmp_path).begin("only")
    assert torch.equal(later.pool(occsora.Encoded, draw, "cpu").latents, pool.latents)
    assert later.spent == pytest.approx(30.0) and later.progress(0) == 0.0


def test_ground_that_has_no_time_is_written_all_the_same_and_was_finished(train, capsys):
    weights = train("ground", "run", steps=1000, minutes=1e-6)
    said = capsys.readouterr().err
    for number, name in enumerate(("plan", "ground"), 1):
        assert f"stage {number} of 2, {name}: done after 0 of" in said
    before = weights.stat().st_mtime_ns
    train("ground", "run", steps=1000, minutes=1e-6)
    assert weights.stat().st_mtime_ns == before


def test_stages_before_the_main_one_stay_and_those_after_it_are_trained_again(
    train, finished, tmp_path, capsys
):
    finished("traffic", tmp_path / "run")
    first = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("resume.safetensors")}
    train("traffic", "run", steps=3)
    changed = {path.parent.name for path, written in first.items() if path.stat().st_mtime_ns != written}
    assert changed == {"run", "rollouts", "entries"}
    finished("ground", tmp_path / "on")
    capsys.readouterr()
    train("ground", "on", steps=3)
    assert "stage 1 of 2, plan: 2 of 2 steps done before" in capsys.readouterr().err


@pytest.mark.parametrize("minutes", [-1.0, math.nan, math.inf])
def test_minutes_that_are_no_time_are_refused(minutes):
    with pytest.raises(ConfigurationError, match="minutes"):
        LoopConfig(minutes=minutes)


@pytest.mark.parametrize("option", ["--rollout-frames=0", "--entry-steps=-1"])
def test_stages_that_cannot_be_are_refused_in_one_line(option, capsys, tmp_path):
    assert main(["train", "traffic", option, "--out", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and option.split("=")[0] in said


def test_a_stage_of_no_steps_is_left_out(train, capsys):
    train("traffic", "run", {"rollout_steps": 0})
    assert "stage 2 of 2, entries" in capsys.readouterr().err


# --------------------------------------------------------------------------- interruption and a full disk
@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_a_training_in_one_line_with_its_checkpoint_whole(
    scenes, begin, tmp_path, number, status
):
    out = tmp_path / "run"
    command = [
        sys.executable, "-m", "occsora_sim.cli", "train", "world-model", "--tokenizer", str(begin["tokenizer"]),
        "--scenes", scenes, "--steps", "100000", "--batch", "1", "--checkpoint-every", "1", "--out", str(out),
        "--precision", "float32", "--log-every", "100000",
    ]  # fmt: skip
    run = subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # background jobs of a shell ignore it
    )  # fmt: skip
    end = time.monotonic() + 60
    while not (out / "resume.safetensors").exists() and time.monotonic() < end and run.poll() is None:
        time.sleep(0.05)
    run.send_signal(number)
    err = run.communicate(timeout=60)[1]
    assert run.returncode == status and err.splitlines()[-1] == "interrupted" and "Traceback" not in err, err
    read_tensors(out / "resume.safetensors", kind="resume")
    assert not list(out.glob(".*tmp*"))


@contextmanager
def no_file_beyond(size: int):
    """No file may grow beyond `size` bytes, as if the disk were full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_leaves_the_checkpoint_before_and_ends_in_one_line(scenes, begin, tmp_path, capsys):
    arguments = [
        "train", "world-model", "--tokenizer", str(begin["tokenizer"]), "--scenes", scenes, "--batch", "1",
        "--precision", "float32", "--out", str(tmp_path / "run"),
    ]  # fmt: skip
    assert main([*arguments, "--steps", "1"]) == 0
    resume = tmp_path / "run" / "resume.safetensors"
    before = resume.read_bytes()
    capsys.readouterr()
    with no_file_beyond(len(before) // 2):
        assert main([*arguments, "--steps", "2"]) == 2
    said = capsys.readouterr().err.splitlines()
    assert "next.safetensors: cannot be written (File too large)" in said[-1]
    assert resume.read_bytes() == before and not list(resume.parent.glob(".*tmp*"))


def test_curves_that_cannot_be_written_end_a_training_in_one_line(train, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("torch.utils.tensorboard.SummaryWriter.add_scalar", full)
    with pytest.raises(CheckpointError, match=r"^[^\n]*tensorboard: cannot be written \(No space[^\n]*$"):
        train("encoder", "run")
