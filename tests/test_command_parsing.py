"""The command line before any command runs: finding the verb, reading options, refusing in one line."""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Literal

import gymnasium as gym
import pytest
import torch

from occsora_sim.cli import VERBS, find_verb, main
from occsora_sim.commands.output import output_file, output_folder, write_json
from occsora_sim.commands.parsing import one_line, parse, parse_command
from occsora_sim.device import check_device
from occsora_sim.errors import ConfigurationError
from occsora_sim.worlds.diffusion import load_world
from occsora_sim.worlds.replay import ReplayWorld


@dataclass(frozen=True, kw_only=True)
class Tea:
    """Options of a command that only the tests have.

    Attributes:
        kind: what to brew.
        minutes: how long [min].
        milk: pour some in.

    """

    kind: Literal["green", "black"] = "green"
    minutes: float = 3.0
    milk: bool = False

    def __post_init__(self) -> None:
        if self.minutes <= 0:
            raise ConfigurationError(f"minutes {self.minutes} must be positive")


def refusal(*arguments: str) -> str:
    with pytest.raises(ConfigurationError) as caught:
        parse(Tea, "brew", "brew tea", arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_options_are_read():
    assert parse(Tea, "brew", "brew tea", []) == Tea()
    assert parse(Tea, "brew", "brew tea", ["--kind", "black", "--milk"]) == Tea(kind="black", milk=True)


def test_defaults_may_follow_from_an_option_and_what_is_said_holds():
    shop = SimpleNamespace(Options=Tea, defaults=lambda tea: Tea(minutes=5.0 if tea.kind == "black" else 2.0))

    def read(*arguments: str) -> Tea | None:
        return parse_command(shop, "brew", "brew tea", arguments)

    assert read() == Tea(minutes=2.0)
    assert read("--kind", "black") == Tea(kind="black", minutes=5.0)
    assert read("--kind", "black", "--minutes", "1") == Tea(kind="black", minutes=1.0)
    assert parse_command(SimpleNamespace(Options=Tea), "brew", "brew tea", ["--milk"]) == Tea(milk=True)


def test_help_shows_the_defaults_that_follow(capsys):
    shop = SimpleNamespace(Options=Tea, defaults=lambda tea: Tea(minutes=5.5))
    assert parse_command(shop, "brew", "brew tea", ["--help"]) is None
    assert "5.5" in capsys.readouterr().out


def test_usage_errors_say_what_and_where_help_is_in_one_line():
    assert refusal("--kind", "blue").startswith("brew: invalid choice 'blue' for argument '--kind'")
    assert "'green', 'black'" in refusal("--kind", "blue")
    assert "did you mean --minutes?" in refusal("--minute", "3")
    assert "'x'" in refusal("--minutes", "x")
    assert "--minutes" in refusal("--minutes")
    assert refusal("pot") == "brew: unrecognized options: pot; see brew --help"
    assert refusal("--minutes", "-1").startswith("brew: ") and "must be positive" in refusal(
        "--minutes", "-1"
    )


def test_a_report_without_box_characters_is_one_line_too():
    report = (
        " Unrecognized options \n ---------------- \n  Unrecognized options: --sed, 3 \n  --------------\n"
        "  Perhaps you meant:\n      --seed INT\n          (default: 0)\n  --------------\n  For full help\n"
    )
    assert one_line(report, "brew") == (
        "brew: unrecognized options: --sed, 3; did you mean --seed? see brew --help"
    )


def test_help_lists_options_with_their_meaning(capsys):
    assert parse(Tea, "brew", "brew tea", ["--help"]) is None
    shown = capsys.readouterr().out
    assert "--minutes" in shown and "how long [min]" in shown and "Brew tea." in shown


def test_the_verb_is_found_among_one_and_two_words():
    assert find_verb(["bench", "--json", "x"]) == ("bench", ["--json", "x"])
    assert find_verb(["scenes", "info", "a.scene"]) == ("scenes info", ["a.scene"])
    assert find_verb(["train", "--help"]) == ("", ["train"])


def test_no_arguments_and_help_list_every_command(capsys):
    for arguments in ([], ["--help"], ["-h"]):
        assert main(arguments) == 0
        shown = capsys.readouterr().out
        assert all(verb in shown for verb in VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_that_is_offered_explains_itself(verb, capsys):
    assert main([*verb.split(), "--help"]) == 0
    captured = capsys.readouterr()
    assert f"usage: occsora-sim {verb}" in captured.out
    assert captured.err == ""


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["drvie"], "unknown command 'drvie'"),
        (["scenes"], "say which: scenes make"),
        (["train", "engine"], "say which: train traffic, train ground, train tokenizer"),
        (["drive", "--sed", "3"], "unrecognized options: --sed"),
    ],
)
def test_a_wrong_command_ends_with_status_2_and_one_line(arguments, says, capsys):
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1 and says in captured.err and captured.err.startswith("occsora-sim")


def test_help_is_quick_to_load_and_brings_no_optional_library_in():
    code = (
        "import sys; from occsora_sim.cli import main; main(['drive', '--help']); "
        "sys.exit(' '.join({'open3d', 'libsumo', 'tensorboard', 'imageio'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_an_interrupt_ends_with_130(monkeypatch, capsys):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("occsora_sim.commands.parsing.parse", interrupted)
    assert main(["bench"]) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_an_unknown_device_names_those_there_are():
    assert check_device("cpu") == "cpu"
    for name in ("cuda:99", "toaster"):
        with pytest.raises(
            ConfigurationError, match=f"device '{name}' cannot be used here: .*there is cpu"
        ) as caught:
            check_device(name)
        assert "\n" not in str(caught.value)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_cuda_without_cuda_says_what_to_install_in_python_and_on_the_command_line(capsys, monkeypatch):
    ways = (
        lambda: gym.make("OccSora/Drive-v0", device="cuda"),
        lambda: gym.make("OccSora/Drive-v0", world="replay", device="cuda"),
        lambda: load_world(device="cuda"),
        lambda: ReplayWorld(device="cuda:1"),
    )
    for cuda, remedy in ((None, "pip install --force-reinstall torch=="), ("13.0", "driver")):
        monkeypatch.setattr(torch.version, "cuda", cuda)
        monkeypatch.setattr(torch.version, "hip", None)
        for way in ways:
            with pytest.raises(ConfigurationError, match=r"^device 'cuda[^\n]+$") as caught:
                way()
            assert remedy in str(caught.value)
        assert main(["bench", "--device", "cuda"]) == 2
        said = capsys.readouterr().err
        assert remedy in said and said.count("\n") == 1


def test_an_output_folder_is_made_and_a_file_in_the_way_is_refused(tmp_path: Path):
    assert output_folder(tmp_path / "a" / "b").is_dir()
    (tmp_path / "file").write_text("mine")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(ConfigurationError, match="file is in the way"):
            output_folder(path)
    with pytest.raises(ConfigurationError, match="is a folder"):
        output_file(tmp_path)
    assert (tmp_path / "file").read_text() == "mine"


def test_json_is_written_whole_or_not_at_all(tmp_path: Path):
    path = tmp_path / "deep" / "report.json"
    write_json(path, {"score": 0.5})
    assert path.read_text() == '{\n  "score": 0.5\n}\n'
    with pytest.raises(ValueError):
        write_json(path, {"score": float("nan")})
    assert path.read_text() == '{\n  "score": 0.5\n}\n'
    assert [entry.name for entry in path.parent.iterdir()] == ["report.json"]
