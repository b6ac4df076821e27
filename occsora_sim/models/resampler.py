"""The record read finer than its samples: which column stands where the nearest samples disagree.

A kerb is straight, a wall goes on, a post is thin: what lies between two samples is told by those around them better
than by the nearest alone. Where the record's cells around a place hold different columns, a small network says whether
the kind of the nearest sample or the nearest other kind stands there, from where both were sampled around it. It never
invents: a reading is a column of the record, or unseen, and the record itself stays as it was written.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from occsora_sim.grid import NUM_CLASSES, Grid
from occsora_sim.models.columns import distinct_columns
from occsora_sim.models.record import Record

REACH = 5
"""How many cells around a place the network sees, in each direction."""

_NEAR = 2
"""How many cells around a place a sample may be away that answers for it."""

_AT_ONCE = 8192
"""Places that are settled in one call of the network, for memory's sake."""

_EMBEDDING, _CODE = 6, 8


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """What the record holds around n places, cell by cell (k of them: REACH in each direction).

    Attributes:
        columns: (m, z) uint8, the kinds of columns.
        kind: (n, k) which of them each cell holds; -1 where nothing is recorded.
        offset: (n, k, 2) [cells] from the place to where each was sampled, along the canvas' axes; zero where nothing
            is recorded.
        first: (n,) long, the kind of the nearest sample.
        second: (n,) long, the kind of the nearest one that is of another kind; -1: none is near.

    """

    columns: Tensor
    kind: Tensor
    offset: Tensor
    first: Tensor
    second: Tensor

    def at(self, rows: Tensor) -> Surroundings:
        """Those of some of the places: `rows` are their numbers, or (n,) bool."""
        names = ("kind", "offset", "first", "second")
        return replace(self, **{name: getattr(self, name)[rows] for name in names})


class Resampler(nn.Module):
    """Says which of two kinds of column stands at a place; a fresh one, that of the nearest sample."""

    def __init__(self, height: int, width: int, depth: int = 1) -> None:
        super().__init__()
        cells = (2 * REACH + 1) ** 2
        self.embedding = nn.Embedding(NUM_CLASSES, _EMBEDDING)
        self.column = nn.Sequential(
            nn.Linear(height * _EMBEDDING, 48), nn.GELU(), nn.Linear(48, _CODE)
        )  # what a kind of column is
        self.stem = nn.Linear(cells * 7 + 2 * _CODE, width)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.GELU(), nn.Linear(width, width))
            for _ in range(depth)
        )
        self.head = nn.Sequential(nn.LayerNorm(width), nn.GELU(), nn.Linear(width, 1))
        last = self.head[-1]
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.weight)
        nn.init.constant_(last.bias, 2.0)

    def forward(self, near: Surroundings) -> Tensor:
        """Logits (n,) float32 of the first kind against the second."""
        codes = self.column(self.embedding(near.columns.long()).flatten(1))
        codes = torch.cat((codes, codes.new_zeros(1, _CODE)))  # the last is that of no second kind
        mine, other = near.kind == near.first[:, None], near.kind == near.second[:, None]
        recorded = near.kind >= 0
        side = mine.float() - (other & recorded).float()
        offset = near.offset.float() / REACH
        # A line between two kinds shows in where either lies: in products of side and place, which are handed in.
        seen = torch.cat(
            (
                side.abs(),
                side,
                recorded.float(),
                *offset.unbind(-1),
                *(side[..., None] * offset).unbind(-1),
            ),
            dim=1,
        )
        x = self.stem(torch.cat((seen, codes[near.first], codes[near.second]), dim=1))
        for block in self.blocks:
            x = x + block(x)
        return self.head(x)[:, 0]

    def loss(self, near: Surroundings, right: Tensor, weight: Tensor) -> tuple[Tensor, dict[str, float]]:
        """Weighted cross-entropy [nats] of whether the first kind is `right` (n,) bool; `weight` (n,) float32."""
        logit = self(near)
        each = nn.functional.binary_cross_entropy_with_logits(logit, right.float(), reduction="none")
        loss = (each * weight).sum() / weight.sum()
        wrong = ((logit > 0) != right).float().mean()
        return loss, {"resampler/loss": float(loss.detach()), "resampler/wrong": float(wrong)}

    @torch.no_grad()
    def read(self, record: Record, poses: Tensor, grid: Grid) -> Tensor:
        """As `Record.read`: (b, f, 3) world poses -> (b, f, x, y, z) uint8, UNSEEN where nothing is recorded."""
        answer = record.answer(poses, grid)
        labels = answer.labels
        row, frame, i, j = answer.disputed.nonzero().unbind(1)
        for part in torch.arange(len(row), device=row.device).split(_AT_ONCE):
            at = (row[part], frame[part], i[part], j[part])
            near = surroundings(record, at[0], answer.place[at])
            first = (self(near) > 0) | (near.second < 0)
            labels[at] = near.columns[torch.where(first, near.first, near.second)]
        return labels


def surroundings(record: Record, row: Tensor, place: Tensor) -> Surroundings:
    """What the record holds around places (n, 2) [cells] of its canvases, in the worlds `row` (n,)."""
    index, offset, recorded = record.around(row, place, REACH)
    table = torch.full((record.stamp.numel(),), -1, dtype=torch.long, device=index.device)
    table[index[recorded]] = 0
    cells = (table == 0).nonzero()[:, 0]
    columns, which = distinct_columns(record.labels.view(-1, 1, 1, record.labels.shape[-1])[cells])
    table[cells] = which
    kind = torch.where(recorded, table[index], -1)
    offset = offset * recorded[..., None]
    middle = _middle(index.device)
    near, distance = kind[:, middle], offset[:, middle].square().sum(-1)
    first = _nearest(near, distance, near >= 0)
    return Surroundings(
        columns=columns,
        kind=kind,
        offset=offset,
        first=first,
        second=_nearest(near, distance, (near >= 0) & (near != first[:, None])),
    )


def _middle(device: torch.device) -> Tensor:
    """The cells around a place, as numbers of those around it that the network sees, of whom one may answer."""
    side = 2 * REACH + 1
    cells = torch.arange(side**2, device=device).view(side, side)
    part = slice(REACH - _NEAR, REACH + _NEAR + 1)
    return cells[part, part].flatten()


def _nearest(kind: Tensor, distance: Tensor, may: Tensor) -> Tensor:
    """Of kinds (n, k) the one (n,) with the least `distance` (n, k) of those that `may`; -1: none."""
    least, which = distance.masked_fill(~may, torch.inf).min(dim=1)
    found = kind.gather(1, which[:, None])[:, 0]
    return torch.where(least < torch.inf, found, -1)
