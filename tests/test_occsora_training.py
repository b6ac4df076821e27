"""Claims on training and sampling OccSora's own model: clips, both stages, exact resume, and what is refused."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from occsora_sim.checkpoint import read_header, read_tensors
from occsora_sim.cli import main
from occsora_sim.commands.paper_cost import paper_seconds
from occsora_sim.errors import CheckpointError, ConfigurationError, SceneError
from occsora_sim.grid import CAR
from occsora_sim.models.occsora_world import OccSora, pose_steps
from occsora_sim.models.weights import load_occsora, load_world_model, read_config, save_world_model
from occsora_sim.models.world_model import WorldModel
from occsora_sim.presets import paper_tiny, tiny
from occsora_sim.scenes.file import save_scene
from occsora_sim.training import occsora
from occsora_sim.training.clips import ClipSampler
from occsora_sim.training.loop import LoopConfig, learning_rate
from occsora_sim.training.occsora import TokenizerTraining, WorldModelTraining


@pytest.fixture
def scenes(tmp_path, straight_road) -> str:
    folder = tmp_path / "scenes"
    folder.mkdir()
    save_scene(straight_road(cars=[(12.0, 0.0, 8.0), (20.0, -2.0, 0.0)]), folder / "road.safetensors")
    return str(folder)


@pytest.fixture(scope="module")
def untrained(tmp_path_factory) -> Path:
    """A tokenizer file of the preset `paper-tiny`."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "tokenizer.safetensors"
    save_world_model(OccSora(paper_tiny()), path, kind="tokenizer", trained_on="nothing", recipe={})
    return path


@pytest.fixture(scope="module")
def closed_loop(tmp_path_factory) -> Path:
    """A file of the closed-loop preset `tiny`, of the kind that the next stage asks for."""
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_world_model(WorldModel(tiny()), path, kind="tokenizer", trained_on="nothing", recipe={})
    return path


def stage_one(scenes: str, out: Path, init: Path | None = None, **options) -> Path:
    loop = dataclasses.replace(occsora.TOKENIZER_LOOP, steps=4, batch=1, checkpoint_every=2, **options)
    return occsora.train_tokenizer(
        TokenizerTraining(scenes=scenes, out=out, preset="paper-tiny", init=init, loop=loop)
    )


def stage_two(scenes: str, weights: Path, out: Path, **options) -> Path:
    loop = dataclasses.replace(occsora.DENOISER_LOOP, steps=4, batch=2, checkpoint_every=2, **options)
    training = WorldModelTraining(scenes=scenes, tokenizer=weights, preset="paper-tiny", out=out, loop=loop)
    return occsora.train_world_model(training)


def same(a: Path, b: Path) -> bool:
    kind = a.stem
    (one, _), (two, _) = (read_tensors(path, kind=kind) for path in (a, b))
    return one.keys() == two.keys() and all(torch.equal(one[k], two[k]) for k in one)


def cut_in_half(monkeypatch) -> None:
    """Let the next training be interrupted right after its checkpoint of step 2."""
    from occsora_sim.training import loop as module

    save = module._save

    def cut(*arguments, **options):
        save(*arguments, **options)
        if arguments[5] == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(module, "_save", cut)


def test_a_clip_is_a_recorded_motion_with_each_frame_in_its_own_ego_frame(straight_road):
    # The ego drives 8 m/s along x; a car stays 12 m - 1.3 m (half its length and more) ahead of its middle.
    scene = straight_road(cars=[(12.0, 0.0, 8.0)])
    sampler = ClipSampler([scene], paper_tiny().grid, frames=8)
    assert len(sampler) == 41 - 8 + 1
    labels, poses = sampler.clip(5)
    assert labels.shape == (8, 32, 32, 16) and labels.dtype == torch.uint8
    torch.testing.assert_close(poses[:, 0], 4.0 * torch.arange(5, 13).float())
    assert poses[:, 1:].abs().max() == 0
    assert (labels == CAR).any() and torch.equal((labels == CAR)[0], (labels == CAR)[7])


def test_clips_run_at_2_hz_whatever_the_scenes_step(straight_road):
    scene = dataclasses.replace(straight_road(), dt=0.25)
    sampler = ClipSampler([scene, straight_road()], paper_tiny().grid, frames=8)
    assert len(sampler) == (41 - 15 + 1) + (41 - 8 + 1)
    assert sampler.clip(26)[1][:, 0].tolist() == [4.0 * step for step in range(26, 41, 2)]  # its last one
    assert sampler.clip(27)[1][:, 0].tolist() == [4.0 * step for step in range(8)]  # the next scene's first


def test_clips_are_drawn_by_their_step_number_alone(straight_road):
    scene = straight_road()
    one, two = (ClipSampler([scene], paper_tiny().grid, frames=8, seed=seed) for seed in (3, 4))
    a, b = one.draw(4, 7), one.draw(4, 7)
    assert torch.equal(a.labels, b.labels) and torch.equal(a.poses, b.poses)
    assert not torch.equal(a.poses, one.draw(4, 8).poses)
    assert not torch.equal(a.poses, two.draw(4, 7).poses)


def test_motions_too_short_for_a_clip_are_refused_in_one_line(straight_road):
    scene = straight_road()
    scene = dataclasses.replace(scene, ego_valid=np.arange(41)[None] < 31)
    with pytest.raises(SceneError, match=r"32 frames, 15\.5 s") as error:
        ClipSampler([scene], paper_tiny().grid, frames=32)
    assert "\n" not in str(error.value)


def test_the_tokenizer_trains_resumes_exactly_and_is_not_averaged(tmp_path, scenes, monkeypatch):
    whole = stage_one(scenes, tmp_path / "whole")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        cut_in_half(patch)
        stage_one(scenes, tmp_path / "parts")
    assert not (tmp_path / "parts" / "tokenizer.safetensors").exists()
    assert same(whole, stage_one(scenes, tmp_path / "parts"))
    tensors, header = read_tensors(whole, kind="tokenizer")
    assert not [name for name in tensors if name.startswith("denoiser.")]
    assert header["config"]["preset"] == "paper-tiny" and header["trained_on"] == scenes
    resume, _ = read_tensors(whole.with_name("resume.safetensors"), kind="resume")
    torch.manual_seed(0)
    fresh = OccSora(paper_tiny()).tokenizer.state_dict()
    for name, start in fresh.items():
        assert torch.equal(tensors[f"tokenizer.{name}"], resume[f"model.{name}"]), name
        # A batch normalisation's gain may stand still where a gradient vanishes; its statistics may not.
        if name.endswith(("running_mean", "running_var", "qkv.weight", "codes", "vectors")):
            assert not torch.equal(tensors[f"tokenizer.{name}"], start), name


def test_the_denoiser_trains_on_a_tokenizer_left_alone_and_resumes_exactly(
    tmp_path, scenes, untrained, monkeypatch
):
    whole = stage_two(scenes, untrained, tmp_path / "whole", ema=0.5)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        cut_in_half(patch)
        stage_two(scenes, untrained, tmp_path / "parts", ema=0.5)
    assert same(whole, stage_two(scenes, untrained, tmp_path / "parts", ema=0.5))
    before, _ = read_tensors(untrained, kind="tokenizer")
    resume, _ = read_tensors(whole.with_name("resume.safetensors"), kind="resume")
    assert all(torch.equal(resume[f"model.{name}"], tensor) for name, tensor in before.items())
    after, header = read_tensors(whole, kind="world_model")
    # Zero at the start; the file has the average, the resume file both.
    head, name = after["denoiser.head.weight"], "denoiser.head.weight"
    assert head.abs().max() > 0 and torch.equal(head, resume[f"ema.{name}"].to(head.dtype))
    assert not torch.equal(head, resume[f"model.{name}"].to(head.dtype))
    assert set(header["recipe"]) == {"world_model"}


def test_the_command_line_trains_both_stages_with_the_published_recipe_and_the_result_samples(
    tmp_path, scenes, capsys
):
    short = ["--scenes", scenes, "--steps", "1", "--batch", "1"]
    first, second = str(tmp_path / "one"), str(tmp_path / "two")
    assert main(["train", "tokenizer", "--preset", "paper-tiny", "--out", first, *short]) == 0
    weights = capsys.readouterr().out.strip()
    recipe = read_header(Path(weights), kind="tokenizer")["recipe"]["tokenizer"]
    assert recipe["loop"] == dataclasses.asdict(dataclasses.replace(occsora.TOKENIZER_LOOP, steps=1, batch=1))
    # The tokenizer's file says which preset comes next; what is said on the command line still holds.
    assert (
        main(["train", "world-model", "--tokenizer", weights, "--out", second, *short, "--lr", "1e-4"]) == 0
    )
    weights = capsys.readouterr().out.strip()
    model, header = load_occsora(Path(weights), preset="paper-tiny")
    assert header["recipe"]["world_model"]["loop"] == dataclasses.asdict(
        dataclasses.replace(occsora.DENOISER_LOOP, steps=1, batch=1, lr=1e-4)
    )
    poses = torch.zeros(2, 8, 3)
    poses[..., 0] = 2.5 * torch.arange(8)
    drawn = model.sample(pose_steps(poses), [torch.Generator().manual_seed(seed) for seed in (1, 2)], steps=3)
    assert drawn.shape == (2, 8, 32, 32, 16) and drawn.dtype == torch.uint8 and drawn.max() < 18


@pytest.mark.slow
def test_the_script_trains_both_stages_and_goes_on_where_it_was_stopped(tmp_path, scenes):
    root = Path(__file__).parent.parent
    env = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PRESET": "paper-tiny", "TOKENIZER_STEPS": "2", "DENOISER_STEPS": "2", "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    line = ["sh", str(root / "scripts" / "train_paper.sh"), str(tmp_path / "out")]
    line += ["--scenes", scenes, "--batch", "1", "--precision", "float32"]
    stopped = subprocess.run(line, env=env | {"PART": "0.1"}, capture_output=True, text=True, timeout=300)
    assert stopped.returncode == 124 and not (tmp_path / "out" / "world-model").exists()
    whole = subprocess.run(line, env=env, capture_output=True, text=True, timeout=600)
    assert whole.returncode == 0, whole.stderr
    again = subprocess.run(line, env=env, capture_output=True, text=True, timeout=600)
    assert again.returncode == 0 and again.stderr.count("finished before") == 2
    model, _ = load_occsora(Path(whole.stdout.splitlines()[-1]))
    assert model.config == paper_tiny()


def test_the_published_recipe_is_a_cosine_for_the_tokenizer_and_constant_for_the_denoiser():
    one, two = occsora.TOKENIZER_LOOP, occsora.DENOISER_LOOP
    assert learning_rate(one, 0.0, one.warmup) == pytest.approx(1e-3)
    assert learning_rate(one, 1.0, one.steps) == pytest.approx(1e-6)
    assert {learning_rate(two, step / two.steps, step) for step in (0, 1000, two.steps)} == {1e-5}
    assert learning_rate(LoopConfig(lr=1.0), 1.0, 1000) == pytest.approx(0.02)
    with pytest.raises(ConfigurationError, match="lr_floor"):
        LoopConfig(lr_floor=1.5)


def test_the_families_do_not_take_each_others_weights(untrained, closed_loop):
    assert read_config(untrained, kind="tokenizer") == paper_tiny()
    assert read_config(closed_loop, kind="tokenizer") == tiny()
    cases: list[tuple[Any, Path, dict[str, str], str]] = [
        (load_occsora, closed_loop, {"kind": "tokenizer"}, "closed-loop preset 'tiny'"),
        (load_world_model, untrained, {"kind": "tokenizer"}, "'paper-tiny', which draws whole clips"),
        (load_occsora, untrained, {}, "a 'tokenizer' checkpoint"),
        (load_occsora, untrained, {"kind": "tokenizer", "preset": "paper"}, "'paper-tiny', not 'paper'"),
    ]
    for load, path, options, said in cases:
        with pytest.raises(CheckpointError, match=said) as error:
            load(path, **options)
        assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_weights_of_an_unknown_family_or_without_one(tmp_path, closed_loop):
    from occsora_sim.checkpoint import write_tensors

    tensors, header = read_tensors(closed_loop, kind="tokenizer")
    old = {name: value for name, value in header.items() if name != "family"}
    write_tensors(tmp_path / "old.safetensors", tensors, old)
    with pytest.raises(CheckpointError, match="does not know"):
        read_config(tmp_path / "old.safetensors", kind="tokenizer")
    write_tensors(tmp_path / "new.safetensors", tensors, header | {"family": "video"})
    with pytest.raises(CheckpointError, match="'video'"):
        read_config(tmp_path / "new.safetensors", kind="tokenizer")


def test_a_preset_of_the_other_family_is_refused(tmp_path):
    with pytest.raises(ConfigurationError, match="'tiny' is driven"):
        occsora.train_tokenizer(TokenizerTraining(preset="tiny", out=tmp_path))
    with pytest.raises(ConfigurationError, match="'small' is driven"):
        occsora.train_world_model(WorldModelTraining(preset="small", out=tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_the_command_line_refuses_what_does_not_fit_in_one_line(
    tmp_path, scenes, untrained, closed_loop, capsys
):
    out = ["--scenes", scenes, "--out", tmp_path / "out"]
    for arguments, said in [
        (["train", "world-model", "--preset", "paper", "--tokenizer", closed_loop, *out], "not 'paper'"),
        (["train", "world-model", "--tokenizer", closed_loop, *out], "give weights of the preset 'paper'"),
        (["train", "world-model", "--preset", "paper", "--tokenizer", untrained, *out], "not 'paper'"),
        (["train", "tokenizer", "--preset", "small", *out], "draws no whole clips"),
        (["train", "world-model", "--preset", "papyrus", *out], "preset 'papyrus' is unknown"),
        (["train", "world-model", "--tokenizer", tmp_path / "none", *out], "no such weights file"),
        (["bench", "--preset", "paper", "--skip-paper"], "choose one of base, small, tiny"),
    ]:
        assert main(list(map(str, arguments))) == 2
        captured = capsys.readouterr()
        assert said in captured.err and captured.err.count("\n") == 1 and captured.out == "", captured.err


def test_help_shows_the_published_defaults(capsys):
    for command, lr in [("tokenizer", "0.001"), ("world-model", "1e-05")]:
        assert main(["train", command, "--help"]) == 0
        line = next(text for text in capsys.readouterr().out.splitlines() if "--lr FLOAT" in text)
        assert f"(default: {lr})" in line


def test_the_papers_time_is_its_steps_and_one_decoding():
    seconds, source = paper_seconds("cpu", 0, paper_tiny(), steps=2)
    assert seconds == pytest.approx(1000 * source["seconds_per_step"] + source["seconds_decoding"])
    assert (source["preset"], source["steps_timed"], source["frames"]) == ("paper-tiny", 2, 8)
    assert source["seconds_per_step"] > 0 and source["seconds_decoding"] > 0
    model = OccSora(paper_tiny())
    assert source["parameters"] == sum(parameter.numel() for parameter in model.parameters())


def test_a_pool_of_clips_is_encoded_once_and_resuming_on_it_is_exact(
    scenes, untrained, tmp_path, monkeypatch
):
    encoded = []
    latents = OccSora.latents

    def counted(self, clips):
        encoded.append(len(clips))
        return latents(self, clips)

    monkeypatch.setattr(OccSora, "latents", counted)

    def train(out: Path) -> Path:
        loop = dataclasses.replace(occsora.DENOISER_LOOP, steps=4, batch=2, checkpoint_every=2)
        return occsora.train_world_model(
            WorldModelTraining(scenes=scenes, tokenizer=untrained, out=out, pool=3, loop=loop)
        )

    whole = train(tmp_path / "whole")
    assert len(encoded) == 3
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        cut_in_half(patch)
        train(tmp_path / "parts")
    assert same(whole, train(tmp_path / "parts"))
    assert len(encoded) == 6, "the resumed training has its pool from the first"


def test_a_decoder_learns_on_and_the_codes_stay(scenes, untrained, tmp_path):
    path = stage_one(scenes, tmp_path / "out", init=untrained)
    (before, _), (after, header) = (read_tensors(one, kind="tokenizer") for one in (untrained, path))
    changed = {name.split(".")[1] for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"decoder"}
    assert header["recipe"]["decoder"]["init"] == str(untrained)


def test_a_tokenizer_of_other_sizes_is_refused(scenes, tmp_path):
    tiny_one = paper_tiny()
    other = dataclasses.replace(tiny_one, tokenizer=dataclasses.replace(tiny_one.tokenizer, codes=32))
    save_world_model(OccSora(other), tmp_path / "other", kind="tokenizer", trained_on="nothing", recipe={})
    with pytest.raises(CheckpointError, match="of other sizes than paper-tiny has now"):
        stage_one(scenes, tmp_path / "out", init=tmp_path / "other")


def test_muon_trains_the_blocks_and_is_another_training(scenes, untrained, tmp_path):
    loop = dataclasses.replace(occsora.DENOISER_LOOP, steps=2, batch=1, lr=1e-2)

    def train(muon: bool) -> dict[str, torch.Tensor]:
        out = tmp_path / str(muon)
        options = WorldModelTraining(scenes=scenes, tokenizer=untrained, out=out, muon=muon, loop=loop)
        return read_tensors(occsora.train_world_model(options), kind="world_model")[0]

    adam, muon = train(False), train(True)
    changed = {name for name in adam if not torch.equal(adam[name], muon[name])}
    # After two steps gradients have come as far as the gates of new blocks; outside the blocks both are AdamW.
    assert changed == {f"denoiser.blocks.{number}.modulation.weight" for number in range(2)}


def test_processes_that_would_draw_clips_are_refused(tmp_path, scenes):
    with pytest.raises(ConfigurationError, match="--workers 2"):
        stage_one(scenes, tmp_path, workers=2)
