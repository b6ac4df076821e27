"""Claims on training: it learns, it resumes exactly, and its checkpoints refuse what is not theirs."""

import multiprocessing
from functools import partialmethod
from pathlib import Path

import pytest
import torch

from occsora_sim.checkpoint import read_tensors
from occsora_sim.errors import CheckpointError, ConfigurationError
from occsora_sim.models.columns import UNSEEN, is_dynamic, without_road_users
from occsora_sim.models.record import Record
from occsora_sim.models.transformer import DiffusionTransformer
from occsora_sim.models.weights import load_world_model
from occsora_sim.models.world_model import WorldModel, WorldModelConfig
from occsora_sim.presets import base, tiny
from occsora_sim.scenes.file import save_scene
from occsora_sim.scenes.start import make_start
from occsora_sim.training.known import forget, window_context
from occsora_sim.training.loop import LoopConfig, learning_rate
from occsora_sim.training.precision import resolve
from occsora_sim.training.reconstruction import reconstruction_loss
from occsora_sim.training.tokenizer import TokenizerTraining, train_tokenizer
from occsora_sim.training.traffic import TrafficTraining, train_traffic
from occsora_sim.training.windows import WindowSampler
from occsora_sim.training.world_model import WorldModelTraining, train_world_model
from occsora_sim.worlds.diffusion import DiffusionWorld


@pytest.fixture
def scenes(tmp_path, straight_road) -> str:
    folder = tmp_path / "scenes"
    folder.mkdir()
    save_scene(straight_road(cars=[(20.0, 0.0, 6.0), (45.0, -2.0, 0.0)]), folder / "road.safetensors")
    return str(folder)


def loop(steps: int, **options) -> LoopConfig:
    return LoopConfig(steps=steps, batch=2, warmup=2, checkpoint_every=3, precision="float32", **options)


def tokenizer(scenes: str, out: Path, steps: int, **options) -> Path:
    training = TokenizerTraining(
        scenes=scenes,
        out=out,
        preset="tiny",
        resampler_steps=2,
        resampler_windows=2,
        loop=loop(steps, **options),
    )
    return train_tokenizer(training)


def same(a: Path, b: Path) -> bool:
    (one, _), (two, _) = (read_tensors(p, kind="tokenizer") for p in (a, b))
    return one.keys() == two.keys() and all(torch.equal(one[k], two[k]) for k in one)


def test_training_twice_gives_the_same_numbers_and_another_seed_others(tmp_path, scenes):
    one = tokenizer(scenes, tmp_path / "one", 2)
    assert same(one, tokenizer(scenes, tmp_path / "two", 2))
    assert not same(one, tokenizer(scenes, tmp_path / "three", 2, seed=1))


def test_a_resume_under_other_options_is_refused_in_one_line(tmp_path, scenes):
    tokenizer(scenes, tmp_path / "run", 3)
    with pytest.raises(CheckpointError, match="seed") as error:
        tokenizer(scenes, tmp_path / "run", 6, seed=4)
    assert "\n" not in str(error.value)


@pytest.mark.slow
def test_both_stages_learn_and_write_weights_that_load(tmp_path, scenes):
    weights = tokenizer(scenes, tmp_path / "t", 40, lr=3e-3)
    model, header = load_world_model(weights, kind="tokenizer")
    sampler = WindowSampler(
        open_folder(scenes),
        model.config.grid,
        history=model.config.history,
        future=model.config.frames,
        seed=9,
    )
    windows = sampler.draw(4, 0)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        known = window_context(windows, model.config.grid, [0], generator=generator)
        truth, weight = windows.labels[:, model.config.history], torch.ones(18)
        torch.manual_seed(0)
        fresh = WorldModel(tiny())
        before = float(
            reconstruction_loss(
                fresh.tokenizer, truth, known.flatten(), weight, torch.Generator().manual_seed(1)
            )[0]
        )
        after = float(
            reconstruction_loss(
                model.tokenizer, truth, known.flatten(), weight, torch.Generator().manual_seed(1)
            )[0]
        )
    assert after < 0.5 * before
    assert header["recipe"]["tokenizer"]["loop"]["steps"] == 40
    path = train_world_model(
        WorldModelTraining(scenes=scenes, tokenizer=weights, out=tmp_path / "w", loop=loop(4))
    )
    _, header = load_world_model(path)
    assert set(header["recipe"]) == {"tokenizer", "world_model"}
    assert {p.name for p in (tmp_path / "w").iterdir()} == {
        "resume.safetensors",
        "tensorboard",
        "world_model.safetensors",
    }


@pytest.mark.slow
def test_a_tokenizer_that_learns_on_leaves_what_the_denoiser_is_shown(tmp_path, scenes):
    first = train_world_model(
        WorldModelTraining(
            scenes=scenes, tokenizer=tokenizer(scenes, tmp_path / "t", 3), out=tmp_path / "w", loop=loop(2)
        )
    )
    options = TokenizerTraining(
        scenes=scenes,
        out=tmp_path / "on",
        preset="tiny",
        init=first,
        resampler_steps=2,
        resampler_windows=2,
        loop=loop(3, lr=1e-2),
    )
    second = train_tokenizer(options)
    (before, _), (after, header) = (read_tensors(path, kind="world_model") for path in (first, second))
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    parts = {name.split(".")[1] for name in changed if name.startswith("tokenizer.")}
    assert all(name.startswith(("tokenizer.", "resampler.")) for name in changed)
    assert {"target_patch", "posterior", "decode8", "head"} <= parts
    assert not parts & {"columns", "patch", "context4", "reduce", "context8"}
    assert header["recipe"]["init"] and header["recipe"]["tokenizer"]["loop"]["steps"] == 3
    train_world_model(WorldModelTraining(scenes=scenes, init=second, out=tmp_path / "last", loop=loop(1)))
    with pytest.raises(CheckpointError, match="preset"):
        train_tokenizer(TokenizerTraining(scenes=scenes, out=tmp_path / "no", preset="small", init=second))


@pytest.mark.slow
def test_road_users_that_learn_on_leave_the_ground_as_it_is(tmp_path, scenes):
    short = {"scenes": scenes, "rollout_steps": 3, "rollout_frames": 1, "entry_steps": 2, "loop": loop(3)}
    traffic = train_traffic(TrafficTraining(preset="tiny", out=tmp_path / "m", **short))
    names = read_tensors(traffic, kind="traffic")[0]
    assert names and all(name.startswith(("traffic.", "entries.")) for name in names)
    begin = tokenizer(scenes, tmp_path / "t", 3)
    first = train_world_model(
        WorldModelTraining(scenes=scenes, tokenizer=begin, traffic=traffic, out=tmp_path / "w", loop=loop(2))
    )
    whole = read_tensors(first, kind="world_model")[0]
    assert all(
        torch.equal(whole[name], value.half()) for name, value in names.items() if value.is_floating_point()
    )
    second = train_traffic(TrafficTraining(init=first, out=tmp_path / "on", **short))
    (before, _), (after, header) = (read_tensors(path, kind="world_model") for path in (first, second))
    changed = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"traffic", "entries"}
    assert header["recipe"]["init"] and header["recipe"]["traffic"]["loop"]["steps"] == 3


@pytest.mark.slow
@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="this system cannot fork")
def test_training_with_windows_drawn_ahead_gives_the_same_weights(tmp_path, scenes):
    begin = tokenizer(scenes, tmp_path / "t", 2)
    weights = [
        train_world_model(
            WorldModelTraining(
                scenes=scenes, tokenizer=begin, out=tmp_path / str(workers), loop=loop(3, workers=workers)
            )
        )
        for workers in (0, 2)
    ]
    (one, _), (two, _) = (read_tensors(path, kind="world_model") for path in weights)
    assert all(torch.equal(one[name], two[name]) for name in one)


def open_folder(folder: str):
    from occsora_sim.scenes.source import open_scenes

    return open_scenes(folder)


def test_a_window_is_drawn_by_its_step_number_alone(scenes):
    config = tiny()
    sampler = WindowSampler(open_folder(scenes), config.grid, history=4, future=2, seed=3)
    a, b = sampler.draw(3, 7), sampler.draw(3, 7)
    assert torch.equal(a.labels, b.labels) and torch.equal(a.poses, b.poses)
    assert not torch.equal(a.poses, sampler.draw(3, 8).poses)


def test_the_future_frames_are_no_part_of_the_context(scenes):
    config = tiny()
    sampler = WindowSampler(open_folder(scenes), config.grid, history=4, future=2, seed=3)
    windows = sampler.draw(2, 0)
    contexts = []
    for poison in (False, True):
        if poison:
            windows.labels[:, 4:] = 4
        known = window_context(windows, config.grid, [0, 1], generator=torch.Generator().manual_seed(0))
        contexts.append(known)
    assert torch.equal(contexts[0].prior, contexts[1].prior)
    assert torch.equal(contexts[0].auxiliary, contexts[1].auxiliary)


def test_training_shows_of_known_ground_what_the_record_of_a_world_shows(scenes):
    config = tiny()
    windows = WindowSampler(open_folder(scenes), config.grid, history=4, future=2, seed=3).draw(4, 0)
    known = window_context(windows, config.grid, [0, 1], generator=torch.Generator())
    labels, poses = without_road_users(windows.labels[:, :4]), windows.poses
    record = Record.empty(poses[:, 3], config.grid)
    for k in (3, 2, 1, 0):
        record = record.write(labels[:, k], poses[:, k], config.grid, measured=True)
    kept = record.read(poses[:, 4:6], config.grid)
    alike = (kept == known.static).all(-1)[(kept != UNSEEN).all(-1)]
    assert alike.float().mean() > 0.99


def test_forgetting_takes_half_planes_and_whole_views_and_everybody_in_these():
    config = tiny()
    forgotten, nobody = forget(64, 1.0, config.grid, torch.Generator().manual_seed(0))
    assert 0.2 < forgotten.float().mean() < 0.8
    whole = forgotten.flatten(1).all(1)
    assert whole.any() and not whole.all()
    assert nobody.flatten()[whole].all()
    assert 0.2 < nobody.flatten()[~whole].float().mean() < 0.8
    assert not forget(64, 0.0, config.grid, torch.Generator().manual_seed(0))[0].any()


def test_forgotten_ground_shows_the_models_neither_ground_nor_road_users(scenes):
    config = tiny()
    sampler = WindowSampler(open_folder(scenes), config.grid, history=4, future=2, seed=3)
    windows = sampler.draw(8, 0)
    contexts = [
        window_context(
            windows,
            config.grid,
            [0, 1],
            generator=torch.Generator().manual_seed(1),
            corruption=share,
        )
        for share in (0.0, 1.0)
    ]
    plain, spoilt = contexts
    assert is_dynamic(plain.prior).any()
    unseen = (spoilt.static == UNSEEN).all(-1)  # (b, f, x, y)
    blank = unseen.flatten(1).all(1)
    assert blank.any() and not blank.all()
    assert (spoilt.prior[blank] == UNSEEN).all()
    assert (spoilt.auxiliary[blank][:, :, :4] == 0).all()
    seen = ~unseen
    assert torch.equal(spoilt.prior[seen], plain.prior[seen])
    assert is_dynamic(spoilt.prior[~blank]).any()


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


@pytest.mark.slow
def test_a_compiled_denoiser_learns_the_same_to_rounding(tmp_path, scenes, monkeypatch):
    """Traced, as for a GPU, but without the minutes of generating code: what changes is within a tenth of itself."""
    graphs = []

    def traced(graph, example_inputs):
        graphs.append(graph)
        return graph.forward

    monkeypatch.setattr(
        DiffusionTransformer, "compile", partialmethod(torch.nn.Module.compile, backend=traced)
    )
    begin = tokenizer(scenes, tmp_path / "t", 3)
    changes = []
    for on in (False, True):
        options = WorldModelTraining(
            scenes=scenes, tokenizer=begin, out=tmp_path / str(on), compile=on, loop=loop(2, lr=1e-2, ema=0.0)
        )
        assert not graphs
        path = train_world_model(options)
        torch.manual_seed(options.loop.seed)
        start = WorldModel(tiny()).denoiser.state_dict()
        after, _ = read_tensors(path, kind="world_model")
        changes.append(torch.cat([(after[f"denoiser.{k}"].float() - v).flatten() for k, v in start.items()]))
    assert graphs, "the compiler was asked"
    plain, compiled = changes
    assert plain.norm() > 0.1
    assert (compiled - plain).norm() < 0.1 * plain.norm()


@pytest.mark.slow
def test_base_is_a_larger_small_that_can_be_driven(straight_road):
    torch.manual_seed(0)
    model, small = WorldModel(base()), WorldModel(WorldModelConfig())
    size = [sum(value.numel() for value in one.denoiser.parameters()) for one in (model, small)]
    assert size[0] > 6 * size[1] and model.config.grid == small.config.grid
    assert WorldModelConfig.from_header(model.config.to_header()) == base()
    start = make_start(straight_road(), 0, 3)
    world = DiffusionWorld(model, steps=1)
    state = world.step(world.reset([start], [0]), torch.tensor([[[2.0, 0.0, 0.0], [4.0, 0.0, 0.0]]]))
    assert state.occupancy.shape == (1, 2, *base().grid.shape)
