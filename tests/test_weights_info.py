"""Claims on `weights info`: what it says of weights of both designs, of others, and of files that are none."""

import json
from pathlib import Path

import pytest
import torch
from untrained import untrained_world_model

from occsora_sim.agents.learned import shipped_policy
from occsora_sim.checkpoint import read_header, write_tensors
from occsora_sim.cli import main
from occsora_sim.commands.weights_history import history
from occsora_sim.models.occsora_world import OccSora
from occsora_sim.models.occupancy_encoder import OccupancyEncoder, OccupancyEncoderConfig, save_encoder
from occsora_sim.models.weights import save_world_model
from occsora_sim.presets import paper_tiny
from occsora_sim.training.ground.train import GroundTraining
from occsora_sim.training.loop import LoopConfig
from occsora_sim.training.traffic import TrafficTraining


def told(path: Path, tmp_path: Path, capsys) -> tuple[dict, str]:
    """What --json says of a file, and what is printed, on one line."""
    out = tmp_path / "info.json"
    assert main(["weights", "info", str(path), "--json", str(out)]) == 0
    return json.loads(out.read_text()), " ".join(capsys.readouterr().out.split())


def refusal(capsys, path: Path) -> str:
    """The line that a refused file leaves on standard error."""
    assert main(["weights", "info", str(path)]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1, captured.err
    return captured.err


def learned(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_a_closed_loop_model_is_told_part_by_part_with_the_trainings_before(tmp_path, capsys):
    model, path = untrained_world_model(), tmp_path / "weights.safetensors"
    first = {
        "traffic": TrafficTraining(scenes="traffic:0-3"),
        "ground": GroundTraining(scenes="motorway:0-1"),
    }
    on = GroundTraining(
        scenes="logs", init=Path("runs/first.safetensors"), loop=LoopConfig(minutes=30, seed=7)
    )
    save_world_model(model, path, kind="world_model", trained_on="motorway:0-1", recipe=first)
    recipe = {"init": read_header(path, kind="world_model")["recipe"], "ground": on}
    save_world_model(model, path, kind="world_model", trained_on="logs", recipe=recipe)
    found, said = told(path, tmp_path, capsys)
    assert (found["kind"], found["family"], found["preset"]) == ("world_model", "closed-loop", "tiny")
    assert found["trained_on"] == "logs" and found["refused"] is None and found["types"] == ["F16"]
    assert found["bytes"] == path.stat().st_size
    assert found["parameters"] == {
        "ground.plan": learned(model.ground.plan), "ground.fine": learned(model.ground.fine),
        "traffic": learned(model.traffic), "entries": learned(model.entries),
    }  # fmt: skip
    newest, *before = found["history"]
    assert newest["trained"] == "ground" and newest["scenes"] == "logs"
    assert (newest["minutes"], newest["seed"]) == (30, 7)
    assert newest["begun_from"] == {"init": "runs/first.safetensors"}
    assert [(one["trained"], one["scenes"]) for one in before] == [
        ("ground", "motorway:0-1"), ("traffic", "traffic:0-3"),
    ]  # fmt: skip
    assert list(before[0]["stages"].items()) == [("plan", 6000), ("ground", 8000)]
    assert list(before[1]["stages"]) == ["traffic", "rollout", "entry"]
    assert "closed-loop, preset tiny" in said and "48 x 48 x 16" in said and "newest first" in said


def test_weights_of_one_part_say_so(tmp_path, capsys):
    path = tmp_path / "traffic.safetensors"
    save_world_model(untrained_world_model(), path, kind="traffic", trained_on="logs", recipe={})
    found, said = told(path, tmp_path, capsys)
    assert found["kind"] == "traffic" and set(found["parameters"]) == {"traffic", "entries"}
    assert found["history"] == [] and "newest first" not in said


def test_the_published_design_is_told_without_what_is_measured(tmp_path, capsys):
    model, path = OccSora(paper_tiny()), tmp_path / "paper.safetensors"
    save_world_model(model, path, kind="world_model", trained_on="nothing", recipe={})
    found, _ = told(path, tmp_path, capsys)
    assert (found["family"], found["preset"]) == ("open-loop", "paper-tiny")
    assert found["parameters"] == {
        "tokenizer": learned(model.tokenizer), "denoiser": learned(model.denoiser),
    }  # fmt: skip


def test_policies_and_encoders_are_told_too(tmp_path, capsys):
    found, _ = told(shipped_policy(), tmp_path, capsys)
    assert found["kind"] == "policy" and found["history"][0]["trained"] == "agent"
    encoder, path = OccupancyEncoder(OccupancyEncoderConfig(width=8)), tmp_path / "encoder.safetensors"
    save_encoder(encoder, path, {"trained_on": "traffic:0", "steps": 3})
    found, said = told(path, tmp_path, capsys)
    assert found["parameters"] == {"network": learned(encoder)} and found["steps"] == 3
    assert "traffic:0" in said


def test_no_tensor_is_read(tmp_path, capsys, monkeypatch):
    path = tmp_path / "weights.safetensors"
    save_world_model(untrained_world_model(), path, kind="world_model", trained_on="", recipe={})

    def loaded(*_):
        raise AssertionError("a model was made")

    monkeypatch.setattr("occsora_sim.models.weights.WorldModel.__init__", loaded)
    monkeypatch.setattr("occsora_sim.models.weights.read_tensors", loaded)
    assert told(path, tmp_path, capsys)[0]["preset"] == "tiny"
    # All of the numbers may be gone, as long as the file is as long as it says.
    content = path.read_bytes()
    begin = 8 + int.from_bytes(content[:8], "little")
    path.write_bytes(content[:begin] + b"\xff" * (len(content) - begin))
    assert told(path, tmp_path, capsys)[0]["preset"] == "tiny"


def test_weights_that_this_release_cannot_use_are_told_and_say_so(tmp_path, capsys):
    path = tmp_path / "old.safetensors"
    header = {"kind": "world_model", "family": "closed-loop", "config": {"preset": "small", "depth": 6}}
    write_tensors(path, {"denoiser.a": torch.zeros(2, 3)}, header)
    found, said = told(path, tmp_path, capsys)
    assert found["parameters"] == {"denoiser": 6} and found["configuration"] == {"depth": 6}
    assert "does not fit this release" in found["refused"] and "refused" in said


def test_a_training_that_two_others_began_from_stands_once():
    first = {"ground": {"scenes": "a", "loop": {"steps": 1}}}
    whole = {"init": first, "traffic": {"init": first, "denoiser": {"scenes": "b", "loop": {"steps": 2}}}}
    assert [(one.trained, one.scenes) for one in history(whole)] == [("denoiser", "b"), ("ground", "a")]


def test_what_is_no_weights_file_is_refused_in_one_line(tmp_path, capsys):
    path = tmp_path / "file.safetensors"
    assert "no such weights file" in refusal(capsys, path)
    path.write_text("weights, surely")
    assert "damaged" in refusal(capsys, path)
    write_tensors(path, {"a": torch.zeros(2)}, {"kind": "resume", "step": 3})
    assert "which a training goes on from" in refusal(capsys, path)
    path.write_bytes(path.read_bytes()[:60])
    assert "damaged" in refusal(capsys, path)
    assert "no such weights file" in refusal(capsys, tmp_path)


@pytest.mark.parametrize(
    "config", [[], "x", {"grid": 3, "ground": {"kinds": "many"}}, {"history": float("nan")}]
)
@pytest.mark.parametrize(
    "recipe", [None, [1], {"init": 5, "ground": {"loop": "x"}}, {"a\x1b[2J": {"loop": {}}}]
)
def test_a_header_of_odd_types_and_control_characters_does_no_harm(config, recipe, tmp_path, capsys):
    path = tmp_path / "odd.safetensors"
    header = {
        "kind": "world_model", "family": "closed-loop", "config": config, "recipe": recipe, "trained_on": "\x1b[31m",
    }  # fmt: skip
    write_tensors(path, {"a\x1b": torch.zeros(2)}, header)
    found, said = told(path, tmp_path, capsys)
    assert found["refused"] and "\x1b" not in said
