"""How a command ends: its reader goes away, it is told to end, its films fail."""

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from occsora_sim import cli
from occsora_sim.commands.streams import PatientStream
from occsora_sim.errors import ConfigurationError, MissingDependencyError
from occsora_sim.interruption import Terminated, ended_by_signals
from occsora_sim.rendering.video import write_video
from occsora_sim.scenes import source
from occsora_sim.scenes.file import save_scene

COMMAND = [sys.executable, "-m", "occsora_sim.cli"]


def piped(*arguments: str) -> subprocess.CompletedProcess[str]:
    """A command whose standard output nobody reads."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        return subprocess.run([*COMMAND, *arguments], stdout=writer, stderr=subprocess.PIPE, text=True)
    finally:
        os.close(writer)


def test_a_reader_that_goes_away_ends_nothing_and_is_no_error(straight_road, tmp_path):
    save_scene(straight_road(steps=12), tmp_path / "a.safetensors")
    for arguments in (["--help"], ["scenes", "info", str(tmp_path), "--json", str(tmp_path / "info.json")]):
        done = piped(*arguments)
        assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "info.json").is_file()


def test_a_full_standard_output_is_one_line():
    with open("/dev/full", "w") as full:
        done = subprocess.run([*COMMAND, "--help"], stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 2
    assert (
        done.stderr.startswith("occsora-sim: standard output: No space left") and done.stderr.count("\n") == 1
    )


def test_a_stream_hands_on_what_is_not_writing():
    class Broken:
        encoding = "utf-8"

        def write(self, text):
            raise OSError(errno.EPIPE, "Broken pipe")

        def fileno(self):
            return os.open(os.devnull, os.O_WRONLY)

    stream = PatientStream(Broken(), "standard output")  # type: ignore[arg-type]
    assert stream.write("lost") == 4 and stream.encoding == "utf-8"


def test_told_to_end_a_command_ends_as_interrupted(monkeypatch, capsys):
    def told(arguments):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(10)

    monkeypatch.setattr(cli, "_run", told)
    assert cli.main([]) == 143 and capsys.readouterr().err == "interrupted\n"
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_a_signal_that_has_a_meaning_keeps_it(monkeypatch):
    met = []
    previous = signal.signal(signal.SIGHUP, lambda *_: met.append("mine"))
    try:
        with ended_by_signals():
            os.kill(os.getpid(), signal.SIGHUP)
            with pytest.raises(Terminated):
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(10)
    finally:
        signal.signal(signal.SIGHUP, previous)
    assert met == ["mine"]


@pytest.mark.slow
def test_told_to_end_no_town_worker_and_no_file_is_left(tmp_path):
    pytest.importorskip("libsumo", reason="towns need SUMO (the extra `traffic`)")
    temporary, cache = tmp_path / "t", tmp_path / "c"
    temporary.mkdir()
    environment = {**os.environ, "TMPDIR": str(temporary), source.CACHE_VARIABLE: str(cache)}
    command = [*COMMAND, "scenes", "make", "--scenes", "traffic:500000-500009", "--out", str(tmp_path / "o")]
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        until = time.monotonic() + 60
        while not list(temporary.glob("occsora-town-*/town.net.xml")) and time.monotonic() < until:
            time.sleep(0.05)
        tasks = Path(f"/proc/{process.pid}/task").iterdir()
        workers = [int(child) for task in tasks for child in (task / "children").read_text().split()]
        process.terminate()
        assert process.wait(30) == 143 and process.stderr is not None
        assert process.stderr.read() == "interrupted\n"
    assert workers and not [pid for pid in workers if Path(f"/proc/{pid}").exists()]
    assert not list(temporary.iterdir()) and not list(tmp_path.glob("*/.*"))


# --------------------------------------------------------------------------- films
def encoder(tmp_path: Path, monkeypatch, script: str) -> None:
    """Put a program of one's own in ffmpeg's place."""
    pytest.importorskip("imageio_ffmpeg", reason="videos need imageio-ffmpeg (the extra `view`)")
    program = tmp_path / "ffmpeg"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(program))


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ("cat >/dev/null; echo 'no such codec' >&2; exit 1", "failed .status 1.: no such codec"),
        ("exit 3", "failed .status 3.: it gave no reason"),
        (
            "head -c 1 >/dev/null; yes wrong | head -c 300000 >&2; exit 1",
            "failed .status 1.: wrong; wrong; wrong$",
        ),
        ("cat >/dev/null; exit 0", "wrote nothing"),
    ],
)
def test_an_encoder_that_fails_leaves_the_old_film_and_says_why(script, says, tmp_path, monkeypatch):
    encoder(tmp_path, monkeypatch, script)
    film = tmp_path / "films" / "film.mp4"
    film.parent.mkdir()
    film.write_text("a good film")
    picture = np.zeros((64, 64, 3), np.uint8)
    with pytest.raises(ConfigurationError, match=rf"^{film}: the video encoder {says}"):
        write_video(film, [picture] * 30, fps=4)
    assert film.read_text() == "a good film" and len(list(film.parent.iterdir())) == 1


def test_an_encoder_that_cannot_be_run_says_what_to_do(tmp_path, monkeypatch):
    encoder(tmp_path, monkeypatch, "")
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(tmp_path / "gone"))
    with pytest.raises(MissingDependencyError, match=r"cannot be run .No such file"):
        write_video(tmp_path / "film.mp4", [np.zeros((4, 4, 3), np.uint8)], fps=4)


@pytest.mark.parametrize("name", ["12:30", "-x", "a b,c", "50%d"])
def test_a_film_may_have_any_name(name, tmp_path, monkeypatch):
    pytest.importorskip("imageio_ffmpeg", reason="videos need imageio-ffmpeg (the extra `view`)")
    monkeypatch.chdir(tmp_path)
    path = Path(name) / f"{name}.mp4"
    assert write_video(path, [np.zeros((16, 16, 3), np.uint8)] * 2, fps=2) == 2
    assert path.stat().st_size > 100 and len(list(path.parent.iterdir())) == 1


def test_a_film_that_fails_loses_no_drive(straight_road, tmp_path, monkeypatch, capsys):
    pytest.importorskip("open3d", reason="films need Open3D (the extra `view`)")
    encoder(tmp_path, monkeypatch, "cat >/dev/null; exit 1")
    folder, out = tmp_path / "scenes", tmp_path / "out"
    folder.mkdir()
    save_scene(straight_road(cars=[(90.0, 0.0, 0.0)]), folder / "a.safetensors")
    monkeypatch.setattr(
        "occsora_sim.rendering.rollout.rollout_frames",
        lambda *_: iter([np.zeros((4, 4, 3), np.uint8)]),
    )
    options = [
        "--agent",
        "constant-velocity",
        "--world",
        "replay",
        "--scenes",
        str(folder),
        "--seconds",
        "13",
    ]
    assert cli.main(["drive", *options, "--out", str(out), "--json", str(tmp_path / "also.json")]) == 2
    captured = capsys.readouterr()
    assert (
        captured.err.count("\n") == 1
        and "the video encoder failed" in captured.err
        and "score" in captured.out
    )
    written = sorted(path.name for path in out.iterdir())
    assert {"rollout.npz", "rollout-2.npz", "summary.json"} <= set(written) and (
        tmp_path / "also.json"
    ).exists()
    assert not [name for name in written if name.endswith(".mp4") or name.startswith(".")]
