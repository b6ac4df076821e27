"""Train the motion estimator of a closed-loop model on, by itself, and the departures that follow it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from occsora_sim.models.columns import ground_image
from occsora_sim.models.weights import load_world_model, save_world_model
from occsora_sim.models.world_model import WorldModel
from occsora_sim.recipe import recipe_of
from occsora_sim.training.departures import BATCH, Standing, draw_standing
from occsora_sim.training.known import aligned_images
from occsora_sim.training.loop import LoopConfig, restored, run
from occsora_sim.training.prefetch import windows_for
from occsora_sim.training.stages import Stage, Stages
from occsora_sim.training.windows import Windows, WindowSource


@dataclass(frozen=True, kw_only=True)
class MotionTraining:
    """Options of `train motion`.

    Attributes:
        tokenizer: weights that `train tokenizer` wrote, to go on from.
        init: weights of a whole closed-loop model to go on from instead.
        scenes: what to train on (any spec that `open_scenes` takes).
        out: folder for checkpoints, curves and the weights.
        departure_steps: steps of the departures of who stands, which the motion estimator tells.
        departure_windows: windows whose standing road users these look at.
        loop: steps, batch, learning rate...

    """

    tokenizer: Path = Path("runs/tokenizer/tokenizer.safetensors")
    init: Path | None = None
    scenes: str = "traffic:0-95"
    out: Path = Path("runs/motion")
    departure_steps: int = 3000
    departure_windows: int = 3072
    loop: LoopConfig = field(default_factory=lambda: LoopConfig(steps=1500, lr=1e-3))


def train_motion(options: MotionTraining) -> Path:
    """Train, and write `out`/tokenizer.safetensors or, with `init`, `out`/world_model.safetensors: all that was there,
    with another motion estimator (EMA weights) and other departures; returns its path.

    Raises:
        CheckpointError: the weights to begin with are unusable or of another kind, or `out` holds a training with
            other options.

    """
    kind = "tokenizer" if options.init is None else "world_model"
    path = options.out / f"{kind}.safetensors"
    stages = Stages(
        options.out,
        options.loop.minutes,
        recipe_of("train motion", options, unused=() if options.init is None else ("tokenizer",)),
        [
            Stage(name="motion", steps=options.loop.steps, share=0.7, main=True),
            Stage(name="departures", steps=options.departure_steps, share=0.3),
        ],
        weights=path,
    )
    if stages.finished:
        return path
    model, header = load_world_model(options.init or options.tokenizer, kind=kind, device=options.loop.device)
    windows = windows_for(model.config, options.scenes, options.loop, options.loop.seed)

    def loss(step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        return motion_loss(model, windows.draw(options.loop.batch, step))

    run(model.motion, loss, options.loop, stages.begin("motion")).copy_to(model.motion)
    train_departures(model, windows, options.departure_windows, options.departure_steps, options.loop, stages)
    before = header.get("recipe", {})
    recipe = {**(before if options.init is None else {"init": before}), "motion": options}
    save_world_model(model, path, kind=kind, trained_on=options.scenes, recipe=recipe)
    return path


def motion_loss(model: WorldModel, windows: Windows) -> tuple[Tensor, dict[str, float]]:
    """The loss of the motion estimator on windows, and what to log."""
    h, grid = windows.history, model.config.grid
    labels, poses = windows.labels[:, :h], windows.poses[:, :h]
    images = aligned_images(labels, poses, grid, model.config.motion_frames)
    return model.motion.loss(images, ground_image(labels[:, -1], grid), windows.displacement)


def train_departures(
    model: WorldModel, source: WindowSource, windows: int, steps: int, loop: LoopConfig, stages: Stages
) -> None:
    """Train the departures, where the model has them, for so many steps on who stands in some windows."""
    departures = model.departures
    if departures is None or not steps:
        return
    turn, loop = stages.begin("departures"), loop.of_a_part(steps, 1e-3)
    if restored(departures, loop, turn):
        return

    def draw() -> Standing:
        known, way = draw_standing(model, source, windows, draws=turn.draws)
        return Standing(known=known, way=way)

    pool = turn.pool(Standing, draw, loop.device)
    if not len(pool.known):
        turn.skip()
        return

    def loss(step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        rows = torch.randint(len(pool.known), (BATCH,), generator=generator).to(pool.known.device)
        return departures.loss(pool.known[rows], pool.way[rows])

    run(departures, loss, loop, turn).copy_to(departures)
