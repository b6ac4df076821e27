"""Train the denoiser of a closed-loop preset on top of a trained tokenizer."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from occsora_sim.geometry import relative
from occsora_sim.models.context import Context
from occsora_sim.models.weights import load_world_model, save_world_model, with_traffic
from occsora_sim.models.world_model import WorldModel
from occsora_sim.recipe import recipe_of
from occsora_sim.training.class_weights import class_weights
from occsora_sim.training.cuts import Draws
from occsora_sim.training.denoising import denoiser_loss
from occsora_sim.training.known import window_context
from occsora_sim.training.loop import LoopConfig, run
from occsora_sim.training.prefetch import windows_for
from occsora_sim.training.stages import Stage, Stages


@dataclass(frozen=True, kw_only=True)
class WorldModelTraining:
    """Options of `train world-model`.

    Attributes:
        scenes: what to train on (any spec that `open_scenes` takes).
        tokenizer: weights that `train tokenizer` wrote.
        traffic: weights that `train traffic` wrote; without them road users move and enter as untrained weights say.
        init: weights of a whole closed-loop model to go on from, instead of a new denoiser on top of `tokenizer`; the
            shipped ones, say, on scenes of one's own.
        preset: the tokenizer's; to name it is to be told when the weights are another's.
        out: folder for checkpoints, curves and the weights.
        corruption: share of windows in which known ground is forgotten (see `known.forget`); closed loop only.
        fraying: share of windows whose known ground is frayed (see `fraying.fray`); closed loop only.
        draws: how often each window is noised; closed loop only.
        compile: compile the denoiser (`torch.compile`): minutes at the first step, for faster ones on a GPU; closed
            loop only.
        pool: encode this many clips once, ahead, and train on them alone; 0 encodes new ones in every step. OccSora's
            own model only.
        loop: steps, batch, learning rate...; each preset has its own defaults.

    """

    scenes: str = "traffic:0-95"
    tokenizer: Path = Path("runs/tokenizer/tokenizer.safetensors")
    traffic: Path | None = None
    init: Path | None = None
    preset: str | None = None
    out: Path = Path("runs/world-model")
    corruption: float = 0.7
    fraying: float = 0.3
    draws: Draws = field(default_factory=Draws)
    compile: bool = False
    pool: int = 0
    loop: LoopConfig = field(default_factory=lambda: LoopConfig(steps=2000, batch=6, lr=8e-4))

    @property
    def begins_from(self) -> tuple[Path, str]:
        """The weights that training begins from, and their kind."""
        return (self.init, "world_model") if self.init is not None else (self.tokenizer, "tokenizer")

    def stages(self) -> Stages:
        """The denoiser's one stage, of either family, and where the weights go."""
        recipe = recipe_of("train world-model", self, unused=() if self.init is None else ("tokenizer",))
        stage = Stage(name="denoiser", steps=self.loop.steps, main=True)
        weights = self.out / "world_model.safetensors"
        return Stages(self.out, self.loop.minutes, recipe, [stage], weights=weights)


def train_world_model(options: WorldModelTraining) -> Path:
    """Train, and write `out`/world_model.safetensors (EMA weights); returns its path.

    Raises:
        CheckpointError: the weights to begin with are unusable, of another kind or of another preset, or `out` holds
            a training with other options.

    """
    stages = options.stages()
    if stages.finished:
        return stages.weights
    begin, kind = options.begins_from
    model, header = load_world_model(begin, kind=kind, device=options.loop.device, preset=options.preset)
    if options.init is None:
        torch.manual_seed(options.loop.seed)  # initial weights
        new = WorldModel(model.config).to(options.loop.device)
        model.denoiser, model.traffic, model.entries = new.denoiser, new.traffic, new.entries
    if options.traffic is not None:
        model = with_traffic(model, options.traffic)
    config = model.config
    for part in (model.traffic, model.entries, model.tokenizer):
        part.requires_grad_(False)
    source = windows_for(config, options.scenes, options.loop, options.loop.seed + 1)
    future = range(config.frames)
    weight = class_weights(options.loop.device)

    def batch(step: int, generator: torch.Generator) -> tuple[Tensor, Context, Tensor, Tensor]:
        windows = source.draw(options.loop.batch, step)
        known = window_context(
            windows,
            config.grid,
            list(future),
            generator=generator,
            corruption=options.corruption,
            fraying=options.fraying,
        )
        prompt = relative(
            windows.poses[:, config.history - 1 : config.history], windows.poses[:, config.history :]
        )
        return windows.labels[:, config.history :], known, prompt, windows.scene

    turn = stages.begin("denoiser")
    if options.init is None and not turn.begun:
        labels, known, _, _ = batch(0, torch.Generator().manual_seed(0))
        with torch.no_grad():
            flat = known.flatten()
            mean, _ = model.tokenizer.encode(labels.flatten(0, 1), flat)
            model.latent_scale.copy_(1 / mean.std().clamp(min=0.05))

    def loss(step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        labels, known, prompt, scene = batch(step, generator)
        return denoiser_loss(model, labels, known, prompt, weight, generator, options.draws, scene)

    if options.compile:
        model.denoiser.compile()  # in place: the weights keep their names
    run(model, loss, options.loop, turn).copy_to(model)
    before = header.get("recipe", {})
    if options.init is not None:
        before = {"init": before}
    recipe = {**before, "world_model": options}
    save_world_model(model, stages.weights, kind="world_model", trained_on=options.scenes, recipe=recipe)
    return stages.weights
