"""Train the tokenizer of a closed-loop preset, and what reads the record beside it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from occsora_sim.errors import ConfigurationError
from occsora_sim.models.compensated_tokenizer import CompensatedTokenizer
from occsora_sim.models.weights import load_world_model, save_world_model
from occsora_sim.models.world_model import WorldModel
from occsora_sim.presets import closed_loop_preset
from occsora_sim.recipe import option_name, recipe_of
from occsora_sim.training.class_weights import class_weights
from occsora_sim.training.known import window_context
from occsora_sim.training.loop import LoopConfig, restored, run
from occsora_sim.training.prefetch import windows_for
from occsora_sim.training.reconstruction import reconstruction_loss
from occsora_sim.training.resampling import Places, draw_places, place_loss
from occsora_sim.training.stages import Stage, Stages
from occsora_sim.training.windows import Windows, WindowSource


@dataclass(frozen=True, kw_only=True)
class TokenizerTraining:
    """Options of `train tokenizer`.

    Attributes:
        scenes: what to train on (any spec that `open_scenes` takes).
        out: folder for checkpoints, curves and the weights.
        preset: small or tiny (closed loop); paper, paper-small or paper-tiny (OccSora's design).
        init: weights of a whole closed-loop model whose encoder and decoder learn on, instead of a new tokenizer. What
            the denoiser is shown stays as it is, so the denoiser has only to follow the latent
            (`train world-model --init`).
        resampler_steps: steps of the resampler of what was seen; closed loop only. With none it is left out.
        resampler_windows: windows whose edges it looks at.
        corruption: share of windows in which known ground is forgotten (see `known.forget`); closed loop only.
        loop: steps, batch, learning rate...; each preset has its own defaults.

    """

    scenes: str = "traffic:0-95"
    out: Path = Path("runs/tokenizer")
    preset: str = "small"
    init: Path | None = None
    resampler_steps: int = 9000
    resampler_windows: int = 2000
    corruption: float = 0.35
    loop: LoopConfig = field(default_factory=lambda: LoopConfig(steps=1600, lr=8e-4))

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            least = 0 if name.endswith("_steps") else 1
            if name.endswith(("_steps", "_windows")) and value < least:
                raise ConfigurationError(f"{option_name(name)} {value}: must be {least} or more")


def train_tokenizer(options: TokenizerTraining) -> Path:
    """Train, and write `out`/tokenizer.safetensors (EMA weights); returns its path.

    With `init`, the file holds the whole model.

    Raises:
        CheckpointError: the weights to begin with are unusable, of another kind or of another preset, or `out` holds
            a training with other options.

    """
    path = options.out / "tokenizer.safetensors"
    stages = Stages(
        options.out,
        options.loop.minutes,
        recipe_of("train tokenizer", options),
        _stages(options),
        weights=path,
    )
    if not stages.finished:
        (_from_nothing if options.init is None else _learning_on)(options, stages, path)
    return path


def _stages(options: TokenizerTraining) -> list[Stage]:
    """What is trained, in this order, and its share of the time."""
    tokenizer = Stage(name="tokenizer", steps=options.loop.steps, share=0.9, main=True)
    resampler = Stage(name="resampler", steps=options.resampler_steps, share=0.1)
    return [tokenizer, resampler] if options.init is None else [resampler, tokenizer]


def _learning_on(options: TokenizerTraining, stages: Stages, path: Path) -> None:
    assert options.init is not None
    model, header = load_world_model(options.init, device=options.loop.device, preset=options.preset)
    source = windows_for(model.config, options.scenes, options.loop, options.loop.seed)
    _train_resampler(options, model, source, stages)
    model.requires_grad_(False)
    for part in decoding_parts(model.tokenizer):
        part.requires_grad_(True)
    tokenizer_loss = _tokenizer_loss(options, model)

    def loss(step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        return tokenizer_loss(source.draw(options.loop.batch, step), generator)

    run(model.tokenizer, loss, options.loop, stages.begin("tokenizer")).copy_to(model.tokenizer)
    recipe = {"init": header.get("recipe", {}), "tokenizer": options}
    save_world_model(model, path, kind="world_model", trained_on=options.scenes, recipe=recipe)


def decoding_parts(tokenizer: CompensatedTokenizer) -> list[nn.Module]:
    """What makes the latent and reads it; the rest makes the context, which the denoiser is shown too."""
    t = tokenizer
    encoder = [t.target_patch, t.target4, t.target8, t.posterior]
    return [*encoder, t.latent_in, t.decode8, t.expand, t.decode4, t.unpatch, t.head]


def _tokenizer_loss(
    options: TokenizerTraining, model: WorldModel
) -> Callable[[Windows, torch.Generator], tuple[Tensor, dict[str, Tensor]]]:
    config, weight = model.config, class_weights(options.loop.device)

    def loss(windows: Windows, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        frame = int(torch.randint(config.frames, (), generator=generator))  # one frame per window is enough
        known = window_context(
            windows, config.grid, [frame], generator=generator, corruption=options.corruption
        )
        labels = windows.labels[:, config.history + frame]
        return reconstruction_loss(model.tokenizer, labels, known.flatten(), weight, generator)

    return loss


def _train_resampler(
    options: TokenizerTraining, model: WorldModel, source: WindowSource, stages: Stages
) -> None:
    resampler = model.resampler
    if resampler is None or not options.resampler_steps:
        return
    turn, loop = stages.begin("resampler"), options.loop.of_a_part(options.resampler_steps, 1e-3)
    if restored(resampler, loop, turn):
        return

    def draw() -> Places:
        generator = torch.Generator().manual_seed(options.loop.seed)
        return draw_places(source, model.config.grid, options.resampler_windows, generator, turn.draws)

    places = turn.pool(Places, draw, loop.device)
    if not len(places.right):
        turn.skip()
        return

    def loss(step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        return place_loss(resampler, places, generator)

    run(resampler, loss, loop, turn).copy_to(resampler)


def _from_nothing(options: TokenizerTraining, stages: Stages, path: Path) -> None:
    config = closed_loop_preset(options.preset)
    torch.manual_seed(options.loop.seed)  # initial weights
    model = WorldModel(config).to(options.loop.device)
    source = windows_for(config, options.scenes, options.loop, options.loop.seed)
    tokenizer_loss = _tokenizer_loss(options, model)

    def loss(step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        return tokenizer_loss(source.draw(options.loop.batch, step), generator)

    run(model.tokenizer, loss, options.loop, stages.begin("tokenizer")).copy_to(model.tokenizer)
    _train_resampler(options, model, source, stages)
    save_world_model(model, path, kind="tokenizer", trained_on=options.scenes, recipe={"tokenizer": options})
