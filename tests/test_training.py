"""Claims on training: windows, the loop's schedule and precision, and road users that learn on."""

from pathlib import Path

import pytest
import torch

from occsora_sim.checkpoint import read_tensors
from occsora_sim.errors import CheckpointError, ConfigurationError
from occsora_sim.models.weights import save_world_model
from occsora_sim.models.world_model import WorldModel
from occsora_sim.presets import tiny
from occsora_sim.scenes.file import save_scene
from occsora_sim.scenes.source import open_scenes
from occsora_sim.training.encoder import EncoderTraining, train_encoder
from occsora_sim.training.loop import LoopConfig, learning_rate
from occsora_sim.training.precision import resolve
from occsora_sim.training.traffic import TrafficTraining, train_traffic
from occsora_sim.training.windows import WindowSampler


@pytest.fixture
def scenes(tmp_path, straight_road) -> str:
    folder = tmp_path / "scenes"
    folder.mkdir()
    save_scene(straight_road(cars=[(20.0, 0.0, 6.0), (45.0, -2.0, 0.0)]), folder / "road.safetensors")
    return str(folder)


def loop(steps: int, **options) -> LoopConfig:
    return LoopConfig(steps=steps, batch=2, warmup=2, checkpoint_every=3, precision="float32", **options)


def encoder(scenes: str, out: Path, steps: int, **options) -> Path:
    return train_encoder(EncoderTraining(scenes=scenes, out=out, loop=loop(steps, **options)), tiny().grid)


def same(a: Path, b: Path) -> bool:
    (one, _), (two, _) = (read_tensors(p, kind="occupancy_encoder") for p in (a, b))
    return one.keys() == two.keys() and all(torch.equal(one[k], two[k]) for k in one)


def test_training_twice_gives_the_same_numbers_and_another_seed_others(tmp_path, scenes):
    one = encoder(scenes, tmp_path / "one", 2)
    assert same(one, encoder(scenes, tmp_path / "two", 2))
    assert not same(one, encoder(scenes, tmp_path / "three", 2, seed=1))


def test_a_resume_under_other_options_is_refused_in_one_line(tmp_path, scenes):
    encoder(scenes, tmp_path / "run", 3)
    with pytest.raises(CheckpointError, match="seed") as error:
        encoder(scenes, tmp_path / "run", 6, seed=4)
    assert "\n" not in str(error.value)


def test_road_users_that_learn_on_leave_the_ground_as_it_is(tmp_path, scenes):
    short = {"scenes": scenes, "rollout_steps": 3, "rollout_frames": 1, "entry_steps": 2, "loop": loop(3)}
    traffic = train_traffic(TrafficTraining(preset="tiny", out=tmp_path / "m", **short))
    names = read_tensors(traffic, kind="traffic")[0]
    assert names and all(name.startswith(("traffic.", "entries.")) for name in names)
    first = tmp_path / "first.safetensors"
    torch.manual_seed(0)
    save_world_model(WorldModel(tiny()), first, kind="world_model", trained_on="nothing", recipe={"old": {}})
    second = train_traffic(TrafficTraining(init=first, out=tmp_path / "on", **short))
    (before, _), (after, header) = (read_tensors(path, kind="world_model") for path in (first, second))
    changed = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"traffic", "entries"}
    assert header["recipe"]["init"] and header["recipe"]["traffic"]["loop"]["steps"] == 3


def test_a_window_is_drawn_by_its_step_number_alone(scenes):
    sampler = WindowSampler(open_scenes(scenes), tiny().grid, history=4, future=2, seed=3)
    a, b = sampler.draw(3, 7), sampler.draw(3, 7)
    assert torch.equal(a.labels, b.labels) and torch.equal(a.poses, b.poses)
    assert not torch.equal(a.poses, sampler.draw(3, 8).poses)


def test_the_learning_rate_warms_up_and_decays():
    config = LoopConfig(steps=100, lr=1.0, warmup=10)
    assert learning_rate(config, 0.0, 0) == pytest.approx(0.1)
    assert learning_rate(config, 0.0, 9) == pytest.approx(1.0)
    assert learning_rate(config, 1.0, 99) == pytest.approx(0.02)


def test_precision_is_measured_unless_it_is_named():
    cpu = torch.device("cpu")
    assert resolve("float32", cpu) == torch.float32
    assert resolve("bfloat16", cpu) == torch.bfloat16
    assert resolve("auto", cpu) in (torch.float32, torch.bfloat16)


def test_a_loop_of_less_than_no_workers_is_refused():
    with pytest.raises(ConfigurationError, match="workers"):
        LoopConfig(workers=-1)


def test_a_loop_of_no_steps_is_refused():
    with pytest.raises(ConfigurationError, match="positive"):
        LoopConfig(steps=0)
