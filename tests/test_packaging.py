"""What is installed: the package list, the pins, the commands that set themselves up."""

import ast
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
FOLDERS = PROJECT["tool"]["setuptools"]["package-dir"]
EXTRAS = PROJECT["project"]["optional-dependencies"]
IMPORT_NAMES = {"pillow": "PIL", "eclipse-sumo": "sumo"}


def test_every_folder_with_code_is_in_the_package_list():
    listed = set(PROJECT["tool"]["setuptools"]["packages"])
    found = set()
    for name, folder in {"occsora_sim": "occsora_sim", **FOLDERS}.items():
        for init in (ROOT / folder).rglob("__init__.py"):
            found.add(".".join([name, *init.parent.relative_to(ROOT / folder).parts]))
    assert listed == found


def test_pins_fit_the_ranges_and_name_every_direct_dependency():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = {}
    for line in lines:
        if line and not line.startswith("#"):
            assert re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.]+", line), f"no paths, no builds: {line}"
            name, version = line.split("==")
            pins[name.lower().replace("_", "-")] = Version(version)
    wanted = [*PROJECT["project"]["dependencies"], *(line for extra in EXTRAS.values() for line in extra)]
    for requirement in map(Requirement, wanted):
        assert requirement.specifier.contains(pins[requirement.name]), requirement
    assert pins["torch"] == Version("2.13.0")
    assert "torch==2.13.0" in (ROOT / "scripts" / "setup.sh").read_text()


BEHIND_AN_EXTRA = dict.fromkeys(("learner.py", "learner_env.py", "sb3.py"), "stable_baselines3")
"""Files of agents/ that subclass what an extra brings; only `train agent`, and who learns with it, imports them."""


def test_what_the_core_imports_at_start_is_a_dependency():
    names = {Requirement(line).name for line in PROJECT["project"]["dependencies"]}
    allowed = {IMPORT_NAMES.get(name, name) for name in names} | {"occsora_sim"}
    for folder in ("occsora_sim", *FOLDERS.values()):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.parse(path.read_text()).body:
                modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                modules += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
                for module in modules:
                    first = module.split(".")[0]
                    if first == BEHIND_AN_EXTRA.get(path.name):
                        continue
                    assert first in allowed or first in sys.stdlib_module_names, f"{path}: {first}"


def test_shipped_files_are_small_and_hold_no_pickles():
    shipped = [
        path for path in (ROOT / "assets").rglob("*") if path.is_file() and "__pycache__" not in path.parts
    ]
    assert sum(path.stat().st_size for path in shipped) <= 60e6
    assert sum(path.stat().st_size for path in shipped if "weights" in path.parts) <= 40e6
    assert not [path for path in shipped if path.suffix in (".pkl", ".pickle", ".pt", ".pth", ".ckpt")]


@pytest.mark.parametrize("script", [".ci/run", "scripts/setup.sh", "scripts/audit.sh"])
def test_scripts_are_executable_and_parse(script):
    assert os.access(ROOT / script, os.X_OK)
    subprocess.run(["bash", "-n", ROOT / script], check=True)


def test_setup_refuses_an_unknown_set_in_one_line():
    done = subprocess.run([ROOT / "scripts" / "setup.sh", "moon"], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1 and "demo or dev" in done.stderr


def test_setup_names_the_apt_line_where_python_is_missing(tmp_path):
    (tmp_path / "scripts").mkdir()
    script = tmp_path / "scripts" / "setup.sh"
    script.write_text((ROOT / "scripts" / "setup.sh").read_text())
    for name in ("pyproject.toml", "constraints.txt"):
        (tmp_path / name).write_text("")
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("bash", "cat", "sha256sum", "dirname"):
        (tools / name).symlink_to(f"/usr/bin/{name}")
    done = subprocess.run(["/bin/bash", script], capture_output=True, text=True, env={"PATH": str(tools)})
    assert done.returncode == 1
    assert "apt-get install python3.11 python3.11-venv" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("answer", "status", "says"),
    [
        ("", 0, "no database"),
        ('{"dependencies": [{"name": "a", "skip_reason": "not found"}]}', 0, "nothing was audited"),
        (
            '{"dependencies": [{"name": "a", "version": "1", "vulns": []}]}',
            0,
            "1 of 1 packages audited, 0 known",
        ),
        (
            '{"dependencies": [{"name": "a", "version": "1", "vulns": [{"id": "CVE-1", "fix_versions": ["2"]}]}]}',
            1,
            "audit: a 1: CVE-1, mended in 2\naudit: 1 of 1",
        ),
    ],
)
def test_the_audit_tells_what_is_known_and_where_nothing_can_be(answer, status, says, tmp_path):
    python = tmp_path / "python"
    python.write_text(
        f"""#!/bin/bash
if [ "$2" != pip_audit ]; then exec {sys.executable} "$@"; fi
while [ "$1" != --output ]; do shift; done
printf '%s' '{answer}' >"$2"
"""
    )
    python.chmod(0o755)
    environment = {**os.environ, "PYTHON": str(python)}
    done = subprocess.run([ROOT / "scripts" / "audit.sh"], capture_output=True, text=True, env=environment)
    assert done.returncode == status and says in done.stdout and done.stderr == ""


def test_make_offers_its_commands():
    text = (ROOT / "Makefile").read_text()
    for target in ("demo", "test", "lint", "audit", "bench", "weights"):
        assert re.search(rf"^{target}: setup", text, re.MULTILINE), target
    assert {"make test", "make audit"} <= set((ROOT / ".ci" / "run").read_text().splitlines())


def test_readme_shows_both_commands_a_picture_and_the_code_at_once():
    first = "\n".join((ROOT / "README.md").read_text().splitlines()[:36])
    assert "make demo" in first and "make test" in first
    assert "docs/images/rollout.png" in first
    assert "```python" in first


def test_licence_is_apache():
    assert "Apache License" in (ROOT / "LICENSE").read_text()[:200]
    assert PROJECT["project"]["license"] == "Apache-2.0"


# --------------------------------------------------------------------------- what is built
def shipped_files() -> set[str]:
    """Every file of the package, by its place in an installation."""
    found = set()
    for name, folder in {"occsora_sim": "occsora_sim", **FOLDERS}.items():
        for path in (ROOT / folder).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                found.add(f"{name.replace('.', '/')}/{path.relative_to(ROOT / folder).as_posix()}")
    return found


def build(kind: str, source: Path, out: Path) -> Path:
    """The sdist or wheel of a source tree, by the declared backend and without a network."""
    code = f"import setuptools.build_meta as backend; print(backend.build_{kind}({str(out)!r}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=source, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return out / done.stdout.splitlines()[-1]


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> dict[str, Path]:
    """An sdist of the checkout, and the wheel that is built from that sdist."""
    setuptools = pytest.importorskip("setuptools")
    if Version(setuptools.__version__) < Version("77"):
        pytest.skip("needs setuptools 77, which `make setup` installs")
    folder = tmp_path_factory.mktemp("built")
    checkout = folder / "checkout"
    ignore = shutil.ignore_patterns("__pycache__")
    for name in ("occsora_sim", *FOLDERS.values()):
        shutil.copytree(ROOT / name, checkout / name, ignore=ignore)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, checkout)
    sdist = build("sdist", checkout, folder)
    with tarfile.open(sdist) as archive:
        archive.extractall(folder / "unpacked", filter="data")
    (unpacked,) = (folder / "unpacked").iterdir()
    return {"sdist": sdist, "wheel": build("wheel", unpacked, folder)}


@pytest.mark.slow
def test_the_wheel_of_the_sdist_holds_every_file_of_the_package(built):
    with zipfile.ZipFile(built["wheel"]) as wheel:
        names = set(wheel.namelist())
    packed = {name for name in names if ".dist-info/" not in name}
    assert packed == shipped_files()
    assert {"occsora_sim/assets/weights/small.safetensors", "occsora_sim/py.typed"} <= packed
    assert [name for name in names if name.endswith("licenses/LICENSE")]


@pytest.mark.slow
def test_what_is_installed_from_the_wheel_drives_elsewhere(built, tmp_path):
    with zipfile.ZipFile(built["wheel"]) as wheel:
        wheel.extractall(tmp_path / "installed")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "installed"), "OMP_NUM_THREADS": "1"}

    def python(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout

    where = python("-c", "import occsora_sim.envs as envs; print(envs.__file__)")
    assert Path(where.strip()).is_relative_to(tmp_path / "installed")
    python("-m", "occsora_sim.cli", "drive", "--seconds", "1", "--skip-video", "--out", "drive")
    assert {path.name for path in (tmp_path / "drive").iterdir()} == {"rollout.npz", "summary.json"}


# --------------------------------------------------------------------------- which Pythons
DROPPED = {
    "aifc", "asynchat", "asyncore", "audioop", "cgi", "cgitb", "chunk", "crypt", "distutils", "imghdr", "imp",
    "lib2to3", "mailcap", "msilib", "nis", "nntplib", "ossaudiodev", "pipes", "smtpd", "sndhdr", "spwd", "sunau",
    "telnetlib", "uu", "xdrlib",
}  # fmt: skip
"""Modules of the standard library of Python 3.11 that 3.12 or 3.13 no longer has."""


def test_the_pythons_that_are_named_start_at_the_lowest_that_is_allowed():
    named = re.findall(r"Python :: (3\.\d+)", " ".join(PROJECT["project"]["classifiers"]))
    assert named == ["3.11", "3.12", "3.13"] and PROJECT["project"]["requires-python"] == ">=3.11"
    assert PROJECT["tool"]["ruff"]["target-version"] == "py311"


def test_no_module_is_imported_that_a_later_python_has_dropped():
    for folder in ("occsora_sim", *FOLDERS.values(), "examples", "experiments"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                modules += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
                assert not {module.split(".")[0] for module in modules} & DROPPED, path


def _fails(command: list[str]) -> bool:
    return subprocess.run(command, capture_output=True).returncode != 0


@pytest.mark.slow
@pytest.mark.parametrize("name", ["python3.12", "python3.13"])
def test_the_sources_compile_without_a_warning_under_later_pythons(name, tmp_path):
    candidates = [
        name,
        *map(str, Path.home().glob(f".pyenv/versions/{name.removeprefix('python')}.*/bin/python")),
    ]
    works = (python for python in candidates if shutil.which(python) and not _fails([python, "--version"]))
    python = next(works, None)  # a shim of pyenv may be there and fail
    if python is None:
        pytest.skip(f"no {name} here")
    folders = [str(ROOT / folder) for folder in ("occsora_sim", *FOLDERS.values(), "examples")]
    environment = {"PYTHONPYCACHEPREFIX": str(tmp_path), "PATH": os.environ["PATH"]}
    subprocess.run([python, "-W", "error", "-m", "compileall", "-q", *folders], check=True, env=environment)
