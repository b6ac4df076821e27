"""The diffusion transformer: blocks on latent tokens (Peebles & Xie 2023), for every preset."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from einops import rearrange
from torch import nn
from torch.nn import functional as F

from occsora_sim.errors import ConfigurationError
from occsora_sim.models.block import Block, MixingMLP
from occsora_sim.models.positions import grid_positions, sinusoids
from occsora_sim.models.prompt import TrajectoryPrompt, TrajectoryPromptConfig

NOISE_FEATURES = 256
"""Sinusoids that describe the noise level."""


@dataclass(frozen=True, kw_only=True)
class DiffusionTransformerConfig:
    """Sizes of a `DiffusionTransformer`.

    Attributes:
        in_channels: c, channels of the noisy latent.
        out_channels: channels of the answer (twice in_channels when a variance is learned).
        context_channels: c_ctx, known channels on the latent's grid, concatenated to it at the input.
        tokens: (t, h, w), the latent's grid, before patching.
        hidden: token width; a multiple of `heads`.
        depth: blocks.
        heads: attention heads.
        mlp_ratio: width of a block's MLP over `hidden`.
        mixing: edge of the depthwise convolution over (h, w) inside each MLP, odd; 0: none. Attention alone learns
            what neighbours have to do with one another slowly.
        patch: edge of the square of latent cells in a token; divides h and w. Only the linear stem patches.
        stem: "linear" (one projection a token) or "conv" (two 3 x 3 x 3 convolutions, OccSora's).
        positions: "sincos" (fixed, one share of the channels an axis) or "learned" (OccSora's).
        noise_scale: factor on the noise level ahead of its sinusoids, which resolve steps of about 1 up to
            10,000: 1 for step numbers (0 to 999), 1000 for levels in [0, 1].
        prompt_frames: f, poses in a trajectory prompt.
        prompt_features: k, numbers a pose.
        prompt_hidden: hidden widths of the prompt's MLP.

    """

    in_channels: int = 16
    out_channels: int = 16
    context_channels: int = 0
    tokens: tuple[int, int, int] = (1, 25, 25)
    hidden: int = 256
    depth: int = 8
    heads: int = 8
    mlp_ratio: float = 4.0
    mixing: int = 0
    patch: int = 1
    stem: Literal["linear", "conv"] = "linear"
    positions: Literal["sincos", "learned"] = "sincos"
    noise_scale: float = 1.0
    prompt_frames: int = 2
    prompt_features: int = 3
    prompt_hidden: tuple[int, ...] = (128, 128)

    def __post_init__(self) -> None:
        def fail(what: str) -> None:
            raise ConfigurationError(f"diffusion transformer: {what}; see DiffusionTransformerConfig")

        if len(self.tokens) != 3 or min(self.tokens) < 1:
            fail(f"tokens {self.tokens} must be three positive sizes (t, h, w)")
        if min(self.in_channels, self.out_channels, self.hidden, self.depth, self.heads, self.patch) < 1:
            fail("in_channels, out_channels, hidden, depth, heads and patch must be at least 1")
        if self.context_channels < 0 or not self.mlp_ratio > 0 or not self.noise_scale > 0:
            fail("context_channels must not be negative; mlp_ratio and noise_scale must be positive")
        if self.mixing < 0 or (self.mixing and self.mixing % 2 == 0):
            fail(f"mixing {self.mixing} must be odd, or 0 for none")
        if self.hidden % self.heads or self.hidden % 2:
            fail(f"hidden {self.hidden} must be even and a multiple of heads {self.heads}")
        if self.tokens[1] % self.patch or self.tokens[2] % self.patch:
            fail(f"patch {self.patch} must divide the token grid {self.tokens}")
        if self.stem not in ("linear", "conv") or self.positions not in ("sincos", "learned"):
            fail(f"unknown stem {self.stem!r} or positions {self.positions!r}")
        if self.stem == "conv" and self.patch != 1:
            fail("the conv stem needs patch 1")


class DiffusionTransformer(nn.Module):
    """Answers, for a noisy latent, what the objective asks: noise, clean latent or velocity (and a variance).

    It knows no schedule: the noise level is a number; the objective (DDPM, flow matching) gives it meaning.
    With `stem="conv"`, `positions="learned"`, hidden 256, depth 28, 16 heads and tokens (4, 25, 25) it is
    OccSora's denoiser; deviations: the null prompt is trained, and the batch may have any size.
    """

    def __init__(self, config: DiffusionTransformerConfig) -> None:
        super().__init__()
        self.config = config
        hidden, patch = config.hidden, config.patch
        width_in = config.in_channels + config.context_channels
        self.stem: nn.Module
        if config.stem == "conv":
            self.stem = nn.Sequential(
                nn.Conv3d(width_in, hidden, 3, padding=1), nn.Conv3d(hidden, hidden, 3, padding=1)
            )
        else:
            self.stem = nn.Linear(width_in * patch * patch, hidden)
        t, h, w = config.tokens
        self.grid = (t, h // patch, w // patch)
        if config.positions == "learned":
            count = math.prod(self.grid)
            # Starts as sinusoids of the running index, so that neighbours along w begin alike.
            self.positions = nn.Parameter(sinusoids(torch.arange(1, count + 1), hidden))
        else:
            self.register_buffer("positions", grid_positions(self.grid, hidden), persistent=False)
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
            Block(hidden, config.heads, config.mlp_ratio, config.mixing) for _ in range(config.depth)
        )
        self.norm = nn.LayerNorm(hidden, elementwise_affine=False, eps=1e-6)
        self.modulation = nn.Linear(hidden, 2 * hidden)
        self.head = nn.Linear(hidden, config.out_channels * patch * patch)
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
            if isinstance(
                module, MixingMLP
            ):  # at first an MLP without it: weights of one without serve as a start
                nn.init.zeros_(module.mix.weight)
                nn.init.zeros_(module.mix.bias)  # type: ignore[arg-type]
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
        context: torch.Tensor | None = None,
        condition: torch.Tensor | None = None,
        corner: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Denoise a batch of latents, or of equal cuts from them.

        Args:
            x: (b, c, t, h, w), the noisy latent.
            noise: (b,) noise level (see `noise_scale`).
            prompt: (b, f, k) trajectory; None: the null prompt everywhere.
            keep: (b,) bool, False where the null prompt replaces the trajectory; None keeps all.
            context: (b, t, c_ctx, h, w), what is known; needed when context_channels > 0.
            condition: (b, hidden), anything more to condition on, added to noise and prompt embeddings.
            corner: (b, 2) int64, the first row and column of each cut in the whole latent; x and context then have
                the cut's h, w. None: the whole latent.

        Returns:
            (b, out_channels, t, h, w).

        Raises:
            ConfigurationError: x or context do not fit the configuration.
            ActionError: the prompt does not.

        """
        config = self.config
        self._check(x, context, corner)
        grid = (x.shape[2], x.shape[3] // config.patch, x.shape[4] // config.patch)
        if context is not None:
            x = torch.cat([x, context.transpose(1, 2).to(x.dtype)], dim=1)
        if config.stem == "conv":
            tokens = self.stem(x).flatten(2).transpose(1, 2)
        else:
            tokens = self.stem(
                rearrange(x, "b c t (h p) (w q) -> b (t h w) (c p q)", p=config.patch, q=config.patch)
            )
        tokens = tokens + self._positions(grid, corner)  # (b, n, hidden)
        level = self.noise_mlp(
            sinusoids(noise * config.noise_scale, NOISE_FEATURES).to(self.head.weight.dtype)
        )
        total = level + self.prompt(prompt, keep, batch=x.shape[0])
        if condition is not None:
            total = total + condition
        total = F.silu(total)
        for block in self.blocks:
            tokens = block(tokens, total, grid)
        shift, scale = self.modulation(total)[:, None].chunk(2, dim=-1)
        tokens = self.head(torch.addcmul(shift, self.norm(tokens), 1 + scale))
        t, h, w = grid
        pattern = "b (t h w) (c p q) -> b c t (h p) (w q)"
        return rearrange(tokens, pattern, t=t, h=h, w=w, p=config.patch, q=config.patch)

    def _positions(self, grid: tuple[int, int, int], corner: torch.Tensor | None) -> torch.Tensor:
        """Position embeddings (n, hidden) of all tokens, or (b, n, hidden) of cuts of `grid` tokens."""
        if corner is None:
            return self.positions
        image = self.positions.view(*self.grid, -1)
        cuts = [image[:, i : i + grid[1], j : j + grid[2]] for i, j in (corner // self.config.patch).tolist()]
        return torch.stack(cuts).flatten(1, 3)

    def _check(
        self, x: torch.Tensor, context: torch.Tensor | None, corner: torch.Tensor | None = None
    ) -> None:
        config = self.config
        tokens = config.tokens
        if corner is not None and x.ndim == 5:
            tokens = (tokens[0], min(tokens[1], x.shape[3]), min(tokens[2], x.shape[4]))
        wanted = (config.in_channels, *tokens)
        if x.ndim != 5 or tuple(x.shape[1:]) != wanted:
            raise ConfigurationError(
                f"diffusion transformer: latent of shape {tuple(x.shape)}, need (batch, channels, t, h, w) "
                f"with {wanted} after the batch"
            )
        t, h, w = tokens
        known = (x.shape[0], t, config.context_channels, h, w)
        given = None if context is None else tuple(context.shape)
        if given != (known if config.context_channels else None):
            raise ConfigurationError(
                f"diffusion transformer: context of shape {given}, "
                f"need {known if config.context_channels else 'none'}: batch, t, channels, h, w"
            )
