"""OccSora's world model, open loop: a trajectory in, a clip of occupancy out (Wang et al. 2024)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import torch
from torch import nn

from occsora_sim.device import fast_bfloat16
from occsora_sim.errors import ActionError, CheckpointError, ConfigurationError
from occsora_sim.geometry import relative
from occsora_sim.grid import Grid
from occsora_sim.models.ddpm import SCHEDULES, ddpm_loss, ddpm_sample
from occsora_sim.models.levels import Levels
from occsora_sim.models.noise import randn
from occsora_sim.models.occsora_tokenizer import OccSoraTokenizer, OccSoraTokenizerConfig
from occsora_sim.models.prompt import keep_mask
from occsora_sim.models.transformer import DiffusionTransformer, DiffusionTransformerConfig


@dataclass(frozen=True, kw_only=True)
class OccSoraConfig:
    """Sizes of both networks and of the process; the defaults are the paper's. It travels in the checkpoint.

    Attributes:
        preset: the name of the preset that this is.
        grid: the voxel grid; its shape is the tokenizer's.
        tokenizer: sizes of the tokenizer, which gives the tokens; its frames are the clip's.
        hidden: token width of the denoiser.
        depth: its blocks.
        heads: its attention heads.
        mlp_ratio: width of a block's MLP over `hidden`.
        groups: who sees whom in its blocks, in turn: "all", the tokens of a "frame", or over time those "ahead".
        answers: what it answers: the "noise" and its variance, or how likely the "levels" of a finite latent are.
        prompt_hidden: hidden widths of the prompt's MLP.
        latent_scale: factor on the latents ahead of the diffusion.
        schedule: "linear" or "cosine".
        diffusion_steps: of it.
        prompt_dropout: share of the clips trained without their prompt.
        guidance: weight of classifier-free guidance when sampling; 1 for none.

    """

    preset: str = "paper"
    grid: Grid = field(default_factory=Grid)
    tokenizer: OccSoraTokenizerConfig = field(default_factory=OccSoraTokenizerConfig)
    hidden: int = 256
    depth: int = 28
    heads: int = 16
    mlp_ratio: float = 4.0
    groups: tuple[str, ...] = ("all",)
    answers: Literal["noise", "levels"] = "noise"
    prompt_hidden: tuple[int, ...] = (128, 128)
    latent_scale: float = 0.1
    schedule: Literal["linear", "cosine"] = "linear"
    diffusion_steps: int = 1000
    prompt_dropout: float = 0.1
    guidance: float = 4.0

    def __post_init__(self) -> None:
        if self.grid.shape != self.tokenizer.shape:
            raise ConfigurationError(
                f"world model: the grid has {self.grid.shape} voxels, the tokenizer's frames "
                f"{self.tokenizer.shape}; make them the same"
            )
        if not 0.0 <= self.prompt_dropout < 1.0 or not self.latent_scale > 0.0 or self.diffusion_steps < 20:
            raise ConfigurationError(
                f"world model: prompt_dropout {self.prompt_dropout} must lie in [0, 1), latent_scale "
                f"{self.latent_scale} be positive, diffusion_steps {self.diffusion_steps} be 20 at least"
            )

        if self.schedule not in SCHEDULES or self.answers not in ("noise", "levels"):
            raise ConfigurationError(
                f"world model: schedule {self.schedule!r} is 'linear' or 'cosine', answers {self.answers!r} 'noise' or "
                "'levels'"
            )
        if self.answers == "levels" and self.tokenizer.quantiser != "finite":
            raise ConfigurationError(
                "world model: answers 'levels' needs a tokenizer with the quantiser 'finite'"
            )

    def to_header(self) -> dict[str, Any]:
        """A JSON-serialisable form; `from_header` is its inverse."""
        return asdict(self)

    @staticmethod
    def from_header(header: dict[str, Any]) -> OccSoraConfig:
        """The configuration stored in a checkpoint.

        Raises:
            CheckpointError: a field is unknown or missing, or the sizes are impossible.

        """

        def tuples(part: dict[str, Any]) -> dict[str, Any]:  # JSON knows lists only
            return {name: tuple(value) if isinstance(value, list) else value for name, value in part.items()}

        try:
            parts = {
                "grid": Grid(**tuples(header["grid"])),
                "tokenizer": OccSoraTokenizerConfig(**tuples(header["tokenizer"])),
            }
            return OccSoraConfig(**(tuples(header) | parts))
        except (KeyError, TypeError, AttributeError, ConfigurationError) as error:
            raise CheckpointError(
                f"weights: their configuration does not fit this release ({error})"
            ) from error


def pose_steps(poses: torch.Tensor) -> torch.Tensor:
    """The prompt of a clip: how far the ego came since the frame before.

    Args:
        poses: (b, f, 3) ego poses x, y [m], yaw [rad] in any one frame.

    Returns:
        (b, f, 2): dx, dy [m] in the ego frame of the frame before; zeros for the first.

    """
    moved = relative(poses[:, :-1], poses[:, 1:])[..., :2]
    return torch.cat([torch.zeros_like(poses[:, :1, :2]), moved], dim=1)


class OccSora(nn.Module):
    """A tokenizer, frozen, and the diffusion transformer over its latents.

    Deviations from the reference code: the null prompt is trained (`prompt_dropout`), guidance covers all
    channels, the batch has any size, the sample itself is decoded (the reference reads one from a fixed
    file), and the prompt is defined, by `pose_steps` (the reference does not say what its two numbers a
    frame are). As there, nothing carries over from clip to clip: chaining is what the closed-loop presets
    are for.
    """

    def __init__(self, config: OccSoraConfig) -> None:
        super().__init__()
        self.config = config
        self.tokenizer = OccSoraTokenizer(config.tokenizer).eval().requires_grad_(False)
        channels, *tokens = config.tokenizer.latent_shape
        # The levels are evenly spaced in [-1, 1]: scaled they reach as far as the scale.
        levels = Levels(config.tokenizer.levels, config.latent_scale) if config.answers == "levels" else None
        self.denoiser = DiffusionTransformer(
            DiffusionTransformerConfig(
                in_channels=channels,
                out_channels=levels.logits if levels else 2 * channels,  # noise and variance
                tokens=(tokens[0], tokens[1], tokens[2]),
                hidden=config.hidden,
                depth=config.depth,
                heads=config.heads,
                mlp_ratio=config.mlp_ratio,
                groups=config.groups,
                prompt_frames=config.tokenizer.frames,
                prompt_features=2,
                prompt_hidden=config.prompt_hidden,
            )
        )
        self.levels = levels
        self.schedule = SCHEDULES[config.schedule](config.diffusion_steps)

    def train(self, mode: bool = True) -> OccSora:
        """Set the denoiser's mode. The tokenizer stays in evaluation: its statistics must not drift."""
        super().train(mode)
        self.tokenizer.eval()
        return self

    @torch.no_grad()
    def latents(self, occupancy: torch.Tensor) -> torch.Tensor:
        """Clips (b, t, x, y, z) -> scaled quantised latents (b, c, t', x', y'): what is diffused.

        Clip by clip: one embedded at full size is 0.7 GB.
        """
        rows = [self.tokenizer.quantise(self.tokenizer.encode(row[None])).latent for row in occupancy]
        return torch.cat(rows) * self.config.latent_scale

    def loss(
        self, occupancy: torch.Tensor, trajectory: torch.Tensor, *, generator: torch.Generator
    ) -> tuple[torch.Tensor, dict[str, float]]:
        """Loss of clips (b, t, x, y, z) and their `pose_steps` (b, t, 2), and what to log.

        The hybrid one of DDPM, or the cross-entropy of `Levels`.
        """
        return self.latent_loss(self.latents(occupancy), trajectory, generator=generator)

    def latent_loss(
        self, latents: torch.Tensor, trajectory: torch.Tensor, *, generator: torch.Generator
    ) -> tuple[torch.Tensor, dict[str, float]]:
        """As `loss`, on what `latents` answered before: encoding once spares most of the time."""
        keep = keep_mask(len(latents), self.config.prompt_dropout, generator, latents.device)

        def answer(noisy: torch.Tensor, step: torch.Tensor) -> torch.Tensor:
            return self.denoiser(noisy, step, trajectory, keep=keep)

        loss = self.levels.loss if self.levels else ddpm_loss
        return loss(answer, latents, self.schedule, generator)

    def sample(
        self,
        trajectory: torch.Tensor | None,
        generators: Sequence[torch.Generator],
        steps: int | None = None,
        guidance: float | None = None,
    ) -> torch.Tensor:
        """Generate clips, each from nothing but its trajectory prompt.

        Args:
            trajectory: (b, t, 2) from `pose_steps`; None: no prompt.
            generators: b of them; row i depends on generators[i] alone.
            steps: of the diffusion, respaced; None: all.
            guidance: None: the configuration's.

        Returns:
            (b, t, x, y, z) uint8 labels.

        Raises:
            ActionError: the trajectory does not fit the generators or the clip, or is not finite.
            ConfigurationError: steps are not within 1 to the schedule's number.

        """
        return self.tokenizer.draw(self.sample_latents(trajectory, generators, steps, guidance))

    @torch.no_grad()
    def sample_latents(
        self,
        trajectory: torch.Tensor | None,
        generators: Sequence[torch.Generator],
        steps: int | None = None,
        guidance: float | None = None,
    ) -> torch.Tensor:
        """The diffusion of `sample` alone: latents (b, c, t', x', y') for the tokenizer to draw."""
        rows, device = len(generators), self.denoiser.head.weight.device
        if trajectory is None:
            guidance = 1.0  # nothing to guide towards
        elif len(trajectory) != rows or not trajectory.isfinite().all():
            raise ActionError(
                f"trajectory of {len(trajectory)} rows: need {rows}, one a generator, all finite"
            )
        else:
            trajectory = trajectory.to(device)

        def answer(noisy: torch.Tensor, step: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
            prompt = None if trajectory is None else trajectory.repeat(len(noisy) // rows, 1, 1)
            with torch.autocast(device.type, torch.bfloat16, enabled=fast_bfloat16(device)):
                given = self.denoiser(noisy, step, prompt, keep=keep)
            return self.levels.as_noise(given, noisy, self.schedule, step) if self.levels else given

        noise = randn((rows, *self.config.tokenizer.latent_shape), generators, device)
        latents = ddpm_sample(
            answer,
            noise,
            self.schedule,
            len(self.schedule) if steps is None else steps,
            generators,
            self.config.guidance if guidance is None else guidance,
        )
        return latents / self.config.latent_scale
