"""`occsora-sim doctor`: what is missing is found and named with its remedy; only a core that cannot run is an error."""

import importlib.metadata
import importlib.util
import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from occsora_sim.cli import main
from occsora_sim.commands import installation
from occsora_sim.commands.doctor import print_report
from occsora_sim.commands.installation import Finding, examine, in_process
from occsora_sim.errors import ConfigurationError, MissingDependencyError

PROJECT = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())["project"]
WEIGHTS = Path(__file__).parent.parent / "assets" / "weights" / "small.safetensors"


@pytest.fixture
def quick(monkeypatch, tmp_path):
    """No library is loaded in a process of its own, and the cache is empty."""
    monkeypatch.setattr(installation, "in_process", lambda check: f"{check} works")
    monkeypatch.setenv("OCCSORA_SIM_CACHE", str(tmp_path / "towns"))


def found() -> dict[str, Finding]:
    return {finding.name: finding for finding in examine()}


def without(monkeypatch, module: str) -> None:
    """Let the import of `module` fail as where it is not installed."""
    real, spec = importlib.import_module, importlib.util.find_spec

    def import_module(name, package=None):
        if name.split(".")[0] == module:
            raise ModuleNotFoundError(f"No module named '{name}'", name=name)
        return real(name, package)

    monkeypatch.setattr(importlib, "import_module", import_module)
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, package=None: None if name == module else spec(name, package),
    )


def test_the_core_is_what_the_package_depends_on():
    assert {Requirement(line).name for line in PROJECT["dependencies"]} == set(installation.CORE)


def test_every_remedy_names_an_extra_that_exists():
    source = Path(installation.__file__).read_text()
    named = {part.split("]")[0] for part in source.split("occsora-sim[")[1:]} - {"{group}"}
    assert named | {"train", "rl"} <= set(PROJECT["optional-dependencies"])


def test_where_all_is_well_the_report_is_one_screen_and_the_status_0(quick, capsys, tmp_path):
    assert main(["doctor", "--json", str(tmp_path / "found.json")]) == 0
    shown = capsys.readouterr().out
    assert len(shown.splitlines()) <= 24 and f"torch {importlib.metadata.version('torch')}" in shown
    report = json.loads((tmp_path / "found.json").read_text())
    assert report["usable"] and {"name", "state", "told", "remedy"} == report["findings"][0].keys()
    assert {each["name"] for each in report["findings"]} >= {
        "packages", "processor", "memory", "CUDA", "bfloat16", "Open3D", "video", "SUMO", "TensorBoard", "towns",
        "weights",
    }  # fmt: skip


def test_without_torch_the_line_that_installs_it_is_told_and_the_status_is_2(quick, monkeypatch, capsys):
    without(monkeypatch, "torch")
    assert main(["doctor"]) == 2
    captured = capsys.readouterr()
    assert "no torch (No module named 'torch')" in captured.out
    assert "  pip install --upgrade torch\n" in captured.out
    assert captured.err == "occsora-sim: the simulator cannot run here: packages; see the remedies above\n"


@pytest.mark.parametrize("content", [None, b"", b"no safetensors"], ids=["missing", "empty", "foreign"])
def test_weights_that_cannot_be_read_are_told_and_the_status_is_2(
    quick, monkeypatch, capsys, tmp_path, content
):
    path = tmp_path / "small.safetensors"
    if content is not None:
        path.write_bytes(content)
    monkeypatch.setattr("occsora_sim.worlds.diffusion.default_weights", lambda: path)
    assert main(["doctor"]) == 2
    captured = capsys.readouterr()
    assert f"broken   weights            {path}: " in captured.out and "git checkout" in captured.out
    assert captured.err.count("\n") == 1 and "weights" in captured.err


def test_truncated_weights_are_found(quick, monkeypatch, tmp_path):
    whole = WEIGHTS.read_bytes()
    path = tmp_path / "small.safetensors"
    path.write_bytes(whole[: len(whole) // 2])
    monkeypatch.setattr("occsora_sim.worlds.diffusion.default_weights", lambda: path)
    assert found()["weights"].state == "broken"


@pytest.mark.parametrize(
    ("module", "name", "extra"),
    [
        ("tensorboard", "TensorBoard", "train"),
        ("stable_baselines3", "Stable-Baselines3", "rl"),
        ("ray", "Ray", "ray"),
    ],
)
def test_an_extra_that_is_missing_is_told_and_is_no_error(quick, monkeypatch, capsys, module, name, extra):
    without(monkeypatch, module)
    assert main(["doctor"]) == 0
    shown = capsys.readouterr().out
    assert f"missing  {name}" in shown and f'  pip install "occsora-sim[{extra}]"\n' in shown


def test_without_sumo_open3d_and_ffmpeg_each_is_told_once(monkeypatch, capsys, tmp_path):
    remedies = {"draw": "pip install 'occsora-sim[view]'", "simulate": 'pip install "occsora-sim[traffic]"'}

    def refuse(check):
        raise ConfigurationError(f"{check}: not installed: {remedies[check]}")

    def no_ffmpeg():
        raise MissingDependencyError(f"videos need imageio-ffmpeg: {remedies['draw']}")

    monkeypatch.setattr(installation, "in_process", refuse)
    monkeypatch.setattr("occsora_sim.rendering.encoder.find_ffmpeg", no_ffmpeg)
    monkeypatch.setenv("OCCSORA_SIM_CACHE", str(tmp_path))
    assert main(["doctor"]) == 0
    shown = capsys.readouterr().out
    assert [shown.count(remedy) for remedy in remedies.values()] == [1, 1]
    assert [finding.state for name, finding in found().items() if name in ("Open3D", "video", "SUMO")] == [
        "missing"
    ] * 3


def test_a_gpu_that_torch_cannot_use_is_told_with_the_build_that_can(quick, monkeypatch):
    monkeypatch.setattr(installation.shutil, "which", lambda name: "/usr/bin/nvidia-smi")
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.version.cuda", None)
    monkeypatch.setattr("torch.zeros", lambda *_, **__: (_ for _ in ()).throw(RuntimeError("no CUDA")))
    finding = installation.accelerator()
    assert finding.state == "missing" and "without CUDA" in finding.told
    assert (finding.remedy or "").startswith("pip install --force-reinstall torch==")


def test_the_towns_of_the_cache_are_counted(quick, monkeypatch, tmp_path):
    assert installation.cache().told.startswith("0 files, 0 MB in ")
    (tmp_path / "towns").mkdir()
    (tmp_path / "towns" / "town-1.safetensors").write_bytes(bytes(3_000_000))
    assert installation.cache().told == f"1 files, 3 MB in {tmp_path / 'towns'}"


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("import os; os.abort()", "status -6"),
        ("print('x: y'); raise SystemExit(2)", "x: y"),
        ("raise OSError('no')", "no"),
    ],
)
def test_a_library_that_crashes_is_a_finding(monkeypatch, code, words):
    real = subprocess.run
    monkeypatch.setattr(
        installation.subprocess, "run", lambda args, **options: real([sys.executable, "-c", code], **options)
    )
    with pytest.raises(ConfigurationError, match=words):
        in_process("draw")


@pytest.mark.slow
def test_the_libraries_that_are_here_are_loaded():
    pytest.importorskip("libsumo")
    assert in_process("simulate").startswith(importlib.metadata.version("eclipse-sumo"))
    pytest.importorskip("open3d")
    assert in_process("draw").split(",")[0] == importlib.metadata.version("open3d")


def test_a_line_fits_the_terminal(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    print_report([Finding(name="weights", state="ok", told="x" * 200)])
    (line,) = capsys.readouterr().out.splitlines()
    assert len(line) == 60 and line.endswith("...")
