"""Claims about designs held side by side: known answers, one row a model, and refusals in one line."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from untrained import untrained_world_model

from occsora_sim.cli import main
from occsora_sim.errors import ConfigurationError, SceneError
from occsora_sim.grid import FREE
from occsora_sim.models.occsora_tokenizer import OccSoraTokenizer
from occsora_sim.models.occsora_world import OccSora, OccSoraConfig
from occsora_sim.models.occupancy_encoder import OccupancyEncoder, OccupancyEncoderConfig
from occsora_sim.models.weights import save_world_model
from occsora_sim.models.world_model import WorldModel
from occsora_sim.presets import occsora_preset, paper, paper_small, paper_tiny, small, tiny
from occsora_sim.scenes.file import save_scene
from occsora_sim.scoring.clip_models import (
    GIVEN,
    ChainedClips,
    ClipModel,
    DrawnClip,
    WholeClips,
    recorded_clips,
    way,
)
from occsora_sim.scoring.clip_report import clip_report
from occsora_sim.worlds.diffusion import DiffusionWorld

GRID = tiny().grid


def whole() -> OccSoraConfig:
    """OccSora's design on the grid of `tiny`."""
    config = paper_tiny()
    return replace(config, grid=GRID, tokenizer=replace(config.tokenizer, shape=GRID.shape))


@pytest.fixture(scope="module")
def encoder() -> OccupancyEncoder:
    torch.manual_seed(0)
    return OccupancyEncoder(OccupancyEncoderConfig()).eval()


@pytest.fixture
def street(built_street):
    return built_street(cars=[(12.0, 2.0, 4.0)], steps=61)


@pytest.fixture
def files(street, tmp_path) -> dict[str, Path]:
    """A folder with one street, and untrained weights of both families on one grid, and of one on another."""
    torch.manual_seed(0)
    folder = tmp_path / "scenes"
    folder.mkdir()
    save_scene(street, folder / "street.safetensors")
    models: dict[str, WorldModel | OccSora] = {
        "ours": untrained_world_model(),
        "theirs": OccSora(whole()),
        "coarse": OccSora(paper_tiny()),
    }
    for name, model in models.items():
        save_world_model(
            model, tmp_path / f"{name}.safetensors", kind="world_model", trained_on="nothing", recipe={}
        )
    return {name: tmp_path / f"{name}.safetensors" for name in models} | {"scenes": folder}


class Known:
    """Answers with the recording itself, or with nothing at all."""

    preset, parameters, grid = "known", 0, GRID
    frames: int | None = 12

    def __init__(self, street, empty: bool) -> None:
        self.clips, self.empty = list(recorded_clips([street], 3, GRID, 12)), empty

    def reconstruct(self, clip):
        frames = clip.labels[GIVEN:]
        return torch.full_like(frames, FREE) if self.empty else frames

    def draw(self, poses, seed):
        frames = next(clip.labels for clip in self.clips if torch.equal(clip.poses, poses))[GIVEN - 1 :]
        frames = torch.full_like(frames, FREE) if self.empty else frames
        return DrawnClip(frames=frames, seconds=1.0 + seed, seconds_in_full=10.0)


def test_the_recording_scores_a_hundred_and_what_is_empty_nothing(street, encoder):
    models = {"perfect": Known(street, False), "empty": Known(street, True)}
    report = clip_report(models, [street], encoder, "test-0", clips=3, frames_per_scene=40)
    perfect, empty = report["models"]
    assert report["clips"] == 3 and report["seconds"] == 6.0 and report["frames"] == 9
    assert perfect["reconstruction"]["miou"] == perfect["reconstruction"]["iou"] == 1.0
    assert empty["reconstruction"]["miou"] == empty["reconstruction"]["iou"] == 0.0
    assert perfect["generation"] == report["recorded"]
    assert empty["generation"]["frechet"] > 2 * report["recorded"]["frechet"]
    assert empty["generation"]["precision"] == 0.0
    assert perfect["forecast"] is None and perfect["seconds_per_clip"] == 2.0, "seeds 0, 1, 2"
    assert report["floor"] is not None


def test_a_row_does_not_depend_on_those_before_it_and_the_same_seed_gives_the_same_figures(street, encoder):
    torch.manual_seed(0)
    models: dict[str, ClipModel] = {
        "theirs": WholeClips(OccSora(whole()), 2),
        "ours": ChainedClips(DiffusionWorld(untrained_world_model(), steps=1)),
    }

    def rows(order):
        report = clip_report(
            {name: models[name] for name in order}, [street], encoder, "test-0",
            clips=2, windows_per_scene=1, frames_per_scene=10,
        )  # fmt: skip
        found = {row["weights"]: row for row in report["models"]}
        for row in found.values():
            assert row.pop("seconds_per_clip") > 0 and row.pop("seconds_per_clip_in_full") > 0
        return found

    one, alone = rows(["ours", "theirs"]), rows(["theirs"])
    assert one["theirs"] == alone["theirs"]
    assert one["theirs"]["forecast"] is None and set(one["ours"]["forecast"]) == {"1.0", "2.0", "3.0"}


def test_both_families_draw_the_same_instants_of_a_clip(street):
    (clip,) = recorded_clips([street], 1, GRID, 8)
    models: list[ClipModel] = [
        WholeClips(OccSora(whole()), 2),
        ChainedClips(DiffusionWorld(untrained_world_model(), steps=1)),
    ]
    for model in models:
        drawn = model.draw(clip.poses, 0)
        assert drawn.frames.shape == (8 - GIVEN + 1, *GRID.shape) and drawn.frames.dtype == torch.uint8
        assert model.reconstruct(clip).shape == (8 - GIVEN, *GRID.shape)


def test_a_design_of_few_steps_takes_longer_in_full(street, monkeypatch):
    (clip,) = recorded_clips([street], 1, GRID, 8)
    design = OccSora(whole())
    clock = iter((0.0, 3.0, 4.0))  # it begins, has diffused, has decoded
    monkeypatch.setattr("occsora_sim.scoring.clip_models.time.perf_counter", lambda: next(clock))
    drawn = WholeClips(design, 2).draw(clip.poses, 0)
    assert drawn.seconds == 4.0 and drawn.seconds_in_full == 3.0 * design.config.diffusion_steps / 2 + 1.0
    with pytest.raises(ConfigurationError, match="1 to 1000"):
        WholeClips(OccSora(whole()), 1001)


def test_the_way_of_a_clip_is_a_point_a_metre_and_none_where_the_ego_stands():
    poses = torch.zeros(4, 3)
    assert way(poses).shape == (0, 2)
    poses[:, 0] = torch.tensor([0.0, 3.0, 6.0, 10.5])
    torch.testing.assert_close(way(poses), torch.stack((torch.arange(11.0), torch.zeros(11)), dim=-1))


def test_recorded_clips_are_shared_among_the_scenes_and_too_short_ones_refused(street):
    assert len(list(recorded_clips([street, street], 3, GRID, 8))) == 3
    with pytest.raises(SceneError, match="16 s"):
        next(recorded_clips([replace(street, ego_valid=street.ego_valid & False)], 1, GRID, 32))
    with pytest.raises(SceneError, match="no scene"):
        next(recorded_clips([], 1, GRID, 8))


def test_paper_small_is_the_design_of_paper_at_about_the_size_of_small():
    config, full = paper_small(), paper()
    assert config.tokenizer.latent_shape[1:] == full.tokenizer.latent_shape[1:] == (4, 25, 25)
    assert config.tokenizer.codes == full.tokenizer.codes
    assert config.diffusion_steps == full.diffusion_steps and config.grid == full.grid
    assert occsora_preset("paper-small") == config
    count = [sum(p.numel() for p in model.parameters()) for model in (OccSora(config), WorldModel(small()))]
    assert 0.8 < count[0] / count[1] < 1.25


def test_a_tokenizer_that_learns_on_pieces_draws_them_from_its_generator():
    config = replace(paper_tiny().tokenizer, piece=16)
    torch.manual_seed(0)
    tokenizer = OccSoraTokenizer(config).eval()
    clips = torch.randint(0, 18, (1, 8, 32, 32, 16), generator=torch.Generator().manual_seed(0)).byte()

    def loss(seed):
        return float(tokenizer.loss(clips, torch.Generator().manual_seed(seed))[0].detach())

    assert loss(0) == loss(0) != loss(1)
    with pytest.raises(ConfigurationError, match="generator"):
        tokenizer.loss(clips)
    for piece in (12, 40):
        with pytest.raises(ConfigurationError, match=f"piece {piece}"):
            replace(config, piece=piece)


def test_the_command_writes_a_table_a_picture_and_figures(files, tmp_path, capsys):
    report, folder = tmp_path / "clips.json", tmp_path / "pictures"
    options = ["--scenes", str(files["scenes"]), "--clips", "2", "--steps", "1", "--paper-steps", "2"]
    options += ["--windows-per-scene", "0", "--pictures", str(folder), "--json", str(report)]
    weights = [str(files["ours"]), str(files["theirs"])]
    assert main(["evaluate", "clips", "--weights", *weights, *options]) == 0
    figures = json.loads(report.read_text())
    assert [row["weights"] for row in figures["models"]] == weights
    assert [row["preset"] for row in figures["models"]] == ["tiny", "paper-tiny"]
    assert all(row["forecast"] is None for row in figures["models"])
    assert (folder / "clips.png").exists()
    assert "2 clips of 4 s of 1 scenes" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--weights", "ours", "coarse"], "must be the same"),
        (["--weights", "ours", "ours"], "each of them once"),
        (["--weights", "missing"], "missing"),
        (["--weights", "ours", "--clips", "0"], "--clips 0"),
        (["--weights", "theirs", "--clips", "1"], "give more clips"),
        (["--weights", "theirs", "--paper-steps", "1001"], "1 to 1000"),
        ([], "--weights"),
    ],
)
def test_what_cannot_be_compared_is_refused_in_one_line(arguments, says, files, capsys):
    named = [str(files.get(argument, argument)) for argument in arguments]
    assert main(["evaluate", "clips", "--scenes", str(files["scenes"]), *named]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1 and says in captured.err
