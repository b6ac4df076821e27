"""Claims about the occupancy encoder and what is measured in its space."""

import math
from dataclasses import replace

import pytest
import torch

from occsora_sim.envs.starts import shipped_scenes
from occsora_sim.errors import CheckpointError, ConfigurationError
from occsora_sim.grid import CAR, FREE, OCC3D, Grid
from occsora_sim.models.occupancy_encoder import (
    OccupancyEncoder,
    OccupancyEncoderConfig,
    load_encoder,
    save_encoder,
)
from occsora_sim.scenes.file import save_scene
from occsora_sim.scenes.source import open_scenes
from occsora_sim.scenes.start import make_start
from occsora_sim.scoring.generation import generation_report, open_encoder, print_generation_report
from occsora_sim.training.encoder import EncoderTraining, spoil, train_encoder
from occsora_sim.training.loop import LoopConfig
from occsora_sim.training.windows import WindowSampler
from occsora_sim.worlds.replay import ReplayWorld

GRID = Grid(shape=(48, 48, 16), voxel=0.8, lower=(-19.2, -19.2, -1.0))


@pytest.fixture(scope="module")
def untrained() -> OccupancyEncoder:
    torch.manual_seed(0)
    return OccupancyEncoder(OccupancyEncoderConfig()).eval()


def test_features_lie_on_a_sphere_and_do_not_depend_on_the_batch(untrained):
    frames = torch.randint(0, 18, (5, *GRID.shape), generator=torch.Generator().manual_seed(0)).byte()
    features = untrained.encode(frames, batch=2)
    assert features.shape == (5, 32) and features.dtype == torch.float64
    torch.testing.assert_close(features.norm(dim=1), torch.full((5,), math.sqrt(32)).double())
    torch.testing.assert_close(untrained.encode(frames[3:4])[0], features[3], rtol=1e-5, atol=1e-5)
    assert untrained.encode(frames[:0]).shape == (0, 32)


def test_an_encoder_reads_back_from_its_file_and_a_damaged_one_is_refused(untrained, tmp_path):
    path = tmp_path / "encoder.safetensors"
    save_encoder(untrained, path, {"trained_on": "nothing"})
    back, header = load_encoder(path)
    assert header["trained_on"] == "nothing"
    frame = torch.full((1, *GRID.shape), FREE, dtype=torch.uint8)
    torch.testing.assert_close(back.encode(frame), untrained.encode(frame), rtol=1e-2, atol=1e-2)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(CheckpointError, match=r"encoder\.safetensors"):
        load_encoder(path)


def test_every_way_of_spoiling_changes_a_street_and_none_the_original(built_street):
    start = make_start(built_street(cars=[(12.0, 2.0, 4.0)]), 0, 10, GRID)
    frames = start.occupancy[-1:].expand(12, -1, -1, -1).clone()
    assert bool((frames == CAR).any())
    before = frames.clone()
    spoiled = spoil(frames, torch.zeros(12, 3), GRID, torch.Generator().manual_seed(0))
    assert torch.equal(frames, before) and int(spoiled.max()) <= FREE
    assert bool((spoiled != frames).flatten(1).any(1).all())
    assert bool((spoiled == CAR).flatten(1).any(1).logical_not().any())  # somewhere the road users are gone


def test_training_an_encoder_writes_one_that_loads(built_street, tmp_path):
    folder = tmp_path / "scenes"
    folder.mkdir()
    save_scene(built_street(cars=[(12.0, 2.0, 4.0)]), folder / "street.safetensors")
    options = EncoderTraining(
        scenes=str(folder),
        out=tmp_path / "run",
        loop=LoopConfig(steps=3, batch=2, precision="float32", warmup=1),
    )
    path = train_encoder(options, GRID)
    encoder, header = load_encoder(path)
    assert header["steps"] == 3 and encoder.config.height == 16


def test_a_recorded_world_scores_like_the_recording_and_an_empty_one_does_not(
    built_street, untrained, capsys
):
    class Empty(ReplayWorld):
        def step(self, state, trajectories):
            state = super().step(state, trajectories)
            return replace(state, occupancy=torch.full_like(state.occupancy, FREE))

    street = built_street(cars=[(12.0, 2.0, 4.0)], steps=61)
    starts = [make_start(street, 0, step, GRID) for step in (4, 8)]
    reports = [
        generation_report(
            world, starts, [street], untrained, "test-0", seconds=10.0, frames_per_scene=40, batch=1
        )
        for world in (ReplayWorld(GRID), Empty(GRID))
    ]
    real, empty = reports
    assert real["frames"] == empty["frames"] == 10 and real["encoder"] == "test-0"
    assert empty["kernel"] > 5 * abs(real["kernel"]) and empty["frechet"] > 2 * real["frechet"]
    assert empty["precision"] == 0.0 and real["precision"] > 0.5
    assert real["floor"] is not None
    assert real["ground"] is None  # a view of 48 columns is smaller than a crop
    assert empty["recorded"] == pytest.approx({key: real[key] for key in empty["recorded"]}, rel=1e-6)
    print_generation_report(real)
    assert "Generation: 10 frames of 2 rollouts" in capsys.readouterr().out
    with pytest.raises(ConfigurationError, match="0 starts"):
        generation_report(ReplayWorld(GRID), [], [street], untrained, "test-0")


def test_the_recorded_world_has_the_recorded_ground(built_street, untrained, capsys):
    street, wide = built_street(steps=61), Grid(shape=(64, 64, 16), voxel=0.8, lower=(-25.6, -25.6, -1.0))
    starts = [make_start(street, 0, 4, wide)]
    report = generation_report(ReplayWorld(wide), starts, [street], untrained, "test-0", frames_per_scene=20)
    ground = report["ground"]
    assert ground["crops"] > 0 and ground["holes"] == 0 and report["frames"] == 8
    assert ground["classifier"]["ground"]["0.8"]["drawn"]["early"] is None  # a single town
    widths = ground["shapes"]["early"]["road_width"]
    assert widths["drawn"] == widths["recorded"] == pytest.approx(8.0, abs=0.4)
    print_generation_report(report)
    assert "width of roads" in capsys.readouterr().out


@pytest.mark.slow
def test_the_shipped_encoder_holds_a_second_look_closer_than_another_moment_or_a_spoiled_copy():
    encoder, name = open_encoder()
    assert name.startswith("encoder-")
    windows = WindowSampler(open_scenes(shipped_scenes())[:2], OCC3D, history=2, future=1, seed=9).draw(24, 0)
    one, two = windows.labels[:, 1], windows.labels[:, 2]
    spoiled = spoil(one, windows.poses[:, 1], OCC3D, torch.Generator().manual_seed(0))
    a, b, c = (torch.nn.functional.normalize(encoder.encode(part), dim=1) for part in (one, two, spoiled))
    same, other = (a * b).sum(1), (a @ b.T).masked_fill(torch.eye(24, dtype=torch.bool), -1).amax(1)
    assert float((same > other).double().mean()) > 0.6  # of 23 other moments none is closer
    assert float((same > (a * c).sum(1)).double().mean()) > 0.6
