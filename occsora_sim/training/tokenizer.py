"""Train the motion estimator and the tokenizer of a closed-loop preset."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from occsora_sim.grid import (
    BICYCLE,
    BUS,
    CAR,
    CONSTRUCTION_VEHICLE,
    DRIVEABLE,
    MOTORCYCLE,
    NUM_CLASSES,
    OTHER_FLAT,
    PEDESTRIAN,
    SIDEWALK,
    TERRAIN,
    TRAILER,
    TRUCK,
)
from occsora_sim.models.columns import ground_image
from occsora_sim.models.weights import save_world_model
from occsora_sim.models.world_model import WorldModel
from occsora_sim.presets import preset
from occsora_sim.scenes.source import open_scenes
from occsora_sim.training.loop import LoopConfig, run
from occsora_sim.training.windows import WindowSampler, aligned_images, window_context

CLASS_WEIGHTS = {
    DRIVEABLE: 4.0, SIDEWALK: 4.0, OTHER_FLAT: 3.0, TERRAIN: 1.5,
    PEDESTRIAN: 4.0, BICYCLE: 4.0, MOTORCYCLE: 4.0,
    CAR: 2.0, BUS: 2.0, TRUCK: 2.0, TRAILER: 2.0, CONSTRUCTION_VEHICLE: 2.0,
}  # fmt: skip
"""Cross-entropy weights other than 1. The ground is one voxel thin where a wall is a dozen, and a street without its
road is none; small road users would vanish without a weight and appear falsely with a strong one."""


@dataclass(frozen=True, kw_only=True)
class TokenizerTraining:
    """Options of `train tokenizer`.

    Attributes:
        scenes: what to train on (any spec that `open_scenes` takes).
        out: folder for checkpoints, curves and the weights.
        preset: a closed-loop preset.
        motion_steps: steps of the motion estimator alone, first; its windows are cheap.
        corruption: share of windows in which known ground is forgotten (see `windows.forget`).
        loop: steps, batch, learning rate...

    """

    scenes: str = "traffic:0-95"
    out: Path = Path("runs/tokenizer")
    preset: str = "small"
    motion_steps: int = 1500
    corruption: float = 0.35
    loop: LoopConfig = field(default_factory=lambda: LoopConfig(lr=8e-4))


def train_tokenizer(options: TokenizerTraining) -> Path:
    """Train, and write `out`/tokenizer.safetensors (EMA weights); returns its path."""
    config = preset(options.preset)
    torch.manual_seed(options.loop.seed)  # initial weights
    model = WorldModel(config).to(options.loop.device)
    scenes = open_scenes(options.scenes)
    sampler = WindowSampler(
        scenes, config.grid, history=config.history, future=config.frames, seed=options.loop.seed,
        device=options.loop.device,
    )  # fmt: skip

    def motion_loss(step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        windows = sampler.draw(options.loop.batch, step)
        labels, poses = windows.labels[:, : config.history], windows.poses[:, : config.history]
        images = aligned_images(labels, poses, config.grid, config.motion_frames)
        ground = ground_image(labels[:, -1], config.grid)
        return model.motion.loss(images, ground, windows.displacement)

    motion_loop = replace(options.loop, steps=options.motion_steps, minutes=0.0, lr=1e-3)
    ema = run(model.motion, motion_loss, motion_loop, options.out / "motion")
    ema.copy_to(model.motion)

    weight = torch.ones(NUM_CLASSES, device=options.loop.device)
    for label, value in CLASS_WEIGHTS.items():
        weight[label] = value

    def tokenizer_loss(step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        windows = sampler.draw(options.loop.batch, step)
        frame = int(torch.randint(config.frames, (), generator=generator))  # one frame per window is enough
        known = window_context(
            windows, model.motion, config.grid, [frame], generator=generator, corruption=options.corruption
        )
        return model.tokenizer.loss(
            windows.labels[:, config.history + frame], known.flatten(), weight, generator
        )

    ema = run(model.tokenizer, tokenizer_loss, options.loop, options.out)
    ema.copy_to(model.tokenizer)
    path = options.out / "tokenizer.safetensors"
    save_world_model(model, path, kind="tokenizer", trained_on=options.scenes, recipe={"tokenizer": options})
    return path
