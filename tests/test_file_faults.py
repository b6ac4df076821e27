"""Full disks, folders that cannot be written, Ctrl-C: one line, the right exit status, and nothing half-written."""

import os
import resource
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from small_rollout import small_rollout

from occsora_sim.cli import main
from occsora_sim.rendering.rollout import save_rollout
from occsora_sim.scenes.file import save_scene

EDIT = '{"class": "car", "x": 20, "y": 0}'

EVALUATE = "evaluate agent --world replay --scenes SCENES --episodes 1 --seconds 2"

COMMANDS = {
    "drive": "drive --world replay --scenes SCENES --seconds 2 --skip-video --out OUT",
    "drive --json": "drive --world replay --scenes SCENES --seconds 2 --skip-video --out TEMP --json OUT/a.json",
    "play": "play --world replay --scenes SCENES --no-open --out OUT",
    "render .png": "render ROLLOUT --out OUT/a.png",
    "render .gif": "render ROLLOUT --smooth 1 --out OUT/a.gif",
    "render .mp4": "render ROLLOUT --smooth 1 --out OUT/a.mp4",
    "render .html": "render ROLLOUT --out OUT/a.html",
    "render .ply": "render ROLLOUT --out OUT/a.ply",
    "view --html": "view ROLLOUT --html OUT/a.html",
    "scenes make": "scenes make --scenes SCENES --out OUT",
    "scenes edit": "scenes edit SCENES --out OUT/a.safetensors --road-users EDIT",
    "scenes info --json": "scenes info SCENES --json OUT/a.json",
    "evaluate agent --json": f"{EVALUATE} --json OUT/a.json",
    "evaluate agent --report": f"{EVALUATE} --report OUT/a.html",
    "weights info --json": "weights info WEIGHTS --json OUT/a.json",
}
"""Commands that write, by name."""

LIMIT = 100
"""Bytes that a file may have on the disk that is full: less than any of these files."""


@pytest.fixture(scope="module")
def inputs(tmp_path_factory, straight_road):
    from occsora_sim.agents.learned import shipped_policy

    folder = tmp_path_factory.mktemp("inputs")
    save_scene(straight_road(steps=61), folder / "road.safetensors")
    save_rollout(small_rollout(frames=2), folder / "rollout.npz")
    return {
        "SCENES": folder / "road.safetensors",
        "ROLLOUT": folder / "rollout.npz",
        "WEIGHTS": shipped_policy(),
        "TEMP": folder / "elsewhere",
    }


def arguments(command: str, inputs: dict[str, Path], out: Path) -> list[str]:
    """The words of a command with its inputs and its place to write to."""
    words = {**inputs, "OUT": out, "EDIT": EDIT}
    made = []
    for word in COMMANDS[command].split():
        name, slash, rest = word.partition("/")
        made.append(f"{words[name]}{slash}{rest}" if name in words else word)
    return made


def files(folder: Path) -> list[str]:
    """Every file in a folder, hidden ones too."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def one_line(said: str) -> str:
    """What was said on standard error, which is one line of ours."""
    lines = said.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("occsora-sim: "), said
    return lines[0]


@contextmanager
def full_disk():
    """Within the block no file grows beyond some bytes: root ignores quotas and modes, but not this limit."""
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


WRITERS = [name for name in COMMANDS if name != "play"]
"""Those that write without somebody who drives."""

QUICK = [name for name in WRITERS if name != "scenes edit"]
"""Without the one that draws 64 starts first."""


@pytest.mark.parametrize("command", WRITERS)
def test_a_full_disk_is_one_line_and_leaves_nothing_half_written(command, inputs, tmp_path, capsys):
    out = tmp_path / "out"
    with full_disk():
        status = main(arguments(command, inputs, out))
    reason = (
        "the video encoder failed" if command.endswith(".mp4") else "File too large"
    )  # the limit kills a child
    assert status == 2 and reason in one_line(capsys.readouterr().err)
    assert files(out) == []


@pytest.mark.parametrize("command", QUICK)
def test_a_full_disk_leaves_what_was_there(command, inputs, tmp_path, capsys):
    out = tmp_path / "out"
    words = arguments(command, inputs, out)
    places = [Path(word) for word in words if str(out) + "/" in word]
    for place in places or [out / "rollout.npz", out / "summary.json"]:
        place.parent.mkdir(exist_ok=True)
        place.write_text("old")
    before = files(out)
    with full_disk():
        assert main(words) == 2
    assert files(out) == before and {(out / name).read_text() for name in before} == {"old"}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_place_that_cannot_be_written_is_said_before_any_work(
    command, inputs, tmp_path, capsys, monkeypatch
):
    (tmp_path / "file").write_text("mine")
    for out in (tmp_path / "file" / "below", Path("/proc/nowhere")):
        assert main(arguments(command, inputs, out)) == 2
        one_line(capsys.readouterr().err)
    assert files(tmp_path) == ["file"] and (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("command", QUICK)
def test_ctrl_c_while_a_file_is_written_leaves_none(command, inputs, tmp_path, capsys, monkeypatch):
    def stop(*_):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(10)

    monkeypatch.setattr(os, "replace", stop)
    out = tmp_path / "out"
    assert main(arguments(command, inputs, out)) == 130
    assert capsys.readouterr().err == "interrupted\n"
    assert files(out) == []


@pytest.mark.slow
def test_ctrl_c_ends_a_process_of_its_own(inputs, tmp_path):
    words = arguments("render .mp4", inputs, tmp_path / "out")
    words[words.index("--smooth") + 1] = "500"
    program = subprocess.Popen(
        [sys.executable, "-m", "occsora_sim.cli", *words], stderr=subprocess.PIPE, text=True
    )
    until = time.monotonic() + 120
    while not files(tmp_path) and time.monotonic() < until:
        time.sleep(0.05)
    program.send_signal(signal.SIGINT)
    _, said = program.communicate(timeout=120)
    assert (program.returncode, said) == (130, "interrupted\n")
    assert files(tmp_path) == []
