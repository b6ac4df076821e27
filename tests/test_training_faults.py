"""Claims on what a training goes on from when something has failed: a process killed, a disk full, a file damaged."""

import importlib.util
import os
import resource
import struct
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from forked import begin, ends
from line_training import equal, fit
from torch import Tensor

from occsora_sim.checkpoint import read_header, write_tensors
from occsora_sim.errors import CheckpointError
from occsora_sim.scenes.file import save_scene
from occsora_sim.training import checkpoints
from occsora_sim.training.checkpoints import previous_file, resume_file
from occsora_sim.training.ground.towns import GroundTowns
from occsora_sim.training.ground.towns_file import kept_towns
from occsora_sim.training.stages import Stage, Stages

EXPERIMENT = Path(__file__).parent.parent / "experiments" / "kills.py"


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def flipped(path: Path) -> None:
    """One bit of the numbers is another."""
    content = bytearray(path.read_bytes())
    content[-3] ^= 4
    path.write_bytes(content)


def retold(path: Path) -> None:
    """One digit of the header is another: the step."""
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    head = content[8 : 8 + length].replace(b'step\\": ', b'step\\":1')
    assert len(head) == length and head != content[8 : 8 + length]
    path.write_bytes(content[:8] + head + content[8 + length :])


every_damage = pytest.mark.parametrize("damage", [truncated, emptied, flipped, retold])


@contextmanager
def no_file_beyond(size: int):
    """No file may grow beyond `size` bytes, as if the disk were full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture
def whole(tmp_path) -> Path:
    """A training of six steps that nothing happened to."""
    fit(tmp_path / "whole")
    return tmp_path / "whole"


@pytest.fixture
def run(tmp_path) -> Path:
    """The same, after five steps; it has checkpoints of four and five."""
    fit(tmp_path / "run", 5)
    steps = [
        read_header(file(tmp_path / "run"), kind="resume")["step"] for file in (previous_file, resume_file)
    ]
    assert steps == [4, 5]
    return tmp_path / "run"


# --------------------------------------------------------------------------- damaged files
@every_damage
def test_a_damaged_checkpoint_is_named_in_a_line_and_the_one_before_it_is_used(whole, run, capsys, damage):
    damage(resume_file(run))
    capsys.readouterr()
    fit(run)
    said = capsys.readouterr().err.splitlines()
    assert said[0].startswith(f"{resume_file(run)}: damaged") and said[0].endswith("the checkpoint before it")
    assert "4 of 6 steps done before" in said[1]
    assert equal(whole, run)


def test_a_checkpoint_that_was_being_put_in_its_place_is_as_good_as_the_one_before(whole, run):
    os.replace(resume_file(run), run / "next.safetensors")
    fit(run)
    assert equal(whole, run) and not (run / "next.safetensors").exists()


def test_a_damaged_first_checkpoint_begins_anew_and_two_damaged_ones_are_refused_in_one_line(
    whole, run, capsys
):
    flipped(previous_file(run))
    flipped(resume_file(run))
    with pytest.raises(
        CheckpointError, match=r"^[^\n]*resume[^\n]*previous[^\n]*; delete both to begin anew$"
    ):
        fit(run)
    previous_file(run).unlink()
    capsys.readouterr()
    fit(run)
    assert "there is none before it, beginning anew" in capsys.readouterr().err and equal(whole, run)


def test_a_checkpoint_without_a_checksum_is_read_and_another_thing_is_refused(whole, run):
    tensors, header = checkpoints.read(resume_file(run), kind="resume")
    write_tensors(resume_file(run), tensors, header)
    fit(run)
    assert equal(whole, run)
    write_tensors(resume_file(run), {}, {"kind": "world_model"})
    with pytest.raises(CheckpointError, match="holds a"):
        fit(run)


@dataclass(frozen=True, kw_only=True)
class Numbers:
    """A pool."""

    numbers: Tensor


@pytest.mark.parametrize("damage", [truncated, emptied, flipped])
def test_a_damaged_pool_is_named_and_drawn_again(tmp_path, capsys, damage):
    drawn: list[int] = []

    def pool() -> Tensor:
        stages = Stages(tmp_path, 0.0, {}, [Stage(name="only", steps=1, main=True)], weights=tmp_path / "w")

        def draw() -> Numbers:
            drawn.append(len(drawn))
            return Numbers(numbers=torch.arange(100))

        return stages.begin("only").pool(Numbers, draw, "cpu").numbers

    assert torch.equal(pool(), pool()) and drawn == [0]
    damage(tmp_path / "pool.safetensors")
    capsys.readouterr()
    assert torch.equal(pool(), torch.arange(100)) and drawn == [0, 1]
    said = capsys.readouterr().err.splitlines()[0]
    assert said.startswith(f"{tmp_path}/pool.safetensors: damaged") and said.endswith("; it is drawn again")


def test_damaged_places_are_named_and_made_again(tmp_path, capsys):
    tensors = {"palette": torch.zeros(2, 3, dtype=torch.uint8)}
    made = []

    def make() -> GroundTowns:
        made.append(0)
        towns = GroundTowns.__new__(GroundTowns)
        towns.tensors, towns.names, towns.cell = tensors, [], 0.2
        return towns

    path = tmp_path / "towns.safetensors"
    kept_towns(path, {"scenes": "a"}, make)
    flipped(path)
    kept_towns(path, {"scenes": "a"}, make)
    assert len(made) == 2 and "damaged (its checksum is wrong); it is made again" in capsys.readouterr().err


# --------------------------------------------------------------------------- a full disk, a killed process
def test_a_full_disk_ends_a_training_in_one_line_and_leaves_both_checkpoints(whole, run):
    before = {file(run): file(run).read_bytes() for file in (previous_file, resume_file)}
    with no_file_beyond(len(before[resume_file(run)]) // 2):
        with pytest.raises(CheckpointError, match=r"^[^\n]*cannot be written[^\n]*make room[^\n]*$"):
            fit(run)
    assert {path: path.read_bytes() for path in before} == before
    fit(run)
    assert equal(whole, run)


def test_what_a_killed_process_was_writing_is_cleared_away(run):
    left = run / ".next.4711.0.tmp.safetensors"
    left.write_bytes(b"half a file")
    fit(run)
    assert not left.exists()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.parametrize("at", ["written", "kept", "placed"])
def test_killed_at_each_moment_of_writing_a_checkpoint_a_training_ends_with_the_same_weights(
    whole, tmp_path, at
):
    """The moments between: the next one whole, the last one kept as the one before, the next one in its place."""
    out = tmp_path / "killed"
    fit(out, 3)

    def killed() -> None:
        calls, replace = [0], os.replace

        def cut(source, target) -> None:
            if Path(target).parent == out:
                moment = {"written": 1, "kept": 2, "placed": 3}[at]
                calls[0] += 1
                if calls[0] == moment + 1:
                    os.kill(os.getpid(), 9)
            replace(source, target)

        os.replace = cut  # type: ignore[assignment]
        fit(out)

    assert ends([begin(killed, tmp_path / "log.txt")]) == [-9]
    fit(out)
    assert equal(whole, out)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_training_that_is_killed_at_random_ends_with_the_weights_of_one_left_alone(tmp_path, straight_road):
    spec = importlib.util.spec_from_file_location("kills", EXPERIMENT)
    assert spec is not None and spec.loader is not None
    kills = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(kills)
    save_scene(straight_road(cars=[(20.0, 0.0, 6.0)]), tmp_path / "road.safetensors")
    ended, right = kills.endure(
        str(tmp_path / "road.safetensors"), tmp_path / "runs", kills=4, steps=4, seed=0
    )
    assert right == ended >= 1
