"""The closed-loop tokenizer: OccSora's ingredients, with a decoder that is shown the compensated past.

Class embedding, z folded into channels, strided convolutions, decoding by similarity with the class embeddings
(OccSora, Wang et al. 2024); the latent is a Gaussian with a KL penalty (Kingma and Welling 2014; conditional on the
context, Sohn et al. 2015), so what the context already tells costs nothing and is left out of it. Recorded static
voxels are kept exactly: the decoder may only put road users over them, and draws all classes on new ground.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from occsora_sim.errors import ConfigurationError
from occsora_sim.grid import DYNAMIC, FREE, NUM_CLASSES, VEGETATION, Grid, class_mask
from occsora_sim.models.columns import UNSEEN, ColumnEncoder, is_dynamic
from occsora_sim.models.context import AUXILIARY, Context

KEEP = 1.5
"""What decoding adds to the gates that keep what is known [nats]. Training weighs road users two to four times, so
that they are not forgotten; taken at face value the decoder would then put them, and rub out carried ones, where the
odds are against it. The logarithm of these weights takes that back."""

NEW_VEGETATION = 0.5
"""What decoding adds to the logits of vegetation on new ground [nats]. A tree is small and loose: where the decoder is
not sure of its edge, the likeliest label is free, and a fifth of all that grows went missing from true latents. With
this as much is drawn as there is, measured in towns of the training set (lab book, 2026-11-26)."""


@dataclass(frozen=True, kw_only=True)
class CompensatedTokenizerConfig:
    """Sizes of the closed-loop tokenizer.

    Attributes:
        column: features of a column at full resolution.
        width: channels at a quarter of the resolution; twice as many at an eighth, where the latent lives.
        latent: latent channels.
        blocks: residual blocks per stage.
        embedding: numbers per class embedding.
        columns_per_frame: columns of a frame that the training loss looks at.
        kl: weight of the KL term per latent token against the cross-entropy of the token's columns [nats].
        latent_dropout: share of frames trained with an empty latent, which makes the decoder a predictor on its own.

    """

    column: int = 32
    width: int = 64
    latent: int = 8
    blocks: int = 1
    embedding: int = 8
    columns_per_frame: int = 6144
    kl: float = 0.5
    latent_dropout: float = 0.25

    def __post_init__(self) -> None:
        if min(self.column, self.width, self.latent, self.blocks, self.embedding, self.columns_per_frame) < 1:
            raise ConfigurationError(f"tokenizer: every size must be at least 1, got {self}")


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions with group normalisation; starts as the identity."""

    def __init__(self, width: int) -> None:
        super().__init__()
        groups = 8 if width % 8 == 0 else 1
        self.norm1, self.norm2 = nn.GroupNorm(groups, width), nn.GroupNorm(groups, width)
        self.conv1, self.conv2 = nn.Conv2d(width, width, 3, padding=1), nn.Conv2d(width, width, 3, padding=1)
        nn.init.zeros_(self.conv2.weight)  # zero-init: the stage first passes its input on
        nn.init.zeros_(self.conv2.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """(n, c, x, y) -> same shape."""
        return x + self.conv2(F.gelu(self.norm2(self.conv1(F.gelu(self.norm1(x))))))


def _blocks(width: int, count: int) -> nn.Sequential:
    return nn.Sequential(*(ResidualBlock(width) for _ in range(count)))


class CompensatedTokenizer(nn.Module):
    """Encode a frame to a latent and decode it, both given what is already known (`Context`).

    All methods take frames in the batch axis: n = b * f.
    """

    dynamic: Tensor

    def __init__(self, config: CompensatedTokenizerConfig, grid: Grid) -> None:
        super().__init__()
        if grid.shape[0] % 8 or grid.shape[1] % 8:
            raise ConfigurationError(f"tokenizer: grid {grid.shape} must be a multiple of 8 along x and y")
        self.config, self.grid = config, grid
        c, w, z = config.column, config.width, grid.shape[2]
        self.columns = ColumnEncoder(z, c, config.embedding)
        # Context: full resolution -> 1/4 -> 1/8.
        self.patch = nn.Conv2d(c + AUXILIARY, w, 4, stride=4)
        self.context4 = _blocks(w, config.blocks)
        self.reduce = nn.Conv2d(w, 2 * w, 2, stride=2)
        self.context8 = _blocks(2 * w, config.blocks)
        # Encoder of the target, beside the context.
        self.target_patch = nn.Conv2d(c, w, 4, stride=4)
        self.target4 = nn.Sequential(nn.Conv2d(2 * w, w, 3, padding=1), _blocks(w, config.blocks))
        self.target8 = nn.Conv2d(w, 2 * w, 2, stride=2)
        self.posterior = nn.Sequential(
            nn.Conv2d(4 * w, 2 * w, 3, padding=1),
            _blocks(2 * w, config.blocks),
            nn.Conv2d(2 * w, 2 * config.latent, 1),
        )
        # Decoder.
        self.latent_in = nn.Conv2d(config.latent, 2 * w, 1)
        self.decode8 = nn.Sequential(nn.Conv2d(4 * w, 2 * w, 3, padding=1), _blocks(2 * w, config.blocks))
        self.expand = nn.ConvTranspose2d(2 * w, w, 2, stride=2)
        self.decode4 = nn.Sequential(nn.Conv2d(2 * w, w, 3, padding=1), _blocks(w, config.blocks))
        self.unpatch = nn.Linear(w, 16 * c)  # a 4 x 4 patch of column features
        self.head = nn.Sequential(
            nn.Linear(2 * c, 2 * c), nn.GELU(), nn.Linear(2 * c, z * config.embedding + 2 * z)
        )
        # The gates start at "keep what is known": 3 nats for the prior where seen.
        final = self.head[2]
        assert isinstance(final, nn.Linear)
        with torch.no_grad():
            final.weight[z * config.embedding :] = 0
            final.bias[z * config.embedding :] = 3.0
        self.register_buffer("dynamic", class_mask(DYNAMIC)[:NUM_CLASSES], persistent=False)

    # ------------------------------------------------------------------ context
    def context(self, known: Context) -> dict[str, Tensor]:
        """Features of a flat context (n, 1, ...): "full" (n, c, x, y), "quarter" and "eighth"."""
        prior = known.prior[:, 0]
        full = self.columns(prior)
        h4 = self.context4(self.patch(torch.cat((full, known.auxiliary[:, 0]), dim=1)))
        h8 = self.context8(self.reduce(F.gelu(h4)))
        return {"full": full, "quarter": h4, "eighth": h8}

    @property
    def context_channels(self) -> int:
        """Channels of the context at the latent's resolution."""
        return 2 * self.config.width

    # ------------------------------------------------------------------ encode and decode
    def encode(
        self, labels: Tensor, known: Context, features: dict[str, Tensor] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Posterior mean and log variance, (n, c, h, w) each, of labels (n, x, y, z) uint8 given a flat context."""
        features = self.context(known) if features is None else features
        h = self.target_patch(self.columns(labels))
        h = self.target4(torch.cat((h, features["quarter"]), dim=1))
        h = torch.cat((self.target8(F.gelu(h)), features["eighth"]), dim=1)
        mean, log_variance = self.posterior(h).chunk(2, dim=1)
        return mean, log_variance.clamp(-10, 4)

    def decode_features(self, latent: Tensor, features: dict[str, Tensor]) -> Tensor:
        """Column features (n, x, y, 2 c) of a latent (n, c, h, w) and its context."""
        h = self.decode8(torch.cat((self.latent_in(latent), features["eighth"]), dim=1))
        h = self.decode4(torch.cat((self.expand(F.gelu(h)), features["quarter"]), dim=1))
        n, _, px, py = h.shape
        patches = self.unpatch(F.gelu(h).permute(0, 2, 3, 1))  # (n, px, py, 16 c)
        c = self.config.column
        fine = patches.view(n, px, py, 4, 4, c).permute(0, 1, 3, 2, 4, 5).reshape(n, px * 4, py * 4, c)
        return torch.cat((fine, features["full"].permute(0, 2, 3, 1)), dim=-1)

    def logits(self, columns: Tensor, static: Tensor, prior: Tensor, keep_more: float = 0.0) -> Tensor:
        """Logits (m, z, NUM_CLASSES) of columns with features (m, 2 c), record (m, z) and prior (m, z) uint8.

        Over a recorded voxel only its recorded class and the road users are admitted. `keep_more` [nats] is added to
        the gates.
        """
        z, e = self.grid.shape[2], self.config.embedding
        out = self.head(columns)
        logits = out[:, : z * e].view(-1, z, e) @ self.columns.embedding.weight[:NUM_CLASSES].T  # similarity
        keep, road_user = out[:, z * e :].view(-1, 2, z).unbind(1)
        known = prior != UNSEEN
        gate = (torch.where(is_dynamic(prior), road_user, keep) + keep_more) * known
        logits = logits.scatter_add(2, prior.long().clamp(max=FREE)[..., None], gate[..., None])
        recorded = static != UNSEEN
        same = F.one_hot(static.long().clamp(max=FREE), NUM_CLASSES).bool()
        return logits.masked_fill(recorded[..., None] & ~(same | self.dynamic), -1e4)

    def decode(self, latent: Tensor, known: Context, features: dict[str, Tensor] | None = None) -> Tensor:
        """The most likely labels (n, x, y, z) uint8 of a latent (n, c, h, w) and a flat context; columns that are
        recorded stay as they are.
        """
        features = self.context(known) if features is None else features
        z = self.grid.shape[2]
        static, prior = known.static[:, 0].reshape(-1, z), known.prior[:, 0].reshape(-1, z)
        new = (static == UNSEEN).any(dim=-1)
        labels = static.clone()
        if new.any():
            columns = self.decode_features(latent, features).flatten(0, 2)
            logits = self.logits(columns[new], static[new], prior[new], KEEP)
            logits[..., VEGETATION] += NEW_VEGETATION
            labels[new] = logits.argmax(dim=-1).to(torch.uint8)
        return labels.view(len(latent), *self.grid.shape)
