"""OccSora's diffusion transformer: blocks on latent tokens (Peebles & Xie 2023), a trajectory as the prompt."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from einops import rearrange
from torch import nn
from torch.nn import functional as F

from occsora_sim.errors import ConfigurationError
from occsora_sim.models.block import GROUPS, Block
from occsora_sim.models.positions import sinusoids
from occsora_sim.models.prompt import TrajectoryPrompt, TrajectoryPromptConfig

NOISE_FEATURES = 256
"""Sinusoids that describe the noise level."""


@dataclass(frozen=True, kw_only=True)
class DiffusionTransformerConfig:
    """Sizes of a `DiffusionTransformer`; the defaults are OccSora's.

    Attributes:
        in_channels: c, channels of the noisy latent.
        out_channels: channels of the answer (twice in_channels when a variance is learned).
        tokens: (t, h, w), the latent's grid.
        hidden: token width; a multiple of `heads`.
        depth: blocks.
        heads: attention heads.
        mlp_ratio: width of a block's MLP over `hidden`.
        groups: who sees whom in a block, of `block.GROUPS`; the blocks take turns.
        prompt_frames: f, poses in a trajectory prompt.
        prompt_features: k, numbers a pose.
        prompt_hidden: hidden widths of the prompt's MLP.

    """

    in_channels: int = 128
    out_channels: int = 256
    tokens: tuple[int, int, int] = (4, 25, 25)
    hidden: int = 256
    depth: int = 28
    heads: int = 16
    mlp_ratio: float = 4.0
    groups: tuple[str, ...] = ("all",)
    prompt_frames: int = 32
    prompt_features: int = 2
    prompt_hidden: tuple[int, ...] = (128, 128)

    def __post_init__(self) -> None:
        def fail(what: str) -> None:
            raise ConfigurationError(f"diffusion transformer: {what}; see DiffusionTransformerConfig")

        if len(self.tokens) != 3 or min(self.tokens) < 1:
            fail(f"tokens {self.tokens} must be three positive sizes (t, h, w)")
        if min(self.in_channels, self.out_channels, self.hidden, self.depth, self.heads) < 1:
            fail("in_channels, out_channels, hidden, depth and heads must be at least 1")
        if not self.mlp_ratio > 0:
            fail(f"mlp_ratio {self.mlp_ratio} must be positive")
        if not self.groups or not set(self.groups) <= set(GROUPS):
            fail(f"groups {self.groups} must be of {', '.join(GROUPS)}")
        if self.hidden % self.heads or self.hidden % 2:
            fail(f"hidden {self.hidden} must be even and a multiple of heads {self.heads}")


class DiffusionTransformer(nn.Module):
    """Answers, for a noisy latent, the noise in it and a variance.

    It knows no schedule: the noise level is a number, to which the objective (`ddpm`) gives meaning. Deviations from
    OccSora's: the null prompt is trained, and the batch may have any size.
    """

    def __init__(self, config: DiffusionTransformerConfig) -> None:
        super().__init__()
        self.config = config
        hidden = config.hidden
        self.stem = nn.Sequential(
            nn.Conv3d(config.in_channels, hidden, 3, padding=1), nn.Conv3d(hidden, hidden, 3, padding=1)
        )
        # Starts as sinusoids of the running index, so that neighbours along w begin alike.
        count = math.prod(config.tokens)
        self.positions = nn.Parameter(sinusoids(torch.arange(1, count + 1), hidden))
        self.noise_mlp = nn.Sequential(
            nn.Linear(NOISE_FEATURES, hidden), nn.SiLU(), nn.Linear(hidden, hidden)
        )
        self.prompt = TrajectoryPrompt(
            TrajectoryPromptConfig(
                frames=config.prompt_frames,
                features=config.prompt_features,
                hidden=config.prompt_hidden,
                out=hidden,
            )
        )
        self.blocks = nn.ModuleList(
            Block(
                hidden,
                config.heads,
                config.mlp_ratio,
                group=config.groups[number % len(config.groups)],
                sides=config.tokens[:2],
            )
            for number in range(config.depth)
        )
        self.norm = nn.LayerNorm(hidden, elementwise_affine=False, eps=1e-6)
        self.modulation = nn.Linear(hidden, 2 * hidden)
        self.head = nn.Linear(hidden, config.out_channels)
        self.initialise()

    def initialise(self) -> None:
        """Set the starting weights (Peebles & Xie 2023, section 3.2)."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        for module in self.noise_mlp:
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.02)
        # Gates of zero make every block the identity at first, so depth costs no signal or gradient early on.
        for module in self.modules():
            if isinstance(module, Block):
                nn.init.zeros_(module.modulation.weight)
        nn.init.zeros_(self.modulation.weight)
        # A head of zero answers zero: the loss starts at the target's variance whatever the weights are.
        nn.init.zeros_(self.head.weight)

    def forward(
        self,
        x: torch.Tensor,
        noise: torch.Tensor,
        prompt: torch.Tensor | None,
        *,
        keep: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Denoise a batch of latents.

        Args:
            x: (b, c, t, h, w), the noisy latent.
            noise: (b,) noise level: a step number, 0 to 999 say.
            prompt: (b, f, k) trajectory; None: the null prompt everywhere.
            keep: (b,) bool, False where the null prompt replaces the trajectory; None keeps all.

        Returns:
            (b, out_channels, t, h, w).

        Raises:
            ConfigurationError: x does not fit the configuration.
            ActionError: the prompt does not.

        """
        wanted = (self.config.in_channels, *self.config.tokens)
        if x.ndim != 5 or tuple(x.shape[1:]) != wanted:
            raise ConfigurationError(
                f"diffusion transformer: latent of shape {tuple(x.shape)}, need (batch, channels, t, h, w) "
                f"with {wanted} after the batch"
            )
        tokens = self.stem(x).flatten(2).transpose(1, 2) + self.positions  # (b, t h w, hidden)
        level = self.noise_mlp(sinusoids(noise, NOISE_FEATURES).to(self.head.weight.dtype))
        condition = F.silu(level + self.prompt(prompt, keep, batch=len(x)))
        for block in self.blocks:
            tokens = block(tokens, condition)
        shift, scale = self.modulation(condition)[:, None].chunk(2, dim=-1)
        tokens = self.head(torch.addcmul(shift, self.norm(tokens), 1 + scale))
        t, h, w = self.config.tokens
        return rearrange(tokens, "b (t h w) c -> b c t h w", t=t, h=h, w=w)
