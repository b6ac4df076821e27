"""Train OccSora's own model as published: the tokenizer, then the denoiser on its latents (Wang et al. 2024)."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from occsora_sim.errors import CheckpointError, ConfigurationError
from occsora_sim.models.occsora_world import OccSora, OccSoraConfig, pose_steps
from occsora_sim.models.weights import load_occsora, save_world_model
from occsora_sim.presets import occsora_preset
from occsora_sim.recipe import recipe_of
from occsora_sim.training.clips import ClipSampler
from occsora_sim.training.loop import LoopConfig, adamw, run
from occsora_sim.training.muon import muon_of_blocks
from occsora_sim.training.processes import WHOLE, Part, open_share, rank
from occsora_sim.training.stages import Stage, Stages, Turn

TOKENIZER_LOOP = LoopConfig(
    steps=17_500, batch=8, lr=1e-3, lr_floor=1e-3, warmup=200, weight_decay=0.01, beta2=0.999, clip=35.0, ema=0.0,
    precision="float32", checkpoint_every=500,
)  # fmt: skip
"""The reference's: 200 epochs over 700 clips, one a GPU on eight GPUs; cosine to 1e-6; no moving average."""

DENOISER_LOOP = LoopConfig(
    steps=1_200_000, batch=16, lr=1e-5, lr_floor=1.0, warmup=0, weight_decay=0.0, beta2=0.999, clip=1e9,
    ema=0.9999, precision="float32", checkpoint_every=1000,
)  # fmt: skip
"""The reference's: a constant rate, no weight decay; it does not clip gradients."""


@dataclass(frozen=True, kw_only=True)
class TokenizerTraining:
    """Options of `train tokenizer`.

    Attributes:
        scenes: what to train on (any spec that `open_scenes` takes).
        out: folder for checkpoints, curves and the weights.
        preset: paper, paper-small or paper-tiny.
        init: a tokenizer of this preset whose decoder alone learns on: its codes, and what was trained on them, stay.
        loop: steps, batch, learning rate...

    """

    scenes: str = "traffic:0-95"
    out: Path = Path("runs/tokenizer")
    preset: str = "paper-small"
    init: Path | None = None
    loop: LoopConfig = field(default_factory=lambda: TOKENIZER_LOOP)


@dataclass(frozen=True, kw_only=True)
class WorldModelTraining:
    """Options of `train world-model`.

    Attributes:
        scenes: what to train on (any spec that `open_scenes` takes).
        tokenizer: weights that `train tokenizer` wrote.
        preset: the tokenizer's; to name it is to be told when the weights are another's.
        out: folder for checkpoints, curves and the weights.
        pool: encode this many clips once, ahead, and train on them alone; 0 encodes new ones in every step.
        muon: orthogonal steps for the blocks' matrices in place of AdamW's, which the reference uses.
        loop: steps, batch, learning rate...

    """

    scenes: str = "traffic:0-95"
    tokenizer: Path = Path("runs/tokenizer/tokenizer.safetensors")
    preset: str | None = None
    out: Path = Path("runs/world-model")
    pool: int = 0
    muon: bool = False
    loop: LoopConfig = field(default_factory=lambda: DENOISER_LOOP)


def _sampler(scenes: str, config: OccSoraConfig, seed: int, loop: LoopConfig) -> ClipSampler:
    if loop.workers:
        raise ConfigurationError(
            f"--workers {loop.workers}: clips are drawn by no other process; leave it out"
        )
    frames = config.tokenizer.frames
    return ClipSampler(open_share(scenes), config.grid, frames=frames, seed=seed, device=loop.device)


def _named(part: str, logs: dict[str, float]) -> dict[str, float]:
    return {f"{part}/{name}": value for name, value in logs.items()}


def _encoded(
    model: OccSora, sampler: ClipSampler, count: int, step: int, part: Part = WHOLE
) -> tuple[Tensor, Tensor]:
    """The latents (b, c, t', x', y') and prompts (b, t, 2) of a part of the clips of a step."""
    clips = sampler.draw(count, step, part)
    return model.latents(clips.labels), pose_steps(clips.poses)


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """n clips as the denoiser sees them.

    Attributes:
        latents: (n, c, t', x', y') float32.
        prompt: (n, t, 2) float32, `pose_steps`.

    """

    latents: Tensor
    prompt: Tensor


def _pool(model: OccSora, sampler: ClipSampler, count: int, turn: Turn) -> Encoded:
    """`count` clips, encoded ahead."""

    def draw() -> Encoded:
        each = [_encoded(model, sampler, 1, number) for number in turn.draws(count)]
        latents, prompt = (torch.cat(part) for part in zip(*each, strict=True))
        return Encoded(latents=latents, prompt=prompt)

    return turn.pool(Encoded, draw, sampler.device)


def train_tokenizer(options: TokenizerTraining) -> Path:
    """Train, and write `out`/tokenizer.safetensors; returns its path.

    The loss is the tokenizer's own: cross-entropy, Lovasz-softmax and vector quantisation with the preset's
    weights.

    Raises:
        ConfigurationError: the preset is not OccSora's own.
        CheckpointError: `out` holds a training with other options, or `init` is no tokenizer of the preset.
        SceneError: the scenes are unusable or too short for a clip.

    """
    config, loop = occsora_preset(options.preset), options.loop
    path = options.out / "tokenizer.safetensors"
    stage = Stage(name="tokenizer", steps=loop.steps, main=True)
    stages = Stages(options.out, loop.minutes, recipe_of("train tokenizer", options), [stage], weights=path)
    if stages.finished:
        return path
    sampler = _sampler(options.scenes, config, loop.seed, loop)
    torch.manual_seed(loop.seed)  # initial weights
    model = OccSora(config).to(loop.device)
    tokenizer = model.tokenizer.requires_grad_(True).train()
    recipe: dict[str, Any] = {"tokenizer": options}
    if options.init:
        begun, header = load_occsora(options.init, kind="tokenizer", preset=options.preset)
        if replace(begun.config.tokenizer, rare=config.tokenizer.rare) != config.tokenizer:
            raise CheckpointError(f"{options.init}: a tokenizer of other sizes than {options.preset} has now")
        tokenizer.load_state_dict(begun.tokenizer.state_dict())
        for part in (tokenizer.embedding, tokenizer.encoder, tokenizer.quantiser):
            part.requires_grad_(False).eval()
        recipe = {**header.get("recipe", {}), "decoder": options}

    def loss(step: int, part: Part, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        value, logs = tokenizer.loss(sampler.draw(loop.batch, step, part).labels, generator)
        return value, _named("tokenizer", logs)

    run(tokenizer, loss, loop, stages.begin("tokenizer")).copy_to(tokenizer)
    if rank() == 0:
        save_world_model(model, path, kind="tokenizer", trained_on=options.scenes, recipe=recipe)
    return path


def train_world_model(options: WorldModelTraining) -> Path:
    """Train, and write `out`/world_model.safetensors (EMA weights); returns its path.

    Clips are encoded as they are drawn, or `pool` of them ahead; their prompt is `pose_steps`, the loss
    `OccSora.latent_loss`.

    Raises:
        ConfigurationError: the preset is not OccSora's own.
        CheckpointError: the tokenizer's weights are unusable or of another preset, or `out` holds a training with
            other options.
        SceneError: the scenes are unusable or too short for a clip.

    """
    if options.preset is not None:
        occsora_preset(options.preset)
    loop, path = options.loop, options.out / "world_model.safetensors"
    stage = Stage(name="denoiser", steps=loop.steps, main=True)
    stages = Stages(options.out, loop.minutes, recipe_of("train world-model", options), [stage], weights=path)
    if stages.finished:
        return path
    torch.manual_seed(loop.seed)  # initial weights of the denoiser, which the tokenizer's file does not hold
    model, header = load_occsora(
        options.tokenizer, kind="tokenizer", device=loop.device, preset=options.preset
    )
    sampler = _sampler(options.scenes, model.config, loop.seed + 1, loop)
    model.train()

    turn = stages.begin("denoiser")
    pool = None if turn.over or not options.pool else _pool(model, sampler, options.pool, turn)

    def loss(step: int, part: Part, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        if pool is not None:
            rows = torch.randint(len(pool.latents), (part.size(loop.batch),), generator=generator).to(
                pool.latents.device
            )
            latents, prompt = pool.latents[rows], pool.prompt[rows]
        else:
            latents, prompt = _encoded(model, sampler, loop.batch, step, part)
        value, logs = model.latent_loss(latents, prompt, generator=generator)
        return value, _named("world_model", logs)

    run(model, loss, loop, turn, muon_of_blocks if options.muon else adamw).copy_to(model)
    if rank() == 0:
        recipe = {**header.get("recipe", {}), "world_model": options}
        save_world_model(model.eval(), path, kind="world_model", trained_on=options.scenes, recipe=recipe)
    return path
