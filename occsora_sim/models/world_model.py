"""The closed-loop world model: motion estimator, tokenizer and denoiser, from known past to drawn future."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from occsora_sim.errors import CheckpointError, ConfigurationError
from occsora_sim.grid import Grid
from occsora_sim.models.compensated_tokenizer import CompensatedTokenizer, CompensatedTokenizerConfig
from occsora_sim.models.context import Context, unseen
from occsora_sim.models.departures import Departures
from occsora_sim.models.flow import Denoise, flow_sample
from occsora_sim.models.motion import MotionEstimator
from occsora_sim.models.newcomers import Newcomers
from occsora_sim.models.record import Record
from occsora_sim.models.resampler import Resampler
from occsora_sim.models.scene_condition import SceneCondition, guided, says
from occsora_sim.models.transformer import DiffusionTransformer, DiffusionTransformerConfig

_PROMPT_SCALE = (5.0, 5.0, 0.5)  # [m, m, rad]; brings a frame's motion to the order of one


@dataclass(frozen=True, kw_only=True)
class WorldModelConfig:
    """Sizes of a closed-loop world model; it travels in the checkpoint.

    Attributes:
        preset: the name of the preset that this is.
        grid: the voxel grid.
        history: frames that a start needs.
        frames: f, frames per chunk.
        motion_frames: frames that the motion estimator reads.
        motion_width: its channels.
        departures: width of the network that lets set off who stands; 0: none, they stand until the motion
            estimator foretells otherwise.
        newcomers: width of the network that says who comes into view; 0: none, it is left to the denoiser.
        resampler: width of the network that reads the record between its samples; 0: none, the nearest answers.
        tokenizer: sizes of the tokenizer.
        hidden: token width of the denoiser.
        depth: its blocks.
        heads: its attention heads.
        mixing: edge of the depthwise convolution in its blocks; 0: none.
        prompt_dropout: share of chunks trained without the trajectory prompt.
        scene_prompts: whether it takes scene prompts.
        scene_dropout: share of chunks trained with each part of the scene prompt left open.

    """

    preset: str = "small"
    grid: Grid = field(default_factory=Grid)
    history: int = 4
    frames: int = 2
    motion_frames: int = 4
    motion_width: int = 48
    departures: int = 128
    newcomers: int = 32
    resampler: int = 128
    tokenizer: CompensatedTokenizerConfig = field(default_factory=CompensatedTokenizerConfig)
    hidden: int = 192
    depth: int = 6
    heads: int = 6
    mixing: int = 3
    prompt_dropout: float = 0.1
    scene_prompts: bool = True
    scene_dropout: float = 0.2

    def __post_init__(self) -> None:
        if self.history < self.motion_frames or self.frames < 1 or self.motion_frames < 2:
            raise ConfigurationError(
                f"world model: history {self.history} must be at least motion_frames {self.motion_frames} >= 2, "
                f"frames {self.frames} at least 1"
            )

    @property
    def latent_shape(self) -> tuple[int, int]:
        """h, w of the latent."""
        return self.grid.shape[0] // 8, self.grid.shape[1] // 8

    def to_header(self) -> dict[str, Any]:
        """A JSON-serialisable form; `from_header` is its inverse."""
        return asdict(self)

    @staticmethod
    def from_header(header: dict[str, Any]) -> WorldModelConfig:
        """The configuration stored in a checkpoint.

        Raises:
            CheckpointError: a field is unknown or missing.

        """
        try:
            grid: dict[str, Any] = {
                k: tuple(v) if isinstance(v, list) else v for k, v in header["grid"].items()
            }
            rest = {k: v for k, v in header.items() if k not in ("grid", "tokenizer")}
            # Weights from before these existed have none.
            rest.setdefault("mixing", 0)
            rest.setdefault("departures", 0)
            rest.setdefault("newcomers", 0)
            rest.setdefault("resampler", 0)
            rest.setdefault("scene_prompts", False)
            tokenizer = CompensatedTokenizerConfig(**{"small_road_users": 0, **header["tokenizer"]})
            return WorldModelConfig(grid=Grid(**grid), tokenizer=tokenizer, **rest)
        except (KeyError, TypeError, AttributeError) as error:
            raise CheckpointError(
                f"weights: their configuration does not fit this release ({error})"
            ) from error


class WorldModel(nn.Module):
    """Draws the next chunk of occupancy from a `Context` and a trajectory prompt."""

    latent_scale: Tensor

    def __init__(self, config: WorldModelConfig) -> None:
        super().__init__()
        self.config = config
        self.motion = MotionEstimator(config.motion_frames, config.frames, config.motion_width)
        self.departures = (
            Departures(self.motion.channels, config.frames, config.departures) if config.departures else None
        )
        self.newcomers = Newcomers(config.newcomers) if config.newcomers else None
        self.resampler = Resampler(config.grid.shape[2], config.resampler) if config.resampler else None
        self.tokenizer = CompensatedTokenizer(config.tokenizer, config.grid)
        channels = config.frames * config.tokenizer.channels
        # The frames of a chunk lie side by side in a token: one attention over space draws all of them together.
        self.denoiser = DiffusionTransformer(
            DiffusionTransformerConfig(
                in_channels=channels,
                out_channels=channels,
                context_channels=config.frames * self.tokenizer.context_channels,
                tokens=(1, *config.latent_shape),
                hidden=config.hidden,
                depth=config.depth,
                heads=config.heads,
                mixing=config.mixing,
                noise_scale=1000.0,
                prompt_frames=config.frames,
                prompt_features=3,
            )
        )
        self.scene = SceneCondition(config.hidden) if config.scene_prompts else None
        self.register_buffer("latent_scale", torch.ones(()))

    def read(self, record: Record, poses: Tensor) -> Tensor:
        """A record seen from world poses (b, f, 3): (b, f, x, y, z) uint8, UNSEEN where nothing is recorded."""
        grid = self.config.grid
        return (
            record.read(poses, grid) if self.resampler is None else self.resampler.read(record, poses, grid)
        )

    def chunk(self, frames: Tensor) -> Tensor:
        """Frames (b f, c, h, w) side by side, as the denoiser sees them: (b, 1, f c, h, w)."""
        return frames.unflatten(0, (-1, self.config.frames)).flatten(1, 2)[:, None]

    def denoising(
        self, context: Tensor, prompt: Tensor, *, keep: Tensor | None = None, condition: Tensor | None = None,
        corner: Tensor | None = None,
    ) -> Denoise:  # fmt: skip
        """The denoiser with all bound that it is told: `context` (b, 1, f c, h, w), the `chunk` of the tokenizer's
        features at an eighth, the prompt (b, f, 3), and the rest as for `DiffusionTransformer.forward`.
        """
        scaled = prompt / prompt.new_tensor(_PROMPT_SCALE)
        return lambda z, t: self.denoiser(
            z, t, scaled, keep=keep, context=context, condition=condition, corner=corner
        )

    def condition(self, scene: Tensor | None) -> Tensor | None:
        """The vector of scene prompts (b, 2), where this model takes them; None leaves all open."""
        return self.scene(scene) if self.scene is not None and scene is not None else None

    def frames(self, z: Tensor) -> Tensor:
        """Scaled chunk latents (b, f c, 1, h, w) -> latents of frames (b f, c, h, w)."""
        return (
            (z / self.latent_scale).transpose(1, 2)[:, 0].unflatten(1, (self.config.frames, -1)).flatten(0, 1)
        )

    @torch.no_grad()
    def sample(
        self, known: Context, prompt: Tensor, generators: Sequence[torch.Generator] | None, steps: int,
        scene: Tensor | None = None, guidance: float = 1.0,
    ) -> Tensor:  # fmt: skip
        """Labels (b, f, x, y, z) uint8 of the next chunk.

        Args:
            known: the context of the f frames.
            prompt: (b, f, 3).
            generators: one per row; None takes the mean (one step from zero noise).
            steps: denoising steps.
            scene: (b, 2) scene prompts (`ScenePrompt.tensor`); None: open. Models without ignore it.
            guidance: by the scene prompts, see `guided`; all but 1 cost a second call of the network.

        """
        flat = known.flatten()
        features = self.tokenizer.context(flat)
        context = self.chunk(features["eighth"])
        denoise = self.denoising(context, prompt, condition=self.condition(scene))
        if guidance != 1 and self.scene is not None and scene is not None:
            asks = says(scene)
            if asks.any():
                open_one = self.denoising(context, prompt)
                denoise = guided(denoise, open_one, asks, guidance)
        b, f = known.static.shape[:2]
        shape = (b, f * self.config.tokenizer.channels, 1, *self.config.latent_shape)
        if generators is None:
            z = denoise(prompt.new_zeros(shape), prompt.new_ones(b))
        else:
            z = flow_sample(denoise, shape, steps, generators, prompt.device)
        # Where most of a cell's ground is known, the motion that carries small road users is to be trusted more than a
        # draw.
        new = nn.functional.avg_pool2d(unseen(flat.static[:, 0]).float()[:, None], 8)[:, 0] > 0.5
        return self.tokenizer.decode(self.frames(z), flat, features, told=new).unflatten(0, (b, f))

    @torch.no_grad()
    def reconstruct(self, labels: Tensor, known: Context) -> Tensor:
        """The tokenizer's reconstruction of a true future (b, f, x, y, z) uint8: the denoiser's ceiling."""
        flat = known.flatten()
        features = self.tokenizer.context(flat)
        mean, _ = self.tokenizer.encode(labels.flatten(0, 1), flat, features)
        return self.tokenizer.decode(mean, flat, features).unflatten(0, labels.shape[:2])

    @torch.no_grad()
    def predict(self, known: Context) -> Tensor:
        """The decoder's own prediction, with an empty latent: (b, f, x, y, z) uint8."""
        flat = known.flatten()
        b, f = known.static.shape[:2]
        empty = flat.auxiliary.new_zeros(b * f, self.config.tokenizer.channels, *self.config.latent_shape)
        told = torch.zeros(b * f, *self.config.latent_shape, dtype=torch.bool, device=empty.device)
        return self.tokenizer.decode(empty, flat, told=told).unflatten(0, (b, f))
