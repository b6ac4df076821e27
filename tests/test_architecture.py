"""The shape of the code: imports point one way, files are small, nothing loads a pickle."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = {
    "occsora_sim": ROOT / "occsora_sim",
    "occsora_sim.envs": ROOT / "envs",
    "occsora_sim.agents": ROOT / "agents",
    "occsora_sim.assets": ROOT / "assets",
}
SOURCES = sorted(path for folder in FOLDERS.values() for path in folder.rglob("*.py"))

RANK = {
    "errors": 0, "forks": 0, "quantities": 0, "constants": 0,
    "grid": 1, "geometry": 1, "vehicle": 1, "trajectory": 1, "assets": 1, "atomic_file": 1,
    "bounded_json": 0, "bounded_npz": 0,
    "checkpoint": 1, "device": 1, "interruption": 1, "scene_prompt": 1, "road_users": 1, "counter_random": 1,
    "recipe": 1, "cluster": 1, "watch": 1,
    "voxels": 2, "scenes": 2, "models": 2, "presets": 3,
    "worlds": 4, "scoring": 4, "training": 4,
    "rendering": 5, "viewer": 5, "envs": 5, "agents": 6, "commands": 7, "cli": 8,
}  # fmt: skip
"""A module or package may import from its own rank and below."""

NEVER = {
    "voxels": {"scenes", "models"},
    "scenes": {"models"},
    "models": {"scenes"},
    "worlds": {"training"},
    "training": {"worlds", "envs", "agents", "rendering"},
    "scoring": {"training"},
    "rendering": {"envs", "viewer"},
    "viewer": {"envs", "agents"},
    "envs": {"training"},
    "agents": {"worlds", "models"},
}
"""Forbidden beyond the ranks: agents see observations, never the world; training never an environment."""

LEARNERS = {"learner", "learner_env", "imitation", "sb3"}
"""Modules of agents that need Stable-Baselines3; the package agents itself is imported without it."""

OPTIONAL = {
    "open3d",
    "libsumo",
    "traci",
    "sumolib",
    "imageio",
    "imageio_ffmpeg",
    "tensorboard",
    "stable_baselines3",
    "ray",
    "webdataset",
}
"""Imported inside the functions that use them, so that the core installs and starts without them."""


def module_name(path: Path) -> str:
    """occsora_sim.envs.drive for envs/drive.py."""
    for name, folder in reversed(FOLDERS.items()):
        if path.is_relative_to(folder):
            parts = [name, *path.relative_to(folder).with_suffix("").parts]
            return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
    raise ValueError(path)


def unit(module: str) -> str:
    """The part of the package that a module belongs to: its second name; "" for occsora_sim itself."""
    return [*module.split("."), ""][1]


def imports(tree: ast.AST) -> list[str]:
    """All modules that a file imports, anywhere in it, by their full names."""
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "import by the full name"
            names.append(node.module or "")
            if node.module == "occsora_sim":
                names += [f"occsora_sim.{alias.name}" for alias in node.names]
    return names


def imports_at_start(tree: ast.Module) -> set[str]:
    """First names of what is imported as soon as the file is: everything outside functions."""
    nodes: list[ast.AST] = list(tree.body)
    found = []
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        found += imports(node) if isinstance(node, ast.Import | ast.ImportFrom) else []
        nodes += ast.iter_child_nodes(node)
    return {name.split(".")[0] for name in found}


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def misdirected(module: str, imported: list[str]) -> list[str]:
    """Those of `imported` that `module` may not import."""
    here = unit(module)
    units = {name: unit(name) for name in imported if name.split(".")[0] == "occsora_sim"}
    if not here:
        return [name for name, there in units.items() if there not in ("", "envs", "forks")]
    return [
        name
        for name, there in units.items()
        if there in RANK and (RANK[there] > RANK[here] or there in NEVER.get(here, ()))
    ]


def test_sources_are_found():
    names = {module_name(path) for path in SOURCES}
    assert {
        "occsora_sim",
        "occsora_sim.grid",
        "occsora_sim.envs",
        "occsora_sim.agents",
        "occsora_sim.cli",
    } <= names


@pytest.mark.parametrize("path", SOURCES, ids=module_name)
def test_every_module_has_a_rank_a_docstring_and_at_most_350_lines(path):
    assert path.stem not in ("utils", "util", "helpers", "common", "manager"), "name a file by its noun"
    assert unit(module_name(path)) in {*RANK, ""}, "give the new part of the package its rank in RANK"
    assert ast.get_docstring(parsed(path)), "say in a docstring what the module is"
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 350


@pytest.mark.parametrize("path", SOURCES, ids=module_name)
def test_imports_point_one_way(path):
    assert misdirected(module_name(path), imports(parsed(path))) == []


def test_a_wrong_import_is_caught():
    assert misdirected("occsora_sim.grid", ["occsora_sim.scenes.scene"]) == ["occsora_sim.scenes.scene"]
    assert misdirected("occsora_sim.agents.follower", ["occsora_sim.worlds.protocol"])
    assert misdirected("occsora_sim.training.loop", ["occsora_sim.envs"])
    assert misdirected("occsora_sim.worlds.diffusion", ["occsora_sim.models.denoiser", "torch"]) == []


def test_only_the_learner_and_its_command_need_the_learning_library():
    learners = {f"occsora_sim.agents.{name}" for name in LEARNERS}
    for path in SOURCES:
        if module_name(path) in (*learners, "occsora_sim.commands.train_agent"):
            continue
        if module_name(path) == "occsora_sim.agents.sb3_policy":  # reads its models, imports it when asked to
            continue
        assert not learners & set(imports(parsed(path))), module_name(path)
        assert "stable_baselines3" not in {name.split(".")[0] for name in imports(parsed(path))}


@pytest.mark.parametrize("path", SOURCES, ids=module_name)
def test_optional_libraries_are_imported_where_they_are_used(path):
    core = set() if unit(module_name(path)) in ("", "envs", "agents") else {"gymnasium"}
    learner = {"stable_baselines3"} if path.stem in LEARNERS else set()
    assert imports_at_start(parsed(path)) & (OPTIONAL | core) <= learner
    if unit(module_name(path)) in (
        "grid",
        "geometry",
        "vehicle",
        "scenes",
        "models",
        "worlds",
        "scoring",
        "training",
    ):
        assert not {"gymnasium", "open3d"} & {name.split(".")[0] for name in imports(parsed(path))}


@pytest.mark.parametrize("path", SOURCES, ids=module_name)
def test_nothing_reads_or_seeds_the_global_generator(path):
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            assert name not in (
                "np.random.seed",
                "numpy.random.seed",
                "random.seed",
                "np.random.rand",
                "random.random",
            )
            # Initial weights take no generator: training owns its process and seeds them.
            assert name != "torch.manual_seed" or unit(module_name(path)) == "training", f"line {node.lineno}"


@pytest.mark.parametrize("path", SOURCES, ids=module_name)
def test_nothing_loads_code_from_a_file(path):
    tree = parsed(path)
    unpicklers = {"pickle", "dill", "joblib", "shelve"} & {name.split(".")[0] for name in imports(tree)}
    # The one that reads logs knows a few names alone; tests/test_safe_pickle.py tries to get past it.
    assert not unpicklers or module_name(path) == "occsora_sim.scenes.safe_pickle"
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        options = {option.arg: ast.unparse(option.value) for option in node.keywords}
        name = ast.unparse(node.func)
        assert options.get("allow_pickle", "False") == "False", f"line {node.lineno}: allow_pickle"
        if name in ("torch.load", "load") and "torch" in name:
            assert options.get("weights_only") == "True", (
                f"line {node.lineno}: torch.load without weights_only=True"
            )
