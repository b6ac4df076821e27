"""The command `evaluate world`: any of its parts alone, and refusals in one line."""

import json
from typing import Any

import pytest
import torch
from PIL import Image
from untrained import untrained_world_model

from occsora_sim.cli import main
from occsora_sim.models.weights import save_world_model
from occsora_sim.presets import tiny
from occsora_sim.scenes.file import save_scene
from occsora_sim.worlds.protocol import WorldState


@pytest.fixture
def options(built_street, tmp_path):
    """Options that name a folder with one street, and untrained tiny weights."""
    folder, weights = tmp_path / "scenes", tmp_path / "tiny.safetensors"
    folder.mkdir()
    save_scene(built_street(cars=[(60.0, 2.0, 4.0)]), folder / "street.safetensors")
    save_world_model(untrained_world_model(), weights, kind="world_model", trained_on="nothing", recipe={})
    return ["--scenes", str(folder), "--weights", str(weights)]


def test_control_and_drift_run_without_the_forecast(options, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("occsora_sim.scoring.scene_control.SECONDS", 2.0)
    report = tmp_path / "world.json"
    extra = ["--no-forecast", "--control", "1", "--drift", "1", "--drift-seconds", "2", "--steps", "1"]
    extra += ["--revisit", "1", "--scene-prompts", "1", "--json", str(report)]
    assert main(["evaluate", "world", *options, *extra]) == 0
    figures = json.loads(report.read_text())
    assert set(figures) == {"scenes", "control", "drift", "revisit", "scene_prompts"}
    assert figures["control"]["starts"] == 1 and list(figures["drift"]["times"]) == ["2"]
    shown = capsys.readouterr().out
    assert "Control: 1 starts" in shown and "Drift: 1 rollouts" in shown
    assert "Scene prompts, 1 starts" in shown and figures["scene_prompts"]["places_obeyed"] is None
    assert "Revisit: 1 rounds" in shown and figures["revisit"]["iou"] > 0.95


def test_pictures_of_forecasts_rollouts_and_starts_from_nothing(options, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("occsora_sim.scoring.examples.INSTANTS", (0.0, 1.0, 2.0))
    folder = tmp_path / "pictures"
    extra = ["--no-forecast", "--windows-per-scene", "2", "--steps", "1", "--pictures", str(folder)]
    assert main(["evaluate", "world", *options, *extra]) == 0
    sizes = {path.name: Image.open(path).size for path in folder.iterdir()}
    tile = tiny().grid.shape[0] + 6  # pixels, with the gap
    assert sizes == {
        "forecasts.png": (4 * tile + 6, 4 * tile + 6),  # two windows, a real and a drawn row each
        "rollouts.png": (3 * tile + 6, 2 * tile + 6),  # the street has one expert
        "nothing.png": (3 * tile + 6, 2 * tile + 6),
    }
    assert "written to" in capsys.readouterr().out


class Still:
    """A world whose frames never change."""

    frames_per_chunk = 2

    def __init__(self, grid):
        self.grid = grid

    def variant(self, **options):
        return self

    def reset(self, starts, seeds):
        frames = torch.stack([start.occupancy[-1:] for start in starts])
        return WorldState(occupancy=frames, ego_pose=torch.zeros(len(starts), 1, 3), memory=None)

    def step(self, state, trajectories):
        frames = state.occupancy[:, -1:].expand(-1, trajectories.shape[1], -1, -1, -1)
        return WorldState(occupancy=frames, ego_pose=state.ego_pose, memory=None)


def test_examples_are_the_best_the_middle_and_the_worst(built_street):
    from occsora_sim.scoring.examples import forecast_examples

    scene = built_street(cars=[(60.0, 2.0, 4.0)])
    still: Any = Still(tiny().grid)
    found = forecast_examples(still, [scene] * 4, per_scene=2)
    score = [int(example.name.split("mIoU ")[1].split(" %")[0]) for example in found]
    assert len(found) == 5 and score == sorted(score, reverse=True)
    for example in found:
        assert example.real is not None and example.real.shape == example.frames.shape
        assert torch.equal(example.real[0], example.frames[0])
        assert torch.equal(example.frames[3], example.frames[0]), "the still world"


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
        (["--world", "replay", "--no-forecast", "--pictures", "p"], "no --pictures"),
        (["--scene-prompts", "-1"], "--scene-prompts -1"),
        (["--traffic", "-1"], "--traffic -1"),
        (["--traffic", "1", "--drift-seconds", "3"], "of 4 or more"),
    ],
)  # fmt: skip
def test_options_that_cannot_be_are_refused_in_one_line(arguments, says, capsys):
    assert main(["evaluate", "world", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1 and says in captured.err
