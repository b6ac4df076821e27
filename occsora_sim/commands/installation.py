"""What is installed here and whether it works: the findings of `occsora-sim doctor`."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from occsora_sim.errors import ConfigurationError, MissingDependencyError, OccSoraError

CORE = ("torch", "gymnasium", "numpy", "einops", "safetensors", "tyro", "rich", "pillow")
"""What the package depends on; tests hold it against pyproject.toml."""

IMPORTED_AS = {"pillow": "PIL"}

REINSTALL = "pip install --force-reinstall --no-deps occsora-sim   (in a checkout: git checkout -- assets)"
"""What brings back a shipped file."""

TIMEOUT = 60.0
"""How long a library may take to load in a process of its own [s]."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One line of the report.

    Attributes:
        name: what was looked at.
        state: "ok", "missing" (something works less well without it) or "broken" (nothing works until it is mended).
        told: what was found, in a line.
        remedy: the command that mends it; None where nothing has to be mended.

    """

    name: str
    state: Literal["ok", "missing", "broken"]
    told: str
    remedy: str | None = None


def examine() -> list[Finding]:
    """All findings, in the order of the report. What may crash is loaded in processes of its own meanwhile."""
    with ThreadPoolExecutor() as pool:
        view, sumo = pool.submit(in_process, "draw"), pool.submit(in_process, "simulate")
        core = packages()
        findings = [system(), core, processor(), memory()]
        if core.state == "ok":
            findings += [accelerator(), precision()]
        findings += [_tried("Open3D", view.result), _tried("video", ffmpeg), _tried("SUMO", sumo.result)]
        findings += [
            extra("TensorBoard", "tensorboard", "train"),
            extra("Stable-Baselines3", "stable_baselines3", "rl"),
            extra("Ray", "ray", "ray"),
            cache(),
        ]
        if core.state == "ok":
            findings += shipped()
        return findings


# --------------------------------------------------------------------------- the core
def system() -> Finding:
    """The release, and what it runs on."""
    from occsora_sim import __version__

    place = Path(__file__).parents[1]
    python = f"Python {platform.python_version()}, {platform.system()} {platform.machine()}"
    return Finding(name="occsora-sim", state="ok", told=f"{__version__} in {place}; {python}")


def packages() -> Finding:
    """What the package cannot run without."""
    told, lost = [], []
    for name in CORE:
        try:
            importlib.import_module(IMPORTED_AS.get(name, name))
            told.append(f"{name} {importlib.metadata.version(name)}")
        except (ImportError, OSError, importlib.metadata.PackageNotFoundError) as error:
            told.append(f"no {name} ({_first_line(error)})")
            lost.append(name)
    remedy = f"pip install --upgrade {' '.join(lost)}" if lost else None
    return Finding(name="packages", state="broken" if lost else "ok", told=", ".join(told), remedy=remedy)


def processor() -> Finding:
    """Model and cores."""
    model = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        model = next(
            (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), model
        )
    except OSError:
        pass  # only Linux has it
    usable = getattr(os, "sched_getaffinity", None)
    cores = len(usable(0)) if usable else os.cpu_count()
    return Finding(name="processor", state="ok", told=f"{model}, {cores} cores")


def memory() -> Finding:
    """How much there is, and how much of it is free."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
        sizes = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines}
        told = f"{sizes['MemTotal'] / 1e9:.1f} GB, {sizes['MemAvailable'] / 1e9:.1f} GB of it free"
    except (OSError, KeyError, ValueError, IndexError):
        told = "not known on this system"
    return Finding(name="memory", state="ok", told=told)


def accelerator() -> Finding:
    """The GPUs that torch can compute on. That there is none is no fault; a GPU that torch cannot see is."""
    import torch

    from occsora_sim.device import check_device

    try:
        check_device("cuda")
    except OccSoraError as error:
        if shutil.which("nvidia-smi") is None:
            return Finding(name="CUDA", state="ok", told="no GPU; the processor computes")
        told, _, remedy = str(error).rpartition("; install ")
        return Finding(name="CUDA", state="missing", told=told, remedy=remedy.split(": ", 1)[-1])
    found = [torch.cuda.get_device_properties(number) for number in range(torch.cuda.device_count())]
    told = ", ".join(f"{each.name} ({each.total_memory / 1e9:.0f} GB)" for each in found)
    return Finding(name="CUDA", state="ok", told=f"{told}; CUDA {torch.version.cuda}")


def precision() -> Finding:
    """Whether trainings and worlds compute faster in bfloat16."""
    import torch

    from occsora_sim.device import fast_bfloat16

    devices = ["cpu"] + ["cuda"] * torch.cuda.is_available()
    told = [f"{'fast' if fast_bfloat16(torch.device(name)) else 'slow'} on {name}" for name in devices]
    return Finding(name="bfloat16", state="ok", told=", ".join(told))


# --------------------------------------------------------------------------- the extras
def draw() -> str:
    """Loads Open3D and opens a window as a film does; returns what draws.

    Raises:
        MissingDependencyError: Open3D is not installed or does not load.

    """
    import ctypes

    from occsora_sim.rendering.pinhole import load_open3d

    open3d = load_open3d()
    window = (
        open3d.visualization.Visualizer()
    )  # as GLRenderer does, whose module takes two seconds to load torch
    if not window.create_window(width=64, height=48, visible=False):
        return f"{open3d.__version__}, by ray casting; the same pictures, slower: there is no OpenGL"
    get_string = ctypes.CDLL("libGL.so.1").glGetString  # the window's context is the current one
    get_string.restype = ctypes.c_char_p
    by = (get_string(0x1F01) or b"OpenGL").decode("utf-8", "replace")  # GL_RENDERER
    where = "on the display" if os.environ.get("DISPLAY") else "without a display"
    return f"{open3d.__version__}, by OpenGL {where}: {by}{' (software)' if 'llvmpipe' in by else ''}"


def simulate() -> str:
    """Loads SUMO; returns its version.

    Raises:
        MissingDependencyError: it is not installed or does not load.

    """
    from occsora_sim.scenes.town import sumo_home, sumo_version

    os.environ["SUMO_HOME"] = str(sumo_home())
    try:
        import libsumo
    except (ImportError, OSError) as error:
        install = 'pip install "occsora-sim[traffic]"'
        raise MissingDependencyError(f"libsumo does not load ({_first_line(error)}): {install}") from error
    return f"{sumo_version()}, {libsumo.getVersion()[1]}"


def ffmpeg() -> str:
    """The program that writes films."""
    from occsora_sim.rendering.encoder import find_ffmpeg

    path = find_ffmpeg()
    try:
        done = subprocess.run([path, "-version"], capture_output=True, text=True, timeout=TIMEOUT, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        raise ConfigurationError(
            f"{path} does not run ({_first_line(error)}): pip install 'occsora-sim[view]'"
        ) from None
    return f"{' '.join(done.stdout.split()[:3])}, {path}"


def in_process(check: str) -> str:
    """Call the function `check` of this module in a process of its own, so that a crash of its library is a finding.

    Raises:
        ConfigurationError: it failed; the message ends with the remedy, as those of `errors.MissingDependencyError` do.

    """
    code = f"from occsora_sim.commands import installation; installation.answer(installation.{check})"
    try:
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=TIMEOUT)
    except subprocess.TimeoutExpired:
        raise ConfigurationError(f"does not load within {TIMEOUT:g} s") from None
    lines = done.stdout.splitlines()
    if done.returncode == 0 and lines:
        return lines[-1]
    if done.returncode == 2 and lines:
        raise ConfigurationError(lines[-1])
    reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
    raise ConfigurationError(f"loading it ends with status {done.returncode} ({reason})")


def answer(check: Callable[[], str]) -> None:
    """Print what `check` returns, or its refusal with exit status 2."""
    try:
        print(check())
    except OccSoraError as error:
        print(" ".join(str(error).split()))
        sys.exit(2)


def extra(name: str, module: str, group: str) -> Finding:
    """A library of an extra that needs no trial."""
    if importlib.util.find_spec(module) is None:
        remedy = f'pip install "occsora-sim[{group}]"'
        return Finding(name=name, state="missing", told="not installed", remedy=remedy)
    return Finding(name=name, state="ok", told=importlib.metadata.version(module))


def _tried(name: str, check: Callable[[], str]) -> Finding:
    try:
        return Finding(name=name, state="ok", told=check())
    except OccSoraError as error:
        told, _, remedy = str(error).rpartition(": ")
        return Finding(name=name, state="missing", told=told or remedy, remedy=remedy if told else None)


# --------------------------------------------------------------------------- files
def cache() -> Finding:
    """Where made towns are kept, and what they take."""
    from occsora_sim.scenes.source import default_cache

    try:
        folder = default_cache()
        sizes = (
            [path.stat().st_size for path in folder.glob("*") if path.is_file()] if folder.is_dir() else []
        )
    except (OccSoraError, OSError) as error:
        return Finding(name="towns", state="missing", told=_first_line(error))
    return Finding(
        name="towns", state="ok", told=f"{len(sizes)} files, {sum(sizes) / 1e6:.0f} MB in {folder}"
    )


def shipped() -> Iterator[Finding]:
    """The weights, the policy, the encoder and the starts that come with the package."""
    from occsora_sim.agents.learned import load_policy, shipped_policy
    from occsora_sim.envs.starts import shipped_scenes
    from occsora_sim.models.occupancy_encoder import load_encoder
    from occsora_sim.scenes.source import open_scenes
    from occsora_sim.scoring.generation import shipped_encoder
    from occsora_sim.worlds.diffusion import default_weights, load_world

    yield _loaded("weights", default_weights(), load_world, "broken")
    yield _loaded("policy", shipped_policy(), load_policy, "missing")
    yield _loaded("encoder", shipped_encoder(), load_encoder, "missing")
    yield _loaded("starts", Path(shipped_scenes()), open_scenes, "missing")


def _loaded(
    name: str, path: Path, load: Callable[[Any], object], otherwise: Literal["missing", "broken"]
) -> Finding:
    try:
        load(path)
        files = [path] if path.is_file() else sorted(path.iterdir())
        size = sum(file.stat().st_size for file in files) / 1e6
    except (OccSoraError, OSError) as error:
        return Finding(name=name, state=otherwise, told=_first_line(error), remedy=REINSTALL)
    return Finding(name=name, state="ok", told=f"{path}, {size:.1f} MB")


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
