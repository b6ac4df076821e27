"""OccSora's 4D tokenizer: a clip of occupancy to a small latent and back (Wang et al. 2024, section 3.2)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn
from torch.nn import functional as F

from occsora_sim.errors import ConfigurationError
from occsora_sim.grid import BARRIER, DYNAMIC, FREE, NUM_CLASSES, OTHERS, TRAFFIC_CONE
from occsora_sim.models.axial import AxialResidualBlock
from occsora_sim.models.embedding import ClassEmbedding
from occsora_sim.models.lovasz import lovasz_softmax
from occsora_sim.models.occsora_patches import PatchDecoder, PatchEncoder, fold, unfold, widths
from occsora_sim.models.quantiser import FiniteQuantiser, IdentityQuantiser, Quantised, VectorQuantiser

RARE = (*DYNAMIC, OTHERS, BARRIER, TRAFFIC_CONE)
"""Classes of a few voxels each."""

FREE_LOGIT = 4.0
"""What a new decoder of patches says of "free", wherever it looks."""


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
        patches: maps of 2 x 2 x 2 patches and layer normalisation in place of strided convolutions and batch
            normalisation (`occsora_patches`).
        outer: of these, channels of the finest level; they double towards `hidden`.
        quantiser: "vector", "finite" or "identity".
        codes: size of the vector quantiser's codebook.
        levels: of the finite quantiser, of each channel of the latent.
        commitment: weight of the commitment term.
        cross_entropy: weight of the voxels' cross-entropy.
        lovasz: weight of the Lovasz-softmax loss.
        quantisation: weight of the quantiser's loss.
        lovasz_points: voxels of a batch that the Lovasz loss sorts; 0 for all, as the reference does.
        loss_patches: 2 x 2 x 2 patches of columns of a batch that the loss looks at; 0 for all. Needs `patches`.
        rare: how much likelier of these one that holds a road user or another small thing is; 0: as likely as any.
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
    patches: bool = False
    outer: int = 64
    quantiser: Literal["vector", "finite", "identity"] = "vector"
    codes: int = 512
    levels: tuple[int, ...] = ()
    commitment: float = 1.0
    cross_entropy: float = 10.0
    lovasz: float = 1.0
    quantisation: float = 1.0
    lovasz_points: int = 0
    loss_patches: int = 0
    rare: float = 0.0
    piece: int = 0

    def __post_init__(self) -> None:
        def fail(what: str) -> None:
            raise ConfigurationError(f"tokenizer: {what}; see OccSoraTokenizerConfig")

        sizes = (self.frames, self.class_width, self.hidden, self.latent_channels, self.heads, self.codes)
        counts = (self.blocks, self.lovasz_points, self.loss_patches)
        if len(self.shape) != 3 or min(*self.shape, *sizes, self.outer) < 1 or min(counts) < 0:
            fail("sizes must be positive, blocks, lovasz_points and loss_patches not negative")
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
        if self.patches and len(set(self.factors)) > 1:
            fail(f"factors {self.factors} must be equal with patches")
        if self.loss_patches and not self.patches:
            fail("loss_patches needs patches")
        if self.quantiser not in ("vector", "finite", "identity"):
            fail(f"quantiser {self.quantiser!r} is 'vector', 'finite' or 'identity'")
        if self.quantiser == "finite" and (len(self.levels) != self.latent_channels or min(self.levels) < 2):
            fail(f"levels {self.levels} must be 2 or more for each of {self.latent_channels} latent_channels")
        if min(self.commitment, self.cross_entropy, self.lovasz, self.quantisation, self.rare) < 0:
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


def _quantiser(config: OccSoraTokenizerConfig) -> nn.Module:
    if config.quantiser == "finite":
        return FiniteQuantiser(config.levels)
    if config.quantiser == "vector":
        return VectorQuantiser(config.codes, config.latent_channels, commitment=config.commitment)
    return IdentityQuantiser()


def _patch_networks(config: OccSoraTokenizerConfig, folded: int) -> tuple[nn.Module, nn.Module]:
    channels = widths(config.outer, config.hidden, len(strides(config.factors)))
    sizes = (8 * folded, channels, config.latent_channels, config.heads, config.blocks)
    return PatchEncoder(*sizes), PatchDecoder(*sizes)


def _published_networks(config: OccSoraTokenizerConfig, folded: int) -> tuple[nn.Module, nn.Module]:
    """Encoder of class features (b, folded, t, x, y) and decoder to such."""
    hidden, steps = config.hidden, strides(config.factors)
    down: list[nn.Module] = []
    for i, stride in enumerate(steps):
        down += [nn.Conv3d(hidden if i else folded, hidden, _kernel(stride), stride, 1), nn.ReLU()]
    encoder = nn.Sequential(
        *down,
        nn.Conv3d(hidden, hidden, 3, padding=1),
        _residual_stack(config),
        nn.Conv3d(hidden, config.latent_channels, 1),
    )
    up: list[nn.Module] = []
    for i, stride in enumerate(reversed(steps)):
        last = i == len(steps) - 1
        up.append(nn.ConvTranspose3d(hidden, folded if last else hidden, _kernel(stride), stride, 1))
        up += [] if last else [nn.ReLU()]
    return encoder, nn.Sequential(nn.Conv3d(config.latent_channels, hidden, 1), _residual_stack(config), *up)


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

    encoder: Any  # of one design or the other: patches have rows and a head, which convolutions have not
    decoder: Any
    quantiser: Any

    def __init__(self, config: OccSoraTokenizerConfig) -> None:
        super().__init__()
        self.config = config
        folded = config.shape[2] * config.class_width
        self.embedding = ClassEmbedding(NUM_CLASSES, config.class_width)
        self.encoder, self.decoder = (
            _patch_networks(config, folded) if config.patches else _published_networks(config, folded)
        )
        self.quantiser = _quantiser(config)
        if config.patches:
            # Nearly all voxels are free. Begun at that, the first hundred steps need not teach it.
            free = self.embedding.vectors.detach()[FREE]
            bias = self.decoder.head.bias.detach().view(-1, config.class_width)
            bias.copy_(FREE_LOGIT * free / free.square().sum())

    def encode(self, occupancy: torch.Tensor) -> torch.Tensor:
        """Labels (b, t, x, y, z) uint8 or long -> latent (b, c, t', x', y'), not yet quantised.

        Raises:
            ConfigurationError: the clip has another shape than the configuration's.

        """
        self._check(occupancy)
        return self._encode(occupancy)

    def _encode(self, occupancy: torch.Tensor) -> torch.Tensor:
        if self.config.patches:
            # The class vectors learn on the way out alone: their gradient through a million voxels costs as much as
            # all of the encoder.
            return self.encoder(self.embedding.encode(fold(occupancy)).detach())
        return self.encoder(self.embedding.encode(occupancy))

    def quantise(self, latent: torch.Tensor) -> Quantised:
        """Latent (b, c, t', x', y') to codes; see `Quantised`."""
        return self.quantiser(latent)

    def decode(self, latent: torch.Tensor) -> torch.Tensor:
        """Quantised latent (b, c, t', x', y') -> logits (b, t, x, y, z, classes)."""
        logits = self.embedding.decode(self.decoder(latent))
        return unfold(logits.flatten(-2)).unflatten(-1, (-1, NUM_CLASSES)) if self.config.patches else logits

    @torch.no_grad()
    def draw(self, latent: torch.Tensor) -> torch.Tensor:
        """Latent (b, c, t', x', y') -> the likeliest labels (b, t, x, y, z) uint8; drawn ones go to the nearest codes.

        Clip by clip and frame by frame: the logits of one clip are already 1.5 GB at full size.
        """
        return torch.cat([self._labels(row[None]) for row in self.quantiser.snap(latent)])

    def _labels(self, latent: torch.Tensor) -> torch.Tensor:
        frames = self.decoder(latent).split(1, dim=2)
        labels = torch.cat(
            [self.embedding.decode(frame).argmax(-1).to(torch.uint8) for frame in frames], dim=1
        )
        return unfold(labels) if self.config.patches else labels

    def loss(
        self, occupancy: torch.Tensor, generator: torch.Generator | None = None
    ) -> tuple[torch.Tensor, dict[str, float]]:
        """Reconstruction and quantisation of clips (b, t, x, y, z): the loss, and what to log.

        With `piece`, of a piece of each clip at one place, which `generator` (CPU) draws. The network has no
        positions, so it takes frames of any size.

        Raises:
            ConfigurationError: the clips have another shape than the configuration's, or no generator draws the piece.

        """
        self._check(occupancy)
        if self.config.piece:
            occupancy = self._cut(occupancy, generator)
        quantised = self.quantise(self._encode(occupancy))
        if self.config.loss_patches:
            logits, labels = self._some(quantised.latent, occupancy, generator)
        else:
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

    def _some(
        self, latent: torch.Tensor, occupancy: torch.Tensor, generator: torch.Generator | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits (n, classes) and labels (n,) of `loss_patches` of a batch's patches, drawn with repetition."""
        labels = fold(occupancy).flatten(0, -2)
        share = 1 + self.config.rare * torch.isin(labels, labels.new_tensor(RARE)).any(-1).float().cpu()
        chosen = share.multinomial(self.config.loss_patches, replacement=True, generator=generator)
        chosen = chosen.to(labels.device)
        rows = self.decoder.rows(latent).flatten(0, -2)[chosen]
        features = self.decoder.head(rows).unflatten(-1, (-1, self.config.class_width))
        labels = labels[chosen]
        return (features @ self.embedding.vectors.T).flatten(0, -2), labels.flatten().long()

    def _cut(self, occupancy: torch.Tensor, generator: torch.Generator | None) -> torch.Tensor:
        """A piece (b, t, piece, piece, z) of clips (b, t, x, y, z)."""
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
