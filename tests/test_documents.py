"""README, docs/ and the cards of what is shipped: every block and every command in them works as it stands."""

import dataclasses
import functools
import importlib
import re
import shlex
import typing
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from untrained import untrained_world_model

from occsora_sim.cli import VERBS, find_verb, main
from occsora_sim.commands.parsing import parse_command
from occsora_sim.models.occsora_world import OccSora
from occsora_sim.models.weights import save_world_model
from occsora_sim.models.world_model import WorldModel
from occsora_sim.presets import paper_tiny
from occsora_sim.scenes import made
from occsora_sim.scenes.file import save_scene

ROOT = Path(__file__).parent.parent
DOCUMENTS = [ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md")), *sorted(ROOT.glob("assets/*/README.md"))]
HISTORY = ROOT / "docs" / "lab_book.md"
"""Says what was once run: its commands are parsed, not run."""

NOT_RUN = {
    "make demo": "sets itself up, then drives for a minute; what it runs is `occsora-sim drive`",
    "make test": "these tests",
    "make setup": "installs what these tests run in",
    "source .venv/bin/activate": "of a shell",
    "python examples/draw_clip.py assets/weights/paper-small.safetensors clip.mp4": "minutes; test_examples draws "
    "with tiny weights, test_occsora with these",
    **{
        f"pip install torch==2.13.0 --index-url https://download.pytorch.org/whl/{build}": "a download"
        for build in ("cpu", "cu130")
    },
    'pip install -c constraints.txt -e ".[traffic,view,train]"': "a download; test_packaging knows the extras",
    "apt-get install libusb-1.0-0 libgl1 libegl1 libxrender1 libxext6 libexpat1 libatomic1 libgomp1": "a download",
}
"""Lines of blocks of commands that no test can run, and why."""

DIAGRAMS = {
    "agent                    agents/",
    "agent.plan(observation, imagine)",
    "observation               as every",
}
DIAGRAMS |= {"errors -> grid, geometry, vehicle"}
"""How blocks begin that are no code."""

PLANNER = ROOT / "docs" / "evaluate-planner.md"
"""Its first block is saved as my_planner.py, and its commands drive that."""

PARSED_ALONE = {
    "train traffic": "test_every_training",
    "train ground": "test_every_training, test_ground_training",
    "train tokenizer": "test_occsora_training",
    "train world-model": "test_occsora_training",
    "train encoder": "test_feature_distance",
    "train agent": "test_learner",
    "play": "test_play",
}
"""Commands that take minutes even in small, and the tests that run what they run."""

SHORTER = {
    'Drive-v0", ': 'Drive-v0", starts=2, ',
    "seconds=10.0": "seconds=1.0",
    "steps=100": "steps=1",
}
"""Numbers of python blocks, and what stands for them here."""

PROGRAM = re.compile(
    r"(?:[A-Z_]+=\S+ )*(?:occsora-sim|torchrun .*?(?:--no-python occsora-sim|-m occsora_sim\.cli)) (?=[a-z])"
)
SHORT = tuple(f"{verb} --" for verb in VERBS)
"""How commands begin that are named without the program."""

KNOWN = {"--help", "--version", "--index-url"}


class Command(NamedTuple):
    """A command of a document: where it stands, and its arguments."""

    path: Path
    line: int
    arguments: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.path.relative_to(ROOT)}:{self.line}: {' '.join(self.arguments)}"


def blocks(path: Path) -> list[tuple[int, str, str]]:
    """The fenced blocks of a document: line, language, text."""
    text = path.read_text(encoding="utf-8")
    return [
        (text.count("\n", 0, found.start()) + 2, found[1], found[2])
        for found in re.finditer(r"^```(\w*)\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    ]


def spans(path: Path) -> list[tuple[int, str]]:
    """The pieces of inline code: line, text on one line."""
    text = re.sub(
        r"^```.*?^```",
        lambda f: "\n" * f[0].count("\n"),
        path.read_text(encoding="utf-8"),
        flags=re.DOTALL | re.MULTILINE,
    )
    return [
        (text.count("\n", 0, found.start()) + 1, " ".join(found[1].split()).replace("+ ", "+"))
        for found in re.finditer(r"`([^`]+)`", text)
    ]


def lines_of(block: str) -> list[str]:
    """The lines of a block of commands, continued ones joined, without comments."""
    joined = block.replace("\\\n", " ").splitlines()
    return [" ".join(line.split("  #")[0].split("    #")[0].split()) for line in joined if line.strip()]


def is_commands(block: str) -> bool:
    return bool(
        re.match(r"(?:[A-Z_]+=\S+ )*(?:occsora-sim|make|pip|apt-get|python|git|cd|export|source) ", block)
    )


def commands() -> list[Command]:
    """Every command of every document, in blocks, tables and text, each once."""
    found: dict[tuple[str, ...], Command] = {}
    for path in DOCUMENTS:
        texts = [
            (at, line) for at, _, block in blocks(path) if is_commands(block) for line in lines_of(block)
        ]
        for at, text in [*texts, *spans(path)]:
            if PROGRAM.match(text) or (
                text.startswith(SHORT) and not text.split(" --", 1)[1].replace("-", "").isalpha()
            ):
                arguments = tuple(
                    "1" if word == "N" else word for word in shlex.split(PROGRAM.sub("", text, count=1))
                )
                found.setdefault(arguments, Command(path, at, arguments))
    return list(found.values())


COMMANDS = commands()
RUN = [command for command in COMMANDS if command.path != HISTORY]


def parsed(command: Command) -> tuple[str, Any]:
    """The verb and the options of a command; None where it asks for help."""
    verb, rest = find_verb(command.arguments)
    module = importlib.import_module(f"occsora_sim.commands.{VERBS[verb][0]}")
    return verb, parse_command(module, "occsora-sim", "test", rest)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_block_is_run_or_on_a_list(path):
    for at, language, block in blocks(path):
        place = f"{path.name}:{at}"
        if language == "python":
            continue
        assert language in ("", "bash"), f"{place}: no test runs {language}"
        if not is_commands(block):
            assert any(block.strip().startswith(start) for start in DIAGRAMS), (
                f"{place}: neither code nor diagram"
            )
            continue
        for line in lines_of(block):
            known = PROGRAM.match(line) or line in NOT_RUN
            assert known, f"{place}: {line!r} is no command of occsora-sim and not on the list NOT_RUN"


def test_the_lists_hold_nothing_that_the_documents_do_not():
    texts = [block for path in DOCUMENTS for _, _, block in blocks(path)]
    lines = {line for text in texts for line in lines_of(text)}
    assert set(NOT_RUN) <= lines
    assert all(any(text.strip().startswith(start) for text in texts) for start in DIAGRAMS)
    assert set(PARSED_ALONE) <= set(VERBS) and len(COMMANDS) > 40


@pytest.mark.parametrize("command", COMMANDS, ids=str)
def test_every_command_is_understood(command):
    verb, rest = find_verb(command.arguments)
    if not rest:
        assert verb in VERBS  # the name of a command
        return
    _, options = parsed(command)
    assert (options is None) == ("--help" in rest)
    for spec in str(getattr(options, "scenes", None)).split("+"):
        if made.is_made(spec):
            made.parse(spec)


@functools.cache
def all_options() -> frozenset[str]:
    """The options of all commands, of the configurations inside them too."""
    queue = [
        importlib.import_module(f"occsora_sim.commands.{module}").Options for module, _ in VERBS.values()
    ]
    names = set()
    while queue:
        kind = queue.pop()
        for name, hint in typing.get_type_hints(kind).items():
            names |= {f"--{name.replace('_', '-')}", f"--no-{name.replace('_', '-')}"}
            queue += [hint] if dataclasses.is_dataclass(hint) else []
    return frozenset(names)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_option_that_is_named_exists(path):
    options = KNOWN | all_options()
    for at, text in spans(path):
        if not text.startswith(("pytest", "pip", "ruff", "git", "python", "make", "torchrun")):
            unknown = set(re.findall(r"(?<![\w-])--[a-z][\w-]*", text)) - options
            assert not unknown, f"{path.name}:{at}: {text!r} names {unknown}, which no command has"


# --------------------------------------------------------------------------- really run, in small
@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Path:
    """A folder with untrained weights of both families under the names that documents give them."""
    folder = tmp_path_factory.mktemp("small")
    torch.manual_seed(0)
    weights: dict[str, WorldModel | OccSora] = {
        "tiny": untrained_world_model(),
        "runs/world-model/world_model": OccSora(paper_tiny()),
    }
    for name, model in weights.items():
        path = folder / f"{name}.safetensors"
        path.parent.mkdir(parents=True, exist_ok=True)
        save_world_model(model, path, kind="world_model", trained_on="nothing", recipe={})
    return folder


@pytest.fixture
def place(small, built_street, tmp_path, monkeypatch) -> Path:
    """A working directory where the shipped weights are untrained tiny ones, and towns are one street."""
    street = built_street(cars=[(12.0, 2.0, 4.0)], steps=81, ego_speed=4.0, length=200.0)
    save_scene(street, tmp_path / "scenes" / "street.safetensors")
    monkeypatch.setenv("OCCSORA_SIM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("occsora_sim.worlds.diffusion.default_weights", lambda: small / "tiny.safetensors")
    monkeypatch.setattr("occsora_sim.scenes.made.make", lambda kind, seed: street)
    monkeypatch.setattr("occsora_sim.scoring.examples.INSTANTS", (0.0, 1.0, 2.0))
    monkeypatch.setattr("occsora_sim.scoring.scene_control.SECONDS", 2.0)
    monkeypatch.setattr("occsora_sim.commands.bench.FRAMES", 4)
    monkeypatch.setattr("occsora_sim.commands.bench.VOXELISED", (1,))
    (tmp_path / "runs").symlink_to(small / "runs")
    planner = next(block for _, language, block in blocks(PLANNER) if language == "python")
    (tmp_path / "my_planner.py").write_text(planner)
    monkeypatch.chdir(tmp_path)
    return tmp_path


PYTHON = [
    (path, at, block) for path in DOCUMENTS for at, language, block in blocks(path) if language == "python"
]


@pytest.mark.slow
@pytest.mark.parametrize("path, at, block", PYTHON, ids=[f"{path.name}:{at}" for path, at, _ in PYTHON])
def test_every_python_block_runs(path, at, block, place):
    for number, fewer in SHORTER.items():
        block = block.replace(number, fewer)
    exec(compile(block, f"{path.name}:{at}", "exec"), {"__name__": "__main__"})


def in_small(verb: str, options: Any, place: Path, small: Path) -> Any:
    """The options with every number as small and every path as near as can be."""
    weights = small / "tiny.safetensors"
    fewest = {
        "control": 1,
        "drift": 1,
        "traffic": 1,
        "generation": 1,
        "revisit": 1,
        "scene_prompts": 1,
        "worst": 1,
    }
    fixed: dict[str, Any] = {
        "weights": (weights,) if verb == "evaluate clips" else weights,
        "scenes": "roundabout:0" if verb == "scenes make" else str(place / "scenes"),
        "path": place / "scenes", "rollouts": (place / "out" / "rollout.npz",), "steps": 1, "windows_per_scene": 1,
        "drift_seconds": 4.0, "seconds": 1.0, "episodes": 1, "clips": 1, "paper_steps": 1, "chunks": 1, "batches": (1,),
        "ego": "any", "skip_video": True, "skip_paper": True, "device": "cpu", "against": "replay", "also": (),
        "agents": ("constant-velocity", "standstill"), "preset": None, "suite": None, "ray": None, "shards": None,
    }  # fmt: skip
    changed: dict[str, Any] = {}
    drives, generated = verb in ("drive", "evaluate agent"), getattr(options, "scenes", None) == "generate"
    for field in dataclasses.fields(options):
        name, value = field.name, getattr(options, field.name)
        if name == "scenes" and generated:
            continue
        if name in fewest:
            changed[name] = () if isinstance(value, tuple) else min(value, fewest[name])
        elif drives and name in ("world", "weights", "place", "vehicles") and not generated:
            changed[name] = "replay" if name == "world" else None
        elif (
            name == "agent"
        ):  # agents that look at voxels want the full grid, and tiny weights have a smaller one
            changed[name] = "constant-velocity" if generated or value == "imagining-planner" else value
            if value.endswith((".safetensors", ".npz")):  # what a training or a drive would have written
                changed[name] = "learned"
        elif name in fixed:
            changed[name] = fixed[name]
        elif isinstance(value, Path):
            changed[name] = place / "out" / value.name if value.suffix else place / "out"
    if verb == "render":
        changed["out"] = place / "out" / "frame.png"
    if verb == "scenes edit":  # in the browser it serves until Ctrl-C; test_edit_page
        changed["browser"] = False
    if verb == "view":  # without a file it serves until Ctrl-C, and a window needs a display
        changed["html"], changed["open3d"] = place / "out" / "page.html", False
        changed["sources"] = (str(place / "out"),) * len(options.sources)
    return dataclasses.replace(options, **changed)


DONE: set[str] = set()
"""What was run already: many commands are the same in small."""


@pytest.mark.slow
@pytest.mark.parametrize("command", RUN, ids=str)
def test_every_command_runs_in_small(command, place, small, capsys):
    verb, rest = find_verb(command.arguments)
    if (
        verb in PARSED_ALONE
        or not verb
        or "--help" in rest
        or (not rest and verb in ("evaluate clips", "scenes info"))
    ):
        return  # understood by the test above
    if not rest and verb in ("scenes validate", "render", "view"):
        return
    _, options = parsed(command)
    options = in_small(verb, options, place, small)
    key = f"{verb} {options}".replace(str(place), "")
    if key in DONE:
        return
    DONE.add(key)
    if verb in ("render", "view"):
        drive = [
            "drive",
            "--world",
            "replay",
            "--scenes",
            str(place / "scenes"),
            "--seconds",
            "1",
            "--skip-video",
        ]
        assert main([*drive, "--out", str(place / "out")]) == 0
    importlib.import_module(f"occsora_sim.commands.{VERBS[verb][0]}").run(options)
    assert capsys.readouterr().out
