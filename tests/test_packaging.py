"""What is installed: the package list, the pins, the commands that set themselves up."""

import ast
import os
import re
import subprocess
import sys
import tomllib
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
    assert sum(path.stat().st_size for path in shipped if "weights" in path.parts) <= 25e6
    assert not [path for path in shipped if path.suffix in (".pkl", ".pickle", ".pt", ".pth", ".ckpt")]


@pytest.mark.parametrize("script", [".ci/run", "scripts/setup.sh"])
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


def test_make_offers_the_five_commands():
    text = (ROOT / "Makefile").read_text()
    for target in ("demo", "test", "lint", "bench", "weights"):
        assert re.search(rf"^{target}: setup", text, re.MULTILINE), target
    assert "make test" in (ROOT / ".ci" / "run").read_text()


def test_readme_shows_both_commands_a_picture_and_the_code_at_once():
    first = "\n".join((ROOT / "README.md").read_text().splitlines()[:36])
    assert "make demo" in first and "make test" in first
    assert "docs/images/rollout.png" in first
    assert "```python" in first


def test_licence_is_apache():
    assert "Apache License" in (ROOT / "LICENSE").read_text()[:200]
    assert PROJECT["project"]["license"] == "Apache-2.0"
