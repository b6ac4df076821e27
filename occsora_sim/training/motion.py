"""Train the motion estimator of a closed-loop model on, by itself, and the departures that follow it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from occsora_sim.models.columns import ground_image
from occsora_sim.models.weights import load_world_model, save_world_model
from occsora_sim.models.world_model import WorldModel
from occsora_sim.training.departures import BATCH, draw_standing
from occsora_sim.training.known import aligned_images
from occsora_sim.training.loop import LoopConfig, run
from occsora_sim.training.prefetch import windows_for
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
        CheckpointError: the weights to begin with are unusable or of another kind.

    """
    kind = "tokenizer" if options.init is None else "world_model"
    model, header = load_world_model(options.init or options.tokenizer, kind=kind, device=options.loop.device)
    windows = windows_for(model.config, options.scenes, options.loop, options.loop.seed)

    def loss(step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        return motion_loss(model, windows.draw(options.loop.batch, step))

    run(model.motion, loss, options.loop, options.out / "motion").copy_to(model.motion)
    train_departures(
        model, windows, options.departure_windows, options.departure_steps, options.loop, options.out
    )
    path = options.out / f"{kind}.safetensors"
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
    model: WorldModel, source: WindowSource, windows: int, steps: int, loop: LoopConfig, out: Path
) -> None:
    """Train the departures, where the model has them, for so many steps on who stands in some windows."""
    departures = model.departures
    if departures is None or not steps:
        return
    known, way = draw_standing(model, source, windows)
    if not len(known):
        return

    def loss(step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        rows = torch.randint(len(known), (BATCH,), generator=generator).to(known.device)
        return departures.loss(known[rows], way[rows])

    run(departures, loss, loop.of_a_part(steps, 1e-3), out / "departures").copy_to(departures)
