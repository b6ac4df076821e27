"""Train the motion estimator and the tokenizer of a closed-loop preset."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from occsora_sim.models.columns import ground_image
from occsora_sim.models.weights import save_world_model
from occsora_sim.models.world_model import WorldModel
from occsora_sim.presets import closed_loop_preset
from occsora_sim.scenes.source import open_scenes
from occsora_sim.training.class_weights import class_weights
from occsora_sim.training.loop import LoopConfig, run
from occsora_sim.training.windows import Windows, WindowSampler, aligned_images, window_context

_MOTION_WEIGHT = 20.0  # brings the two gradients to one size; they share no parameter


@dataclass(frozen=True, kw_only=True)
class TokenizerTraining:
    """Options of `train tokenizer`.

    Attributes:
        scenes: what to train on (any spec that `open_scenes` takes).
        out: folder for checkpoints, curves and the weights.
        preset: small or tiny (closed loop); paper or paper-tiny (OccSora as published).
        motion_steps: steps of the motion estimator alone, first; closed loop only. It goes on
            learning beside the tokenizer.
        corruption: share of windows in which known ground is forgotten (see `windows.forget`); closed loop only.
        loop: steps, batch, learning rate...; each preset has its own defaults.

    """

    scenes: str = "traffic:0-95"
    out: Path = Path("runs/tokenizer")
    preset: str = "small"
    motion_steps: int = 1500
    corruption: float = 0.35
    loop: LoopConfig = field(default_factory=lambda: LoopConfig(steps=1600, lr=8e-4))


def train_tokenizer(options: TokenizerTraining) -> Path:
    """Train, and write `out`/tokenizer.safetensors (EMA weights); returns its path."""
    config = closed_loop_preset(options.preset)
    torch.manual_seed(options.loop.seed)  # initial weights
    model = WorldModel(config).to(options.loop.device)
    scenes = open_scenes(options.scenes)
    sampler = WindowSampler(
        scenes, config.grid, history=config.history, future=config.frames, seed=options.loop.seed,
        device=options.loop.device,
    )  # fmt: skip

    def motion_loss(windows: Windows) -> tuple[Tensor, dict[str, float]]:
        labels, poses = windows.labels[:, : config.history], windows.poses[:, : config.history]
        images = aligned_images(labels, poses, config.grid, config.motion_frames)
        ground = ground_image(labels[:, -1], config.grid)
        return model.motion.loss(images, ground, windows.displacement)

    def first(step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        return motion_loss(sampler.draw(options.loop.batch, step))

    motion_loop = replace(options.loop, steps=options.motion_steps, minutes=0.0, lr=1e-3)
    ema = run(model.motion, first, motion_loop, options.out / "motion")
    ema.copy_to(model.motion)
    weight = class_weights(options.loop.device)

    def both(step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        windows = sampler.draw(options.loop.batch, options.motion_steps + step)
        frame = int(torch.randint(config.frames, (), generator=generator))  # one frame per window is enough
        known = window_context(
            windows, model.motion, config.grid, [frame], generator=generator, corruption=options.corruption
        )
        loss, logs = model.tokenizer.loss(
            windows.labels[:, config.history + frame], known.flatten(), weight, generator
        )
        motion, more = motion_loss(windows)
        return loss + _MOTION_WEIGHT * motion, logs | more

    parts = nn.ModuleDict({"motion": model.motion, "tokenizer": model.tokenizer})
    ema = run(parts, both, options.loop, options.out)
    ema.copy_to(parts)
    path = options.out / "tokenizer.safetensors"
    save_world_model(model, path, kind="tokenizer", trained_on=options.scenes, recipe={"tokenizer": options})
    return path
