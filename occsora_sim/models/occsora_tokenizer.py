"""OccSora's 4D tokenizer: a clip of occupancy to a small latent and back (Wang et al. 2024, section 3.2)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn
from torch.nn import functional as F

from occsora_sim.errors import ConfigurationError
from occsora_sim.grid import NUM_CLASSES
from occsora_sim.models.axial import AxialResidualBlock
from occsora_sim.models.embedding import ClassEmbedding
from occsora_sim.models.lovasz import lovasz_softmax
from occsora_sim.models.quantiser import IdentityQuantiser, Quantised, VectorQuantiser


@dataclass(frozen=True, kw_only=True)
class OccSoraTokenizerConfig:
    """Sizes and loss weights; the defaults are the paper's.

    Attributes:
        shape: (x, y, z) voxels of a frame.
        frames: t, frames in a clip.
        class_width: numbers in a class's embedding.
        hidden: channels of the convolutions and the residual blocks.
        latent_channels: c, channels of the latent.
        factors: (t, x, y), how much the latent is shorter along each; powers of two.
        blocks: residual blocks with axial attention, on each side.
        heads: attention heads.
        quantiser: "vector" or "identity".
        codes: size of the codebook.
        commitment: weight of the commitment term.
        revive_after: training steps until an unused code is moved; 0 leaves it (see `VectorQuantiser`).
        cross_entropy: weight of the voxels' cross-entropy.
        lovasz: weight of the Lovasz-softmax loss.
        quantisation: weight of the quantiser's loss.
        lovasz_points: voxels of a batch that the Lovasz loss sorts; 0 for all, as the reference does.
        piece: x and y voxels of the piece of a clip that a training step looks at, of all its frames; a multiple of
            `factors`. 0 for whole clips, as the reference does.

    """

    shape: tuple[int, int, int] = (200, 200, 16)
    frames: int = 32
    class_width: int = 8
    hidden: int = 512
    latent_channels: int = 128
    factors: tuple[int, int, int] = (8, 8, 8)
    blocks: int = 4
    heads: int = 2
    quantiser: Literal["vector", "identity"] = "vector"
    codes: int = 512
    commitment: float = 1.0
    revive_after: int = 0
    cross_entropy: float = 10.0
    lovasz: float = 1.0
    quantisation: float = 1.0
    lovasz_points: int = 0
    piece: int = 0

    def __post_init__(self) -> None:
        def fail(what: str) -> None:
            raise ConfigurationError(f"tokenizer: {what}; see OccSoraTokenizerConfig")

        sizes = (self.frames, self.class_width, self.hidden, self.latent_channels, self.heads, self.codes)
        if len(self.shape) != 3 or min(*self.shape, *sizes) < 1 or min(self.blocks, self.lovasz_points) < 0:
            fail("sizes must be positive, blocks and lovasz_points not negative")
        if len(self.factors) != 3 or any(f < 1 or f & (f - 1) for f in self.factors) or max(self.factors) < 2:
            fail(f"factors {self.factors} must be three powers of two, not all 1")
        if any(n % f for n, f in zip((self.frames, *self.shape[:2]), self.factors, strict=True)):
            fail(f"factors {self.factors} must divide frames, x and y: {(self.frames, *self.shape[:2])}")
        if self.hidden % (2 * self.heads):
            fail(f"hidden {self.hidden} must be a multiple of twice the heads ({self.heads})")
        if not 0 <= self.piece <= min(self.shape[:2]) or any(self.piece % f for f in self.factors[1:]):
            fail(
                f"piece {self.piece} must be a multiple of the factors {self.factors[1:]} and fit into a frame"
            )
        if self.quantiser not in ("vector", "identity"):
            fail(f"quantiser {self.quantiser!r} is 'vector' or 'identity'")
        if min(self.commitment, self.revive_after, self.cross_entropy, self.lovasz, self.quantisation) < 0:
            fail("weights must not be negative")

    @property
    def latent_shape(self) -> tuple[int, int, int, int]:
        """(c, t', x', y') of a clip's latent."""
        t, x, y = (n // f for n, f in zip((self.frames, *self.shape[:2]), self.factors, strict=True))
        return self.latent_channels, t, x, y


def strides(factors: tuple[int, int, int]) -> list[tuple[int, int, int]]:
    """The stride of each down-sampling convolution, in order: 2 along an axis until its factor is met."""
    depths = [int(math.log2(factor)) for factor in factors]
    return [
        (2 if depths[0] > i else 1, 2 if depths[1] > i else 1, 2 if depths[2] > i else 1)
        for i in range(max(depths))
    ]


def _kernel(stride: tuple[int, int, int]) -> tuple[int, int, int]:
    """4 where the stride is 2, else 3: with a padding of 1, lengths come out exactly halved or the same."""
    return stride[0] + 2, stride[1] + 2, stride[2] + 2


def _residual_stack(config: OccSoraTokenizerConfig) -> nn.Sequential:
    blocks = [AxialResidualBlock(config.hidden, config.heads) for _ in range(config.blocks)]
    return nn.Sequential(*blocks, nn.BatchNorm3d(config.hidden), nn.ReLU())


class OccSoraTokenizer(nn.Module):
    """Occupancy clip <-> latent.

    In: class embedding with z folded into channels, strided convolutions with ReLU, one more convolution,
    residual blocks with axial attention, 1 x 1 x 1 to the latent, quantiser. Out: the mirror image without
    the extra convolution, then the similarity with the class embeddings. 137.4 M parameters at the default
    sizes.

    Deviations from the reference code, none of which changes the function or its parameters at these sizes:
    it decodes one clip at a time, this a batch; an axis with a factor of 1 has kernels of 3 where it would
    have 4; query, key and value are one projection.
    """

    def __init__(self, config: OccSoraTokenizerConfig) -> None:
        super().__init__()
        self.config = config
        hidden, folded = config.hidden, config.shape[2] * config.class_width
        self.embedding = ClassEmbedding(NUM_CLASSES, config.class_width)
        steps = strides(config.factors)
        down: list[nn.Module] = []
        for i, stride in enumerate(steps):
            down += [nn.Conv3d(hidden if i else folded, hidden, _kernel(stride), stride, 1), nn.ReLU()]
        self.encoder = nn.Sequential(
            *down,
            nn.Conv3d(hidden, hidden, 3, padding=1),
            _residual_stack(config),
            nn.Conv3d(hidden, config.latent_channels, 1),
        )
        self.quantiser: nn.Module = IdentityQuantiser()
        if config.quantiser == "vector":
            self.quantiser = VectorQuantiser(
                config.codes,
                config.latent_channels,
                commitment=config.commitment,
                revive_after=config.revive_after,
            )
        up: list[nn.Module] = []
        for i, stride in enumerate(reversed(steps)):
            last = i == len(steps) - 1
            up.append(nn.ConvTranspose3d(hidden, folded if last else hidden, _kernel(stride), stride, 1))
            up += [] if last else [nn.ReLU()]
        self.decoder = nn.Sequential(
            nn.Conv3d(config.latent_channels, hidden, 1), _residual_stack(config), *up
        )

    def encode(self, occupancy: torch.Tensor) -> torch.Tensor:
        """Labels (b, t, x, y, z) uint8 or long -> latent (b, c, t', x', y'), not yet quantised.

        Raises:
            ConfigurationError: the clip has another shape than the configuration's.

        """
        self._check(occupancy)
        return self.encoder(self.embedding.encode(occupancy))

    def quantise(self, latent: torch.Tensor) -> Quantised:
        """Latent (b, c, t', x', y') to codes; see `Quantised`."""
        return self.quantiser(latent)

    def decode(self, latent: torch.Tensor) -> torch.Tensor:
        """Quantised latent (b, c, t', x', y') -> logits (b, t, x, y, z, classes)."""
        return self.embedding.decode(self.decoder(latent))

    @torch.no_grad()
    def draw(self, latent: torch.Tensor) -> torch.Tensor:
        """Quantised latent (b, c, t', x', y') -> the likeliest labels (b, t, x, y, z) uint8.

        Clip by clip: the logits of one are already 1.5 GB at full size.
        """
        return torch.cat([self.decode(row[None]).argmax(-1).to(torch.uint8) for row in latent])

    def loss(
        self, occupancy: torch.Tensor, generator: torch.Generator | None = None
    ) -> tuple[torch.Tensor, dict[str, float]]:
        """Reconstruction and quantisation of clips (b, t, x, y, z): the loss, and what to log.

        With `piece`, of a piece of each clip at one place, which `generator` (CPU) draws. The network has no
        positions, so it takes frames of any size.

        Raises:
            ConfigurationError: the clips have another shape than the configuration's, or no generator draws the piece.

        """
        if self.config.piece:
            occupancy = self._cut(occupancy, generator)
            latent = self.encoder(self.embedding.encode(occupancy))
        else:
            latent = self.encode(occupancy)
        quantised = self.quantise(latent)
        logits, labels = self.decode(quantised.latent).flatten(0, -2), occupancy.flatten().long()
        cross_entropy = F.cross_entropy(logits.float(), labels)
        lovasz = lovasz_softmax(logits, labels, points=self.config.lovasz_points or None)
        loss = (
            self.config.cross_entropy * cross_entropy
            + self.config.lovasz * lovasz
            + self.config.quantisation * quantised.loss
        )
        logs = {
            "loss": loss.item(),
            "cross_entropy": cross_entropy.item(),
            "lovasz": lovasz.item(),
            "quantisation": quantised.loss.item(),
            "perplexity": quantised.perplexity.item(),
            "accuracy": (logits.argmax(-1) == labels).float().mean().item(),
        }
        return loss, logs

    def _cut(self, occupancy: torch.Tensor, generator: torch.Generator | None) -> torch.Tensor:
        """A piece (b, t, piece, piece, z) of clips (b, t, x, y, z)."""
        self._check(occupancy)
        if generator is None:
            raise ConfigurationError("tokenizer: a loss on pieces needs a generator to draw them; give one")
        piece = self.config.piece
        x, y = (int(torch.randint(n - piece + 1, (), generator=generator)) for n in self.config.shape[:2])
        return occupancy[:, :, x : x + piece, y : y + piece].contiguous()

    def _check(self, occupancy: torch.Tensor) -> None:
        wanted = (self.config.frames, *self.config.shape)
        if occupancy.ndim != 5 or tuple(occupancy.shape[1:]) != wanted:
            raise ConfigurationError(
                f"tokenizer: occupancy of shape {tuple(occupancy.shape)}, need (batch, t, x, y, z) "
                f"with {wanted} after the batch"
            )
