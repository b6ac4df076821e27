"""Train the resampler by itself: a place whose samples disagree is one example, so a step costs little."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from occsora_sim.grid import BARRIER, OTHERS, TRAFFIC_CONE, Grid
from occsora_sim.models.columns import distinct_columns, is_dynamic, without_road_users
from occsora_sim.models.record import Record
from occsora_sim.models.resampler import REACH, Resampler, Surroundings, surroundings
from occsora_sim.training.windows import WindowSource

BATCH = 2048
"""Places of a step."""

_EACH = 300
"""Places of a future frame that are kept."""

_WHOLE, _MEASURED = 0.6, 0.8
"""Shares of the windows whose history is recorded whole, and as measured: a world's record has parts that one frame
alone has shown, and parts that were written once.
"""

_THIN = (OTHERS, BARRIER, TRAFFIC_CONE)
_THIN_WEIGHT = 1.5
"""Classes of a column or two, and their weight. What is there with probability p belongs into a forecast, if its IoU is
to be the largest, from p = IoU / 2 on, which for these is about 0.4 = 1 / (1 + 1.5).
"""


@dataclass(frozen=True, kw_only=True)
class Places:
    """n places where samples disagreed, and what stood there.

    Attributes:
        near: what the record held around them.
        right: (n,) bool, whether it was the first kind (and not the second).
        weight: (n,) float32.

    """

    near: Surroundings
    right: Tensor
    weight: Tensor


@torch.no_grad()
def draw_places(
    source: WindowSource, grid: Grid, windows: int, generator: torch.Generator,
    draws: Callable[[int], Iterable[int]] = range,
) -> Places:  # fmt: skip
    """Places of the future frames of some windows, read from a record of their history; of fewer windows where `draws`
    ends before its count.

    Those where a road user stands, and where neither kind or both are as right, are left out.
    """
    parts, rights = [], []
    for step in draws(windows):
        drawn = source.draw(1, step)
        record = _record(drawn.labels[:, : drawn.history], drawn.poses[:, : drawn.history], grid, generator)
        truth, poses = drawn.labels[:, drawn.history :], drawn.poses[:, drawn.history :]
        answer = record.answer(poses, grid)
        asked = answer.disputed & ~is_dynamic(truth).any(dim=-1)
        at = torch.cat([_some(asked[0, k], k, generator) for k in range(asked.shape[1])])
        row, frame, i, j = at.unbind(1)
        near = surroundings(record, row, answer.place[row, frame, i, j])
        # As small as they can be kept: there are a hundred cells around each.
        near = replace(near, kind=near.kind.to(torch.int16), offset=near.offset.half())
        there = truth[row, frame, i, j]
        first, second = (_agreement(near, kind, there) for kind in (near.first, near.second))
        kept = first != second
        parts.append(near.at(kept))
        rights.append((first > second)[kept])
    return together(parts, rights)


def place_loss(
    resampler: Resampler, pool: Places, generator: torch.Generator
) -> tuple[Tensor, dict[str, float]]:
    """Loss on some places of the pool, all turned and mirrored in one way at random."""
    rows = torch.randint(len(pool.right), (BATCH,), generator=generator).to(pool.right.device)
    near = pool.near.at(rows)
    near = replace(near, offset=near.offset.float())  # autocast to bfloat16 joins no tensors of float16
    near = turned(near, int(torch.randint(8, (), generator=generator)))
    return resampler.loss(near, pool.right[rows], pool.weight[rows])


def turned(near: Surroundings, way: int) -> Surroundings:
    """Surroundings mirrored along the first axis, along the second, and with both axes exchanged: by the bits of `way`
    (0 to 7), all turns by quarters and their mirror images.
    """
    side = 2 * REACH + 1
    kind, offset = near.kind.unflatten(1, (side, side)), near.offset.unflatten(1, (side, side))
    for axis in (1, 2):
        if way & axis:
            kind, offset = kind.flip(axis), offset.flip(axis)
            offset = torch.stack(
                [-part if k + 1 == axis else part for k, part in enumerate(offset.unbind(-1))], dim=-1
            )
    if way & 4:
        kind, offset = kind.transpose(1, 2), offset.transpose(1, 2).flip(-1)
    return replace(near, kind=kind.flatten(1), offset=offset.flatten(1, 2))


def _record(labels: Tensor, poses: Tensor, grid: Grid, generator: torch.Generator) -> Record:
    """A record of the last frames of histories (1, h, x, y, z), seen from `poses` (1, h, 3)."""
    history = labels.shape[1]
    chance = torch.rand(2, generator=generator).tolist()
    frames = history if chance[0] < _WHOLE else int(torch.randint(1, history + 1, (), generator=generator))
    measured = chance[1] < _MEASURED
    return Record.of(without_road_users(labels[:, -frames:]), poses[:, -frames:], grid, measured=measured)


def _some(asked: Tensor, frame: int, generator: torch.Generator) -> Tensor:
    """At most _EACH of the columns that are `asked` (x, y) for, at random: (n, 4) long, with row 0 and the frame."""
    at = asked.nonzero()
    at = at[torch.randperm(len(at), generator=generator)[:_EACH].to(at.device)]
    return torch.cat((at.new_tensor((0, frame)).expand(len(at), 2), at), dim=1)


def _agreement(near: Surroundings, kind: Tensor, truth: Tensor) -> Tensor:
    """How many voxels of the columns `truth` (n, z) are those of kinds (n,): (n,) long, -1 where there is no kind."""
    return (near.columns[kind] == truth).sum(dim=-1).masked_fill(kind < 0, -1)


def together(parts: list[Surroundings], rights: list[Tensor]) -> Places:
    """Places of several windows, with one set of columns."""
    every = torch.cat([part.columns for part in parts])
    columns, number = distinct_columns(every[:, None, None])
    starts = torch.tensor([0, *(len(part.columns) for part in parts)]).cumsum(0).tolist()
    numbers = [torch.cat((number[a:b], number.new_full((1,), -1))) for a, b in itertools.pairwise(starts)]

    def renumbered(name: str) -> Tensor:
        return torch.cat(
            [
                n[getattr(part, name).long()].to(getattr(part, name).dtype)
                for n, part in zip(numbers, parts, strict=True)
            ]
        )

    near = Surroundings(
        columns=columns,
        kind=renumbered("kind"),
        offset=torch.cat([part.offset for part in parts]),
        first=renumbered("first"),
        second=renumbered("second"),
    )
    right = torch.cat(rights)
    thin = torch.isin(columns, columns.new_tensor(_THIN)).any(dim=1)
    stands = torch.where(right, near.first, near.second)
    weight = torch.where(thin[stands], _THIN_WEIGHT, 1.0)
    return Places(near=near, right=right, weight=weight)
