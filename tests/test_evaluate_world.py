"""The command `evaluate world`: any of its parts alone, and refusals in one line."""

import json

import pytest

from occsora_sim.cli import main
from occsora_sim.models.weights import save_world_model
from occsora_sim.models.world_model import WorldModel
from occsora_sim.presets import tiny
from occsora_sim.scenes.file import save_scene


@pytest.fixture
def options(built_street, tmp_path):
    """Options that name a folder with one street, and untrained tiny weights."""
    folder, weights = tmp_path / "scenes", tmp_path / "tiny.safetensors"
    folder.mkdir()
    save_scene(built_street(cars=[(60.0, 2.0, 4.0)]), folder / "street.safetensors")
    save_world_model(WorldModel(tiny()), weights, kind="world_model", trained_on="nothing", recipe={})
    return ["--scenes", str(folder), "--weights", str(weights)]


def test_control_and_drift_run_without_the_forecast(options, tmp_path, capsys):
    report = tmp_path / "world.json"
    extra = ["--no-forecast", "--control", "1", "--drift", "1", "--drift-seconds", "2"]
    extra += ["--revisit", "1", "--json", str(report)]
    assert main(["evaluate", "world", *options, *extra]) == 0
    figures = json.loads(report.read_text())
    assert set(figures) == {"scenes", "control", "drift", "revisit"}
    assert figures["control"]["starts"] == 1 and list(figures["drift"]["times"]) == ["2"]
    shown = capsys.readouterr().out
    assert "Control: 1 starts" in shown and "Drift: 1 rollouts" in shown
    # The block is wider than the record of so small a view, which forgets part of it.
    assert "Revisit: 1 rounds" in shown and 0.5 < figures["revisit"]["iou"] < 1


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--no-forecast"], "nothing to do"),
        (["--world", "replay", "--control", "1"], "--no-forecast"),
        (["--world", "replay", "--no-forecast", "--drift", "1", "--weights", "w"], "no --weights"),
        (["--control", "-1"], "--control -1"),
        (["--drift", "1", "--drift-seconds", "1"], "from 2 to 3600"),
        (["--drift", "1", "--drift-seconds", "nan"], "from 2 to 3600"),
        (["--batch", "0"], "must be 1 or more"),
    ],
)  # fmt: skip
def test_options_that_cannot_be_are_refused_in_one_line(arguments, says, capsys):
    assert main(["evaluate", "world", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1 and says in captured.err
