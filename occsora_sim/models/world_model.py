"""The closed-loop world model: traffic and entries of road users, tokenizer and denoiser of the ground."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from occsora_sim.device import fast_bfloat16
from occsora_sim.errors import CheckpointError, ConfigurationError
from occsora_sim.grid import Grid
from occsora_sim.models.compensated_tokenizer import CompensatedTokenizer, CompensatedTokenizerConfig
from occsora_sim.models.context import Context
from occsora_sim.models.entries import Entries, EntriesConfig
from occsora_sim.models.flow import Denoise, flow_sample
from occsora_sim.models.record import Record
from occsora_sim.models.resampler import Resampler
from occsora_sim.models.scene_condition import SceneCondition, guided, says
from occsora_sim.models.traffic import TrafficConfig, TrafficModel
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
        resampler: width of the network that reads the record between its samples; 0: none, the nearest answers.
        tokenizer: sizes of the tokenizer.
        hidden: token width of the denoiser.
        depth: its blocks.
        heads: its attention heads.
        mixing: edge of the depthwise convolution in its blocks; 0: none.
        prompt_dropout: share of chunks trained without the trajectory prompt.
        scene_prompts: whether it takes scene prompts.
        scene_dropout: share of chunks trained with each part of the scene prompt left open.
        traffic: sizes of the traffic model.
        entries: sizes of the model of who comes into view.

    """

    preset: str = "small"
    grid: Grid = field(default_factory=Grid)
    history: int = 4
    frames: int = 2
    resampler: int = 128
    tokenizer: CompensatedTokenizerConfig = field(default_factory=CompensatedTokenizerConfig)
    hidden: int = 192
    depth: int = 6
    heads: int = 6
    mixing: int = 3
    prompt_dropout: float = 0.1
    scene_prompts: bool = True
    scene_dropout: float = 0.2
    traffic: TrafficConfig = field(default_factory=TrafficConfig)
    entries: EntriesConfig = field(default_factory=EntriesConfig)

    def __post_init__(self) -> None:
        if self.history < 2 or self.frames < 1:
            raise ConfigurationError(
                f"world model: history {self.history} must be at least 2, frames {self.frames} at least 1"
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
            parts = ("grid", "tokenizer", "traffic", "entries")
            return WorldModelConfig(
                grid=Grid(**grid),
                tokenizer=CompensatedTokenizerConfig(**header["tokenizer"]),
                traffic=TrafficConfig.from_header(header["traffic"]),
                entries=EntriesConfig.from_header(header["entries"]),
                **{name: value for name, value in header.items() if name not in parts},
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise CheckpointError(
                f"weights: their configuration does not fit this release ({error})"
            ) from error


class WorldModel(nn.Module):
    """What a generated world is made of: road users that move and enter, and ground that is drawn."""

    latent_scale: Tensor

    def __init__(self, config: WorldModelConfig) -> None:
        super().__init__()
        self.config = config
        self.traffic = TrafficModel(config.traffic)
        self.entries = Entries(config.entries)
        self.resampler = Resampler(config.grid.shape[2], config.resampler) if config.resampler else None
        self.tokenizer = CompensatedTokenizer(config.tokenizer, config.grid)
        channels = config.frames * config.tokenizer.latent
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
        self, known: Context, prompt: Tensor, noise: Tensor | None, steps: int, scene: Tensor | None = None,
        guidance: float = 1.0,
    ) -> Tensor:  # fmt: skip
        """Labels (b, x, y, z) uint8 of the first of the next f frames, drawn together; of the road users in them no
        notice need be taken.

        Args:
            known: the context of the f frames.
            prompt: (b, f, 3).
            noise: (b, f c, 1, h, w) standard normal; None takes the mean (one step from zero noise).
            steps: denoising steps.
            scene: (b, 2) scene prompts (`ScenePrompt.tensor`); None: open. Models without ignore it.
            guidance: by the scene prompts, see `guided`; all but 1 cost a second call of the network.

        """
        flat = known.flatten()
        features = self.tokenizer.context(flat)
        context = self.chunk(features["eighth"])
        denoise = self.denoising(context, prompt, condition=self.condition(scene))
        if guidance != 1 and self.scene is not None and scene is not None:
            denoise = guided(denoise, self.denoising(context, prompt), says(scene), guidance)
        b, f = known.static.shape[:2]
        with torch.autocast(prompt.device.type, torch.bfloat16, enabled=fast_bfloat16(prompt.device)):
            if noise is None:
                z = denoise(prompt.new_zeros((b, *self.noise_shape)), prompt.new_ones(b))
            else:
                z = flow_sample(denoise, noise, steps)
        first = Context(
            static=known.static[:, :1], prior=known.prior[:, :1], auxiliary=known.auxiliary[:, :1]
        )
        features = {name: part[::f] for name, part in features.items()}
        return self.tokenizer.decode(self.frames(z.float())[::f], first, features)

    @property
    def noise_shape(self) -> tuple[int, int, int, int]:
        """The shape f c, 1, h, w of a chunk's latent."""
        return self.config.frames * self.config.tokenizer.latent, 1, *self.config.latent_shape

    @torch.no_grad()
    def reconstruct(self, labels: Tensor, known: Context) -> Tensor:
        """The tokenizer's reconstruction of a true future (b, f, x, y, z) uint8: the denoiser's ceiling."""
        flat = known.flatten()
        features = self.tokenizer.context(flat)
        mean, _ = self.tokenizer.encode(labels.flatten(0, 1), flat, features)
        return self.tokenizer.decode(mean, flat, features).unflatten(0, labels.shape[:2])
