"""Claims on training in many processes: the batch, the weights and the files of one, and one lost process of two."""

import itertools
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from forked import begin_together, ends, trained_together
from line_training import equal, fit, state
from torch import nn

from occsora_sim.checkpoint import read_header, read_tensors
from occsora_sim.cli import main
from occsora_sim.errors import ConfigurationError
from occsora_sim.presets import paper_tiny, tiny
from occsora_sim.scenes.file import save_scene
from occsora_sim.training.clips import ClipSampler
from occsora_sim.training.prefetch import Prefetcher
from occsora_sim.training.processes import WHOLE, Part, mean, parts
from occsora_sim.training.traffic_rollouts import RolloutSampler
from occsora_sim.training.traffic_windows import TrafficSampler
from occsora_sim.training.windows import WindowSampler

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")

HALVES = (Part(index=0, of=2), Part(index=1, of=2))


# --------------------------------------------------------------------------- parts of a batch
@pytest.mark.parametrize(("count", "of"), [(8, 1), (8, 2), (6, 4), (3, 3), (2, 3)])
def test_parts_of_a_batch_are_the_batch(count, of):
    rows = list(range(count))
    cut = [Part(index=index, of=of).cut(rows) for index in range(of)]
    assert list(itertools.chain(*cut)) == rows
    assert [Part(index=index, of=of).size(count) for index in range(of)] == [len(part) for part in cut]
    assert max(map(len, cut)) - min(map(len, cut)) <= 1


def test_the_rows_of_a_batch_are_the_same_in_one_part_and_in_two(straight_road):
    road = straight_road(cars=[(20.0, 0.0, 6.0), (45.0, -2.0, 0.0)])
    clips = ClipSampler([road], paper_tiny().grid, frames=8)
    windows = WindowSampler([road], tiny().grid)
    for whole, halves in (
        (clips.draw(4, 3).poses, [clips.draw(4, 3, part).poses for part in HALVES]),
        (windows.draw(4, 3).labels, [windows.draw(4, 3, part).labels for part in HALVES]),
    ):
        assert torch.equal(whole, torch.cat(halves))
    traffic = TrafficSampler([road], nudged=0.0, blurred=0.0, hidden=0.0)
    for draw in (traffic.draw, traffic.draw_movers):
        assert torch.equal(draw(4, 3).ego[:, 0], torch.cat([draw(4, 3, part).ego[:, 0] for part in HALVES]))
        now = [draw(4, 3, part).users.now[:, 0] for part in (WHOLE, *HALVES)]
        assert torch.equal(now[0], torch.cat(now[1:]))
    own = [RolloutSampler(nn.Module(), traffic, 3, part) for part in (WHOLE, *HALVES)]  # type: ignore[arg-type]
    for sampler in own:
        sampler.draw(4, 0)
    assert own[0].rows == own[1].rows + own[2].rows


def test_parts_are_drawn_ahead_in_the_order_in_which_they_are_asked_for(straight_road):
    road = straight_road(cars=[(20.0, 0.0, 6.0)])
    sampler = WindowSampler([road], tiny().grid)
    ahead = Prefetcher(sampler, 1, "cpu", HALVES)
    for step, part in itertools.product((4, 5), HALVES):
        assert torch.equal(ahead.draw(2, step, part).labels, sampler.draw(2, step, part).labels)


def test_one_process_has_all_parts_and_their_noise_differs():
    assert parts(1) == (WHOLE,) and parts(2) == HALVES
    draws = [torch.rand(3, generator=part.generator(5)) for part in (WHOLE, *HALVES)]
    assert torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[2])
    assert mean([{"a": 1.0, "b": 4.0}, {"a": 3.0}]) == {"a": 2.0, "b": 4.0}


# --------------------------------------------------------------------------- weights
def test_two_processes_end_with_the_weights_of_one_that_takes_its_batch_in_two_parts(tmp_path):
    fit(tmp_path / "parts", accumulate=2)
    trained_together(2, lambda: fit(tmp_path / "two"), tmp_path / "log")
    assert equal(tmp_path / "parts", tmp_path / "two")  # sums of two numbers, divided by two: bit for bit
    fit(tmp_path / "one")
    one, two = state(tmp_path / "one"), state(tmp_path / "two")
    for name in one:
        torch.testing.assert_close(two[name], one[name], rtol=1e-5, atol=1e-6)


def test_parts_that_are_not_as_large_count_by_their_rows(tmp_path):
    fit(tmp_path / "one")
    trained_together(2, lambda: fit(tmp_path / "six", accumulate=2), tmp_path / "log")
    fit(tmp_path / "three", accumulate=3)
    for name, value in state(tmp_path / "one").items():
        for other in ("six", "three"):
            torch.testing.assert_close(state(tmp_path / other)[name], value, rtol=1e-5, atol=1e-6)


def test_the_first_process_alone_writes_and_tells_and_both_follow_its_clock(tmp_path, capfd):
    trained_together(2, lambda: fit(tmp_path / "two", 100_000, minutes=0.02), tmp_path / "log")
    first, second = ((tmp_path / "log" / f"{rank}.txt").read_text() for rank in range(2))
    assert "done after" in first and second == ""
    assert len(list((tmp_path / "two" / "tensorboard").iterdir())) == 1
    assert read_header(tmp_path / "two" / "resume.safetensors", kind="resume")["stopped"]


def test_a_batch_of_fewer_windows_than_parts_is_refused_in_one_line(tmp_path):
    with pytest.raises(ConfigurationError, match="a batch of 4 cannot be taken in 5 parts"):
        fit(tmp_path, accumulate=5)
    assert not list(tmp_path.iterdir())


# --------------------------------------------------------------------------- a lost process
@pytest.mark.parametrize("lost", [0, 1])
def test_a_process_that_is_lost_ends_the_others_in_one_line_and_the_training_goes_on(tmp_path, lost):
    fit(tmp_path / "whole", accumulate=2)

    def work() -> None:
        fit(tmp_path / "run", kill_at=3 if lost else None)

    children = begin_together(2, work, tmp_path / "log")
    if not lost:  # the one that writes, as soon as it has written
        while not (tmp_path / "run" / "resume.safetensors").exists():
            time.sleep(0.001)
        os.kill(children[0], signal.SIGKILL)
    statuses = ends(children)
    if statuses != [0, 0]:  # the first may have been done before it was killed
        assert statuses[lost] == -signal.SIGKILL and statuses[1 - lost] in (0, 2)
    if statuses[1 - lost] == 2:
        said = (tmp_path / "log" / f"{1 - lost}.txt").read_text().splitlines()[-1]
        assert said.startswith(
            f"process {1 - lost}: another process of this training has ended; the same command"
        )
    trained_together(2, lambda: fit(tmp_path / "run"), tmp_path / "again")
    assert equal(tmp_path / "whole", tmp_path / "run")


def test_who_begins_again_finds_the_others_of_this_attempt_in_the_store_that_torchrun_kept(tmp_path):
    store = torch.distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    kept = {"MASTER_PORT": str(store.port), "TORCHELASTIC_USE_AGENT_STORE": "True"}

    def second_first() -> None:
        if os.environ["RANK"] == "0":
            time.sleep(1.0)  # by now the second has asked the store where the first is

    for attempt in range(2):
        environment = {**kept, "TORCHELASTIC_RESTART_COUNT": str(attempt)}
        children = begin_together(2, lambda: None, tmp_path / str(attempt), environment, before=second_first)
        assert ends(children, 60.0) == [0, 0], (tmp_path / str(attempt) / "1.txt").read_text()


LOSES_ONE = """
import os, signal, sys
from pathlib import Path
from occsora_sim.cli import main
from occsora_sim.training import loop
rate, mark = loop.learning_rate, Path(sys.argv.pop())
def lost_once(config, progress, step):
    if step == 3 and os.environ["RANK"] == "1" and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return rate(config, progress, step)
loop.learning_rate = lost_once
sys.exit(main())
"""


@pytest.mark.slow
def test_torchrun_begins_again_where_a_worker_was_lost_and_ends_with_the_same_weights(
    tmp_path, straight_road, capsys
):
    save_scene(straight_road(cars=[(20.0, 0.0, 6.0)]), tmp_path / "road.safetensors")
    command = [
        "train", "tokenizer", "--preset", "paper-tiny", "--scenes", str(tmp_path / "road.safetensors"), "--steps", "5",
        "--batch", "2", "--checkpoint-every", "2", "--precision", "float32", "--ema", "0.5",
    ]  # fmt: skip
    (tmp_path / "loses_one.py").write_text(LOSES_ONE)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--max-restarts", "1"]
    ran = subprocess.run(
        [*torchrun, str(tmp_path / "loses_one.py"), *command, "--out", str(tmp_path / "two"), str(tmp_path / "mark")],
        env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    weights = tmp_path / "two" / "tokenizer.safetensors"
    assert ran.stdout.split() == [str(weights)] and (tmp_path / "mark").exists()
    assert "2 of 5 steps done before" in ran.stderr
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as there: Adam makes much of what gradients of nothing round to
    assert main([*command, "--out", str(tmp_path / "one"), "--accumulate", "2"]) == 0
    torch.set_num_threads(threads)
    one, two = (
        read_tensors(tmp_path / name / "tokenizer.safetensors", kind="tokenizer")[0]
        for name in ("one", "two")
    )
    for name, value in one.items():
        if (
            "running" not in name and "batches" not in name
        ):  # those of the first process alone, or of all parts
            torch.testing.assert_close(two[name], value, rtol=1e-5, atol=1e-6, msg=name)


def test_what_runs_in_one_process_says_so(monkeypatch, tmp_path, capsys):
    pytest.importorskip(
        "stable_baselines3", reason="policies are trained by Stable-Baselines3 (the extra `rl`)"
    )
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main(["train", "agent", "--out", str(tmp_path)]) == 2
    assert capsys.readouterr().err == (
        "occsora-sim: train agent runs in one process; start it without torchrun\n"
    )
