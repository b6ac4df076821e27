"""Claims on `train ground`: it learns, resumes exactly, keeps the books that it is given, and its weights load."""

import multiprocessing
from pathlib import Path

import pytest
import torch
from untrained import untrained_world_model

from occsora_sim.checkpoint import read_header, read_tensors
from occsora_sim.cli import main
from occsora_sim.errors import CheckpointError, ConfigurationError, SceneError
from occsora_sim.models.ground.hourglass import Hourglass
from occsora_sim.models.ground.palette import GROUPS
from occsora_sim.models.weights import load_world_model, save_world_model
from occsora_sim.models.world_model import WorldModel
from occsora_sim.presets import small, tiny
from occsora_sim.scenes.file import save_scene
from occsora_sim.training.ground import samples
from occsora_sim.training.ground import train as module
from occsora_sim.training.ground.crops import CropSampler, columns_of, tokeniser
from occsora_sim.training.ground.towns import towns_of
from occsora_sim.training.ground.train import GroundTraining, train_ground
from occsora_sim.training.loop import LoopConfig


@pytest.fixture(scope="module")
def scenes(tmp_path_factory, built_street) -> str:
    path = tmp_path_factory.mktemp("scenes") / "street.safetensors"
    save_scene(built_street(), path)
    return str(path)


def train(scenes: str, out: Path, steps: int = 4, options: dict | None = None, **loop) -> Path:
    config = LoopConfig(**{
        "steps": steps, "batch": 2, "lr": 2e-3, "warmup": 2, "precision": "float32", "checkpoint_every": 2, **loop,
    })  # fmt: skip
    given = {"preset": "tiny", "plan_steps": steps, "validate": "", **(options or {})}
    return train_ground(GroundTraining(scenes=scenes, out=out, loop=config, **given))


def tensors(path: Path) -> dict[str, torch.Tensor]:
    return read_tensors(path, kind="world_model")[0]


def equal(one: Path, two: Path) -> bool:
    a, b = tensors(one), tensors(two)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_a_training_that_was_interrupted_ends_with_the_same_weights_and_rasterises_once(
    scenes, tmp_path, monkeypatch
):
    from occsora_sim.training import loop

    whole = train(scenes, tmp_path / "whole")
    made, save, rasterised = [], loop._save, module.towns_of

    def counted(*arguments, **options):
        made.append(1)
        return rasterised(*arguments, **options)

    monkeypatch.setattr(module, "towns_of", counted)

    def cut(*arguments, **options):
        save(*arguments, **options)
        if arguments[5] == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(loop, "_save", cut)
        with pytest.raises(KeyboardInterrupt):  # halfway through the plan
            train(scenes, tmp_path / "parts")
        with pytest.raises(KeyboardInterrupt):  # halfway through the ground
            train(scenes, tmp_path / "parts")
    assert equal(whole, train(scenes, tmp_path / "parts"))
    assert len(made) == 1


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="this system cannot fork")
def test_crops_drawn_ahead_by_processes_give_the_same_weights(scenes, tmp_path):
    one = train(scenes, tmp_path / "alone", 2)
    assert equal(one, train(scenes, tmp_path / "ahead", 2, workers=2))


def test_it_learns_one_town_and_its_curves_say_so(scenes, tmp_path, capsys):
    path = train(scenes, tmp_path / "run", 40, {"validate": scenes}, lr=5e-3, batch=4, log_every=2, ema=0.9)
    said = capsys.readouterr().err
    nats = [float(line.split(" nats")[0].split()[-1]) for line in said.splitlines() if " nats" in line]
    first = [float(line.split("loss ")[1].split()[0]) for line in said.splitlines() if "step 1 of 40" in line]
    assert len(nats) == 2 and all(after < 0.8 * before for before, after in zip(first, nats, strict=True)), (
        said
    )
    assert list((path.parent / "tensorboard").iterdir()) and list(
        (path.parent / "plan" / "tensorboard").iterdir()
    )
    model, header = load_world_model(path)
    assert header["recipe"]["ground"]["plan_steps"] == 40 and header["trained_on"] == scenes
    assert (
        model.ground.palette.any() and model.ground.fine.contents.any() and model.ground.plan.contents.any()
    )


def test_samples_of_places_held_apart_are_shown_and_change_no_weights(scenes, tmp_path, monkeypatch):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.setattr(module, "_VALIDATED", 1)
    alone = train(scenes, tmp_path / "alone", 3, log_every=1)
    tried = train(scenes, tmp_path / "tried", 3, {"validate": scenes}, log_every=1)
    assert equal(alone, tried)
    for name, folder in (("plan", tried.parent / "plan"), ("ground", tried.parent)):
        curves = EventAccumulator(str(folder / "tensorboard"), size_guidance={"images": 0}).Reload()
        sheets = curves.Images(f"{name}/samples")
        assert [sheet.step for sheet in sheets] == [1, 2, 3]
        assert all(sheet.width == 2 * sheet.height for sheet in sheets)  # four windows, recorded and redrawn


def test_a_sheet_redraws_the_tile_alone_and_the_same_each_time(built_street):
    model = untrained_world_model()
    ground = model.ground
    towns = towns_of([built_street()], model.config.grid, cell=0.2, palette=ground.palette)
    assert len(samples.COLOURS) == len(GROUPS)
    for painter in (ground.plan, ground.fine):
        sampler = CropSampler(towns, columns_of(painter.config), ground.config.column, 30.0)
        sheet = samples.Samples(sampler, tokeniser(ground, painter), ground, torch.device("cpu"))
        before = torch.get_rng_state()
        picture = sheet(painter)
        assert torch.equal(picture, sheet(painter)) and torch.equal(before, torch.get_rng_state())
        assert picture.dtype == torch.uint8 and picture.shape[0] == 3
        height = picture.shape[1] // 2
        recorded, redrawn = picture[:, :height], picture[:, height:]
        inside = torch.zeros(height, height, dtype=torch.bool)
        inside[height // 4 - 1 : -(height // 4 - 1), height // 4 - 1 : -(height // 4 - 1)] = True
        for window in range(samples.WINDOWS):
            columns = slice(window * height, (window + 1) * height)
            changed = (recorded[:, :, columns] != redrawn[:, :, columns]).any(0)
            assert changed[inside].any() and not changed[~inside].any()


def test_ground_that_learns_on_keeps_its_books_and_everything_else(scenes, tmp_path):
    first = train(scenes, tmp_path / "first", 2)
    on = {"init": first, "preset": "small"}  # the sizes are the weights' own
    second = train(scenes, tmp_path / "on", 2, on, lr=1e-2)
    before, after = tensors(first), tensors(second)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed and all(name.startswith(("ground.plan.", "ground.fine.")) for name in changed)
    assert not [name for name in changed if name.endswith("contents")]
    assert read_header(second, kind="world_model")["recipe"]["init"]["ground"]


def test_road_users_come_from_a_training_of_theirs_and_from_no_other_grid(scenes, tmp_path):
    torch.manual_seed(5)
    traffic = tmp_path / "traffic.safetensors"
    other = WorldModel(tiny())
    save_world_model(other, traffic, kind="traffic", trained_on="nothing", recipe={"traffic": {"steps": 1}})
    path = train(scenes, tmp_path / "run", 1, {"traffic": traffic})
    weights, header = read_tensors(path, kind="world_model")
    theirs = other.traffic.state_dict()
    assert all(torch.equal(weights[f"traffic.{name}"], value.half()) for name, value in theirs.items())
    assert set(header["recipe"]) == {"traffic", "ground"}
    save_world_model(WorldModel(small()), traffic, kind="traffic", trained_on="nothing", recipe={})
    with pytest.raises(CheckpointError, match="train them with --preset tiny") as error:
        train(scenes, tmp_path / "no", 1, {"traffic": traffic})
    assert "\n" not in str(error.value)


def test_compiled_blocks_learn_the_same_to_rounding(scenes, tmp_path, monkeypatch):
    """Traced, as for a GPU, but without the minute of generating code."""
    graphs = []
    compile_ = torch.nn.Module.compile

    def traced(graph, example_inputs):
        graphs.append(graph)
        return graph.forward

    monkeypatch.setattr(torch.nn.Module, "compile", lambda self: compile_(self, backend=traced))
    one = train(scenes, tmp_path / "one", 2)
    assert not graphs
    two = train(scenes, tmp_path / "two", 2, {"compile": True})
    assert graphs and isinstance(load_world_model(two)[0].ground.fine.body, Hourglass)
    a, b = tensors(one), tensors(two)
    assert all(torch.allclose(a[name].float(), b[name].float(), atol=1e-2) for name in a)


def test_the_command_line_says_where_the_weights_are(scenes, tmp_path, capsys):
    arguments = ["train", "ground", "--preset", "tiny", "--scenes", scenes, "--out", str(tmp_path / "run")]
    short = ["--validate", "", "--steps", "1", "--plan-steps", "1", "--batch", "1"]
    assert main([*arguments, *short]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "run" / "world_model.safetensors")
    assert main([*arguments[:-1], str(tmp_path / "no"), *short, "--plan-steps", "-1"]) == 2
    assert "--plan-steps -1 must be 0 or more" in capsys.readouterr().err


def test_what_cannot_be_trained_is_refused(scenes, tmp_path):
    with pytest.raises(ConfigurationError, match="cannot be driven"):
        train(scenes, tmp_path / "a", 1, {"preset": "paper-tiny"})
    with pytest.raises(SceneError, match="no such"):
        train(str(tmp_path / "nowhere"), tmp_path / "b", 1)
