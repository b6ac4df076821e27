"""Train the ground of a closed-loop preset: its books of tokens, the plan, then the ground that follows it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from occsora_sim.checkpoint import read_header
from occsora_sim.errors import CheckpointError, ConfigurationError
from occsora_sim.models.ground.outpainter import Outpainter
from occsora_sim.models.weights import load_world_model, read_config, save_world_model, with_traffic
from occsora_sim.models.world_model import WorldModel
from occsora_sim.presets import closed_loop_preset
from occsora_sim.recipe import mark_of, recipe_of
from occsora_sim.scenes.source import open_scenes
from occsora_sim.training import checkpoints
from occsora_sim.training.curves import Curves
from occsora_sim.training.ground.crops import CropSampler, columns_of, tokeniser
from occsora_sim.training.ground.loss import Validation, outpaint_loss
from occsora_sim.training.ground.samples import Samples
from occsora_sim.training.ground.towns import GroundTowns, towns_of
from occsora_sim.training.ground.towns_file import kept_towns
from occsora_sim.training.ground.vocabulary import ceiling, set_vocabulary, vocabulary
from occsora_sim.training.loop import LoopConfig, run
from occsora_sim.training.muon import muon_of_body
from occsora_sim.training.prefetch import Prefetcher
from occsora_sim.training.processes import Part, first_alone, parts, rank
from occsora_sim.training.report import say
from occsora_sim.training.stages import Stage, Stages, Turn

_REACH = 0.75
"""How far from an ego the middles of crops lie, in edges of its view."""

_VALIDATED = 25
"""So many times as rarely as a line is logged, the model is tried on the scenes held apart: their loss, and a sheet of
samples."""


@dataclass(frozen=True, kw_only=True)
class GroundTraining:
    """Options of `train ground`.

    Attributes:
        scenes: what to train on (any spec that `open_scenes` takes); of voxel sequences the static voxels of all
            frames, merged.
        validate: scenes that are held apart, for the curves and for pictures of samples; empty: none.
        out: folder for checkpoints, curves, the scenes' ground (a file of 1.6 GB of the default ones, which a resumed
            training reads again) and the weights.
        preset: small, base or tiny: the sizes.
        traffic: weights that `train traffic` wrote; without them road users move and enter as untrained weights say.
        init: weights of a whole closed-loop model whose ground learns on, on scenes of one's own, say. Its palette and
            its books stay as they are.
        plan_steps: steps of the plan; its batches hold three crops for four of the ground's, since they are larger.
        compile: compile the networks' blocks (`torch.compile`): a minute at the first step, for faster ones; needs a
            C++ compiler.
        loop: steps of the ground, batch, learning rate...

    """

    scenes: str = "traffic:0-119+arterial:0-31+roundabout:0-31+motorway:0-31+organic:0-15"
    validate: str = "traffic:300000-300003"
    out: Path = Path("runs/ground")
    preset: str = "small"
    traffic: Path | None = None
    init: Path | None = None
    plan_steps: int = 6000
    compile: bool = False
    loop: LoopConfig = field(
        default_factory=lambda: LoopConfig(steps=8000, batch=8, lr=2e-3, warmup=30, checkpoint_every=200)
    )

    def __post_init__(self) -> None:
        if self.plan_steps < 0:
            raise ConfigurationError(f"train ground: --plan-steps {self.plan_steps} must be 0 or more")


def train_ground(options: GroundTraining) -> Path:
    """Train, and write `out`/world_model.safetensors (EMA weights); returns its path.

    Raises:
        SceneError: the scenes cannot be read, or no ego moves in them.
        CheckpointError: the weights to begin with are unusable or of another grid, or `out` holds a training with
            other options.

    """
    path = options.out / "world_model.safetensors"
    plan = Stage(name="plan", steps=options.plan_steps, share=0.45)
    fine = Stage(name="ground", steps=options.loop.steps, share=0.55, main=True)
    recipe = recipe_of("train ground", options)
    stages = Stages(options.out, options.loop.minutes, recipe, [plan, fine], weights=path)
    if stages.finished:
        return path
    model, before = _model(options)
    with first_alone():
        towns, held = _towns(options, model)
    ground, loop = model.ground, options.loop
    if held is not None:
        side = columns_of(ground.config.fine)
        crops = CropSampler(held, side, ground.config.column, _reach(model)).draw(32, 0).to(_device(options))
        say(
            f"tokens give back {ceiling(ground.tokenizer, crops.kinds)['right']:.2%} of the columns held apart"
        )
    if options.plan_steps:
        coarse = replace(loop, steps=options.plan_steps, batch=max(1, 3 * loop.batch // 4))
        _train(options, model, ground.plan, towns, held, coarse, stages.begin("plan"))
    _train(options, model, ground.fine, towns, held, loop, stages.begin("ground"))
    if rank() == 0:
        recipe = {**before, "ground": options}
        save_world_model(model.eval(), path, kind="world_model", trained_on=options.scenes, recipe=recipe)
    return path


def _model(options: GroundTraining) -> tuple[WorldModel, dict[str, Any]]:
    """What to train, and the recipe that it has so far."""
    device = options.loop.device
    before: dict[str, Any] = {}
    if options.init is not None:
        model, header = load_world_model(options.init, device=device)
        before = {"init": header.get("recipe", {})}
    else:
        config = closed_loop_preset(options.preset)
        torch.manual_seed(options.loop.seed)  # initial weights
        model = WorldModel(config).to(device)
    if options.traffic is not None:
        theirs = read_config(options.traffic, kind="traffic")
        if theirs.grid != model.config.grid:
            raise CheckpointError(
                f"{options.traffic}: holds road users of the preset {theirs.preset!r}, whose grid is not that of "
                f"{model.config.preset!r}; train them with --preset {model.config.preset}"
            )
        model = with_traffic(model, options.traffic)
        before |= read_header(options.traffic, kind="traffic").get("recipe", {})
    return model, before


def _towns(options: GroundTraining, model: WorldModel) -> tuple[GroundTowns, GroundTowns | None]:
    """The ground of the scenes and, in the first process, of those held apart; gives the model its palette and books,
    if it has none.
    """
    config, grid = model.config.ground, model.config.grid
    init = None if options.init is None else mark_of(options.init)
    source = {"scenes": options.scenes, "grid": repr(grid), "kinds": config.kinds, "init": init}
    palette = None if options.init is None else model.ground.palette.cpu()
    # Two cells to a column, and no more than 0.2 m each: walls stay straight in crops that are turned.
    cell = min(0.2, grid.voxel / 2)
    towns = kept_towns(
        options.out / "towns.safetensors",
        source,
        lambda: towns_of(open_scenes(options.scenes), grid, cell=cell, palette=palette, kinds=config.kinds),
    )
    if options.init is None:
        words = _kept_words(options.out / "vocabulary.safetensors", source, towns, model)
        set_vocabulary(model.ground, words)
    if not options.validate or rank():
        return towns, None
    held = kept_towns(
        options.out / "validate.safetensors",
        {**source, "validate": options.validate},
        lambda: towns_of(open_scenes(options.validate), grid, cell=cell, palette=towns.palette),
    )
    return towns, held


def _kept_words(
    path: Path, source: Mapping[str, Any], towns: GroundTowns, model: WorldModel
) -> dict[str, Tensor]:
    """The vocabulary of `towns`, made once."""
    kind = "ground_vocabulary"
    if found := checkpoints.kept(path, kind=kind, source=source):
        return found[0]
    words = vocabulary(towns, model.config.ground, _reach(model))
    checkpoints.write(path, words, {"kind": kind, "source": source})
    return words


def _train(
    options: GroundTraining, model: WorldModel, painter: Outpainter, towns: GroundTowns, held: GroundTowns | None,
    loop: LoopConfig, turn: Turn,
) -> None:  # fmt: skip
    """One of the outpainters; its averaged weights are then in the model."""
    ground, device, view = model.ground, _device(options), _view(model)
    side, reach = columns_of(painter.config), _reach(model)
    name = "plan" if painter is ground.plan else "ground"
    tokenise = tokeniser(ground, painter)
    crops = CropSampler(towns, side, ground.config.column, reach, seed=2 * loop.seed + (name == "plan"))
    source = Prefetcher(crops, loop.workers, device, parts(loop.accumulate))
    validation = samples = None
    if held is not None and not turn.over:
        apart = CropSampler(held, side, ground.config.column, reach)
        validation = Validation(apart, tokenise, view, device)
        samples = Samples(apart, tokenise, ground, device)

    def loss(step: int, part: Part, generator: torch.Generator) -> tuple[Tensor, dict[str, float | Tensor]]:
        tokens = tokenise(source.draw(loop.batch, step, part), generator)
        value, logs = outpaint_loss(painter, tokens, view, generator)
        logs = {f"{name}/{key}": number for key, number in logs.items()}
        tried = step and step % (_VALIDATED * loop.log_every) == 0 and part.index == 0
        if validation is not None and samples is not None and tried:
            logs |= {f"{name}/validation": validation(painter), f"{name}/samples": samples(painter)}
        return value, logs

    if options.compile:
        for block in (*painter.body.enter, *painter.body.blocks, *painter.body.leave):
            block.compile()  # in place: the weights keep their names
    run(painter, loss, loop, turn, muon_of_body).copy_to(painter)
    if validation is not None and samples is not None:
        nats = validation(painter)
        say(f"{turn.title}: {nats:.3f} nats a token on the scenes held apart")
        with Curves(turn.folder / "tensorboard") as curves:
            curves.add({f"{name}/validation": nats}, turn.step)
            curves.add_pictures({f"{name}/samples": samples(painter)}, turn.step)


def _device(options: GroundTraining) -> torch.device:
    return torch.device(options.loop.device)


def _view(model: WorldModel) -> float:
    """Edge of what an ego sees [m]."""
    grid = model.config.grid
    return max(grid.shape[:2]) * grid.voxel


def _reach(model: WorldModel) -> float:
    return _REACH * _view(model)
