"""The closed-loop world model: motion estimator, tokenizer and denoiser, from known past to drawn future."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from occsora_sim.errors import CheckpointError, ConfigurationError
from occsora_sim.grid import Grid
from occsora_sim.models.columns import UNSEEN, is_dynamic
from occsora_sim.models.compensated_tokenizer import CompensatedTokenizer, CompensatedTokenizerConfig
from occsora_sim.models.context import Context, unseen
from occsora_sim.models.cuts import Draws, place_cuts, take_cuts
from occsora_sim.models.departures import Departures
from occsora_sim.models.flow import flow_loss, flow_sample, noise_levels
from occsora_sim.models.motion import MotionEstimator
from occsora_sim.models.newcomers import Newcomers
from occsora_sim.models.prompt import keep_mask
from occsora_sim.models.record import Record
from occsora_sim.models.resampler import Resampler
from occsora_sim.models.scene_condition import SceneCondition, guided, leave_open, says
from occsora_sim.models.transformer import DiffusionTransformer, DiffusionTransformerConfig

_PROMPT_SCALE = (5.0, 5.0, 0.5)  # [m, m, rad]; brings a frame's motion to the order of one

_VOXEL_WEIGHT = 0.1  # of the cross-entropy [nats per latent token] beside the squared error of unit latents


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

    def _chunk(self, frames: Tensor) -> Tensor:
        """(b f, c, h, w) -> (b, 1, f c, h, w)."""
        return frames.unflatten(0, (-1, self.config.frames)).flatten(1, 2)[:, None]

    def _denoise(
        self, features: dict[str, Tensor], prompt: Tensor, keep: Tensor | None, condition: Tensor | None
    ):
        context = self._chunk(features["eighth"])
        scaled = prompt / prompt.new_tensor(_PROMPT_SCALE)
        return lambda z, t: self.denoiser(z, t, scaled, keep=keep, context=context, condition=condition)

    def _condition(self, scene: Tensor | None) -> Tensor | None:
        """The vector of scene prompts (b, 2), where this model takes them; None leaves all open."""
        return self.scene(scene) if self.scene is not None and scene is not None else None

    def loss(
        self, labels: Tensor, known: Context, prompt: Tensor, class_weight: Tensor, generator: torch.Generator,
        draws: Draws, scene: Tensor | None = None,
    ) -> tuple[Tensor, dict[str, float]]:  # fmt: skip
        """The denoiser's loss on chunks: squared error of the latent, on whole frames and on cuts from them (`Draws`);
        and, where a whole frame starts from pure noise, the cross-entropy of what the frozen decoder makes of one of
        its frames. That first estimate is the mean that forecasts are scored by, and distance between latents does not
        tell the numbers that a voxel hangs on from those that change nothing. Later estimates are left to the squared
        error alone, since a sampler needs conditional means.

        Args:
            labels: (b, f, x, y, z) uint8, the true future.
            known: its context, (b, f, ...).
            prompt: (b, f, 3), the ego's future poses relative to the present one.
            class_weight: (NUM_CLASSES,) float32, of the cross-entropy.
            generator: of noise, levels, prompt dropout and what is drawn.
            draws: how many draws are made of each chunk, and of what size.
            scene: (b, 2) scene prompts; None: open.

        """
        flat = known.flatten()
        with torch.no_grad():
            features = self.tokenizer.context(flat)
            # Where the record differs from what is there, the record stands: nothing may be spent on it.
            recorded = (known.static != UNSEEN) & ~is_dynamic(labels)
            mean, _ = self.tokenizer.encode(
                torch.where(recorded, known.static, labels).flatten(0, 1), flat, features
            )
            x = self._chunk(mean).transpose(1, 2) * self.latent_scale  # (b, f c, 1, h, w)
            weight = self._weight(labels, known)  # (b, f c, 1, h, w)
        keep = keep_mask(len(labels), self.config.prompt_dropout, generator, labels.device)
        if scene is not None:
            scene = leave_open(scene, self.config.scene_dropout, generator)
        condition = self._condition(scene)

        whole = min(draws.whole, len(labels))
        rows = torch.randperm(len(labels), generator=generator)[:whole].to(labels.device)
        level = noise_levels(whole, generator)
        pure = -(-whole // 2)
        level[:pure] = 1.0
        own = self._denoise(
            {"eighth": features["eighth"].unflatten(0, labels.shape[:2])[rows].flatten(0, 1)},
            prompt[rows],
            keep[rows],
            None if condition is None else condition[rows],
        )
        distance, estimate = flow_loss(own, x[rows], weight[rows], generator, level)
        frame = int(torch.randint(self.config.frames, (), generator=generator))
        at = rows[:pure] * self.config.frames + frame  # this frame of each pure chunk
        entropy, wrong = self.tokenizer.voxel_loss(
            self._frames(estimate[:pure])[frame :: self.config.frames],
            labels[rows[:pure], frame],
            Context(static=flat.static[at], prior=flat.prior[at], auxiliary=flat.auxiliary[at]),
            {name: part[at] for name, part in features.items()},
            class_weight,
            generator,
            self.config.tokenizer.columns_per_frame // 2,
        )
        cut = distance.new_zeros(())
        if draws.cuts:
            cut = self._cut_loss(x, weight, features, prompt, keep, condition, generator, draws)
        loss = distance + cut + _VOXEL_WEIGHT * entropy
        with torch.no_grad():
            error = (estimate - x[rows]).pow(2).mean() / x[rows].pow(2).mean()
        return loss, {
            "world_model/loss": float(loss.detach()),
            "world_model/distance": float(distance.detach()),
            "world_model/cut_distance": float(cut.detach()),
            "world_model/cross_entropy": float(entropy.detach()),
            "world_model/relative_error": float(error),
            "world_model/wrong_voxels": float(wrong.mean()),
        }

    def _weight(self, labels: Tensor, known: Context) -> Tensor:
        """Weight of each latent cell (b, f c, 1, h, w): 1, and up to 3 more each for new ground and for road users that
        nothing known tells of.
        """
        appears = is_dynamic(labels).any(-1) & ~is_dynamic(known.prior).any(-1)
        both = torch.stack((unseen(known.static).float(), appears.float()), dim=2).flatten(
            0, 1
        )  # (b f, 2, x, y)
        share, some = nn.functional.avg_pool2d(both[:, :1], 8), nn.functional.max_pool2d(both[:, 1:], 8)
        weight = 1 + 3 * share + 3 * some
        return self._chunk(weight.expand(-1, self.config.tokenizer.channels, -1, -1)).transpose(1, 2)

    def _cut_loss(
        self, x: Tensor, weight: Tensor, features: dict[str, Tensor], prompt: Tensor, keep: Tensor,
        condition: Tensor | None, generator: torch.Generator, draws: Draws,
    ) -> Tensor:  # fmt: skip
        """Squared error on cuts, placed where there is something to draw."""
        corner = place_cuts(weight.amax(1)[:, 0] - 0.95, draws, generator)
        context = take_cuts(self._chunk(features["eighth"]), corner, draws.edge)
        prompt = (prompt / prompt.new_tensor(_PROMPT_SCALE)).repeat_interleave(draws.cuts, dim=0)
        keep = keep.repeat_interleave(draws.cuts)
        if condition is not None:
            condition = condition.repeat_interleave(draws.cuts, dim=0)

        def denoise(z: Tensor, t: Tensor) -> Tensor:
            return self.denoiser(z, t, prompt, keep=keep, context=context, condition=condition, corner=corner)

        x, weight = take_cuts(x, corner, draws.edge), take_cuts(weight, corner, draws.edge)
        return flow_loss(denoise, x, weight, generator)[0]

    def _frames(self, z: Tensor) -> Tensor:
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
        denoise = self._denoise(features, prompt, None, self._condition(scene))
        if guidance != 1 and self.scene is not None and scene is not None:
            asks = says(scene)
            if asks.any():
                open_one = self._denoise(features, prompt, None, None)
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
        return self.tokenizer.decode(self._frames(z), flat, features, told=new).unflatten(0, (b, f))

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
