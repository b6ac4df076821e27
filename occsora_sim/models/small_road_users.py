"""A code of its own for pedestrians, bicycles and motorcycles: latent channels that say which columns they fill.

A person is one to four of a view's 40,000 columns. Whatever a tokenizer with a stride of eight says of a cell as a
whole, it has little reason to learn where in the cell these few are (OccSora's own reaches an IoU of 11.5 % on
pedestrians and 0.0 % on bicycles). Here a cell's 64 columns are unfolded into channels, and a small network of its own
codes what stands on them, given what the compensated past lets expect there.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from occsora_sim.grid import FREE, NUM_CLASSES, SMALL, Grid, class_mask
from occsora_sim.models.columns import UNSEEN

CELL = 8
"""Edge of a latent cell [columns]."""

KINDS = 1 + len(SMALL)
"""What a column may hold: none of them, or one of SMALL."""

Columns = tuple[Tensor, Tensor]
"""Kind (n, x, y) int64, 0 to 3, and height (n, x, y) int64 [voxels] of the small road user on each column."""

_HEIGHT_SCALE = 4.0  # [voxels]; brings heights to the order of one
_TRUST = 3.0  # what a fresh decoder believes of the prior [nats]
_SPREAD = (
    0.15  # of the code in training: what a denoiser leaves undecided must not put people into the street
)


def unfold(image: Tensor) -> Tensor:
    """(n, x, y, c) -> (n, x / 8, y / 8, 64, c): the columns of each latent cell."""
    n, x, y, c = image.shape
    cells = image.reshape(n, x // CELL, CELL, y // CELL, CELL, c).permute(0, 1, 3, 2, 4, 5)
    return cells.reshape(n, x // CELL, y // CELL, CELL * CELL, c)


def fold(cells: Tensor) -> Tensor:
    """The inverse of `unfold`."""
    n, h, w, _, c = cells.shape
    image = cells.reshape(n, h, w, CELL, CELL, c).permute(0, 1, 3, 2, 4, 5)
    return image.reshape(n, h * CELL, w * CELL, c)


class SmallRoadUsers(nn.Module):
    """Encoder and decoder of the columns that small road users fill.

    Args:
        channels: of the code.
        width: of the two networks.

    """

    kind: Tensor

    def __init__(self, channels: int = 6, width: int = 256) -> None:
        super().__init__()
        self.channels = channels
        seen = CELL * CELL * KINDS  # each column: which of SMALL, and the height
        self.encoder = nn.Sequential(
            nn.Linear(2 * seen, width),
            nn.GELU(),
            nn.Linear(width, width),
            nn.GELU(),
            nn.Linear(width, channels),
        )
        self.decoder = nn.Sequential(
            nn.Linear(channels + seen, width), nn.GELU(), nn.Linear(width, width), nn.GELU(),
            nn.Linear(width, CELL * CELL * (KINDS + 1)),
        )  # fmt: skip
        last = self.decoder[-1]
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.weight)  # a fresh decoder draws whom the prior lets expect
        nn.init.zeros_(last.bias)
        kind = torch.zeros(UNSEEN + 1, dtype=torch.long)
        kind[list(SMALL)] = torch.arange(1, KINDS)
        self.register_buffer("kind", kind, persistent=False)

    def columns(self, labels: Tensor) -> Columns:
        """Kind (n, x, y) int64, 0 to 3, and height (n, x, y) int64 [voxels] of the small road user on each column of
        labels (n, x, y, z) uint8, UNSEEN allowed.
        """
        kinds = self.kind[labels.int()]
        return kinds.amax(-1), (kinds > 0).sum(-1)

    def _seen(self, kind: Tensor, height: Tensor) -> Tensor:
        """(n, x / 8, y / 8, 256) float32."""
        one_hot = F.one_hot(kind, KINDS)[..., 1:]
        image = torch.cat((one_hot.float(), height[..., None] / _HEIGHT_SCALE), dim=-1)
        return unfold(image).flatten(3)

    def encode(self, truth: Columns, prior: Columns) -> tuple[Tensor, Tensor]:
        """Posterior mean and (fixed) log variance, (n, channels, x / 8, y / 8) each, of the columns of n frames given
        what the prior lets expect on them (`columns`).
        """
        both = torch.cat((self._seen(*truth), self._seen(*prior)), dim=-1)
        mean = self.encoder(both).permute(0, 3, 1, 2)
        return mean, torch.full_like(mean, 2 * math.log(_SPREAD))

    def logits(self, code: Tensor, prior: Columns) -> tuple[Tensor, Tensor]:
        """Logits (n, x, y, KINDS) and heights (n, x, y) [voxels] of a code (n, channels, x / 8, y / 8)."""
        seen = self._seen(*prior)
        out = self.decoder(torch.cat((code.permute(0, 2, 3, 1), seen), dim=-1))
        out = fold(out.unflatten(3, (CELL * CELL, KINDS + 1)))
        logits = out[..., :KINDS] + _TRUST * F.one_hot(prior[0], KINDS)
        return logits, _HEIGHT_SCALE * (1 + out[..., KINDS])

    def cell_losses(self, code: Tensor, truth: Columns, prior: Columns, class_weight: Tensor) -> Tensor:
        """Cross-entropy of the columns' kinds and error of their heights [nats], of each frame: (n,).

        A column's error is that of the voxels that it would have: it counts as often as a person has voxels, with the
        weight of its class (`class_weight` (NUM_CLASSES,)).
        """
        kind, height = truth
        logits, tall = self.logits(code, prior)
        weight = torch.cat((class_weight.new_ones(1), class_weight[list(SMALL)])) * _HEIGHT_SCALE
        entropy = F.cross_entropy(logits.permute(0, 3, 1, 2), kind, reduction="none")
        # To rub one out is as much as to put one there.
        entropy = entropy * torch.maximum(weight[kind], weight[prior[0]])
        wrong = F.smooth_l1_loss(tall, height.float(), reduction="none") * (kind > 0)
        return (entropy + wrong).sum((1, 2))

    def loss(self, code: Tensor, labels: Tensor, prior: Tensor, class_weight: Tensor) -> Tensor:
        """`cell_losses` of labels given prior, both (n, x, y, z) uint8 [nats per latent cell]."""
        losses = self.cell_losses(code, self.columns(labels), self.columns(prior), class_weight)
        return losses.mean() / (code.shape[-2] * code.shape[-1])

    def draw(
        self,
        labels: Tensor,
        code: Tensor,
        prior: Tensor,
        static: Tensor,
        grid: Grid,
        told: Tensor | None = None,
    ) -> Tensor:
        """Labels (n, x, y, z) uint8 with the small road users that the code says instead of those they hold.

        A column that holds what the prior let expect is drawn as it was; others stand on the ground and fill what is
        free. Where one is rubbed out the record shows, or air. `told` (n, x / 8, y / 8) bool: the cells where the code
        counts; elsewhere the prior does. None: all.
        """
        expected = self.columns(prior)
        before, _ = expected
        logits, tall = self.logits(code, expected)
        kind = logits.argmax(-1)
        if told is not None:
            listens = told.repeat_interleave(CELL, 1).repeat_interleave(CELL, 2)
            kind = torch.where(listens, kind, before)
        small = class_mask(SMALL, labels.device)[:NUM_CLASSES]
        under = torch.where(static == UNSEEN, FREE, static)
        out = torch.where(small[labels.long()], under, labels)
        keeps = ((kind == before) & (kind > 0))[..., None] & small[prior.long().clamp(max=FREE)]
        out = torch.where(keeps, prior, out)
        level = torch.arange(grid.shape[2], device=labels.device) - grid.ground
        filled = (level >= 1) & (level <= tall.round().clamp(1, grid.shape[2])[..., None])
        new = ((kind != before) & (kind > 0))[..., None] & filled & (out == FREE)
        label = labels.new_tensor((FREE, *SMALL))[kind][..., None].expand_as(out)
        return torch.where(new, label, out)
