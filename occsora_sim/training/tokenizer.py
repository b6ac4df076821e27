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
from occsora_sim.training.small_code import Frames, code_loss, draw_pool
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
        code_steps: steps of the code for small road users alone, before the rest; closed loop only. Every stage with no
            steps is left out.
        code_windows: windows whose frames these look at.
        resampler_steps: steps of the resampler of what was seen; closed loop only.
        resampler_windows: windows whose edges it looks at.
        corruption: share of windows in which known ground is forgotten (see `known.forget`); closed loop only.
        loop: steps, batch, learning rate...; each preset has its own defaults.

    """

    scenes: str = "traffic:0-95"
    out: Path = Path("runs/tokenizer")
    preset: str = "small"
    init: Path | None = None
    code_steps: int = 4000
    code_windows: int = 512
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
    code = Stage(name="code", steps=options.code_steps, share=0.08)
    tokenizer = Stage(name="tokenizer", steps=options.loop.steps, share=0.82, main=True)
    resampler = Stage(name="resampler", steps=options.resampler_steps, share=0.1)
    return [code, tokenizer, resampler] if options.init is None else [resampler, code, tokenizer]


def _learning_on(options: TokenizerTraining, stages: Stages, path: Path) -> None:
    assert options.init is not None
    model, header = load_world_model(options.init, device=options.loop.device, preset=options.preset)
    source = windows_for(model.config, options.scenes, options.loop, options.loop.seed)
    _train_resampler(options, model, source, stages)
    _train_code(options, model, source, stages)
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
    small = [] if t.small is None else [t.small]
    return [*encoder, t.latent_in, t.decode8, t.expand, t.decode4, t.unpatch, t.head, *small]


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


def _train_code(options: TokenizerTraining, model: WorldModel, source: WindowSource, stages: Stages) -> None:
    small = model.tokenizer.small
    if small is None or not options.code_steps:
        return
    turn, loop = stages.begin("code"), options.loop.of_a_part(options.code_steps, 2e-3)
    if restored(small, loop, turn):
        return

    def draw() -> Frames:
        generator, windows = torch.Generator().manual_seed(options.loop.seed), options.code_windows
        return Frames(columns=draw_pool(model, source, windows, options.corruption, generator, turn.draws))

    pool, weight = turn.pool(Frames, draw, loop.device).columns, class_weights(loop.device)

    def loss(step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        return code_loss(small, pool, weight, generator)

    run(small, loss, loop, turn).copy_to(small)


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
    _train_code(options, model, source, stages)
    tokenizer_loss = _tokenizer_loss(options, model)

    def loss(step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        return tokenizer_loss(source.draw(options.loop.batch, step), generator)

    run(model.tokenizer, loss, options.loop, stages.begin("tokenizer")).copy_to(model.tokenizer)
    _train_resampler(options, model, source, stages)
    save_world_model(model, path, kind="tokenizer", trained_on=options.scenes, recipe={"tokenizer": options})
