"""Train the code for small road users by itself: it sees a cell's columns and nothing else, so a step costs little.

A pool of frames is drawn once; every step shifts and mirrors some of them against the cells, so that each person is met
in every column. Most cells hold nobody and expect nobody: one of these stands for all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from occsora_sim.models.small_road_users import CELL, SmallRoadUsers
from occsora_sim.models.world_model import WorldModel
from occsora_sim.training.known import window_context
from occsora_sim.training.windows import WindowSource

_FRAMES = 32
"""Frames of the pool that a step looks at."""

KL = 0.5
"""Weight of the code's squared size per cell, as of the tokenizer's KL term."""


@dataclass(frozen=True, kw_only=True)
class Frames:
    """What `draw_pool` returns.

    Attributes:
        columns: (n, 4, x, y) uint8.

    """

    columns: Tensor


def draw_pool(
    model: WorldModel, source: WindowSource, windows: int, corruption: float, generator: torch.Generator,
    draws: Callable[[int], Iterable[int]] = range,
) -> Tensor:  # fmt: skip
    """Kind and height of the small road users on the columns of frames, as they are and as the compensated past lets
    expect: (windows * f, 4, x, y) uint8; of fewer windows where `draws` ends before its count (as `Turn.draws`).
    """
    small, config = model.tokenizer.small, model.config
    assert small is not None
    frames: list[Tensor] = []
    for step in draws(-(-windows // 8)):
        drawn = source.draw(min(8, windows - step * 8), step)
        known = window_context(
            drawn,
            config.grid,
            list(range(config.frames)),
            generator=generator,
            corruption=corruption,
        )
        truth, prior = drawn.labels[:, config.history :].flatten(0, 1), known.prior.flatten(0, 1)
        frames += list(torch.stack([*small.columns(truth), *small.columns(prior)], dim=1).to(torch.uint8))
    return torch.stack(frames)


def code_loss(
    small: SmallRoadUsers, pool: Tensor, class_weight: Tensor, generator: torch.Generator
) -> tuple[Tensor, dict[str, float]]:
    """Loss of the code on shifted and mirrored frames of the pool [nats per cell that holds or expects somebody]."""
    rows = torch.randint(len(pool), (min(_FRAMES, len(pool)),), generator=generator).tolist()
    cells = torch.cat([_cells(_shifted(pool[row], generator)) for row in rows], dim=1).long()  # (4, n, 8, 8)
    told = (cells[0] > 0).flatten(1).any(1) | (cells[2] > 0).flatten(1).any(1)
    many, some = cells.shape[1], int(told.sum())
    empty = torch.zeros_like(cells[:, :16])
    cells = torch.cat((cells[:, told], empty), dim=1)
    truth, prior = (cells[0], cells[1]), (cells[2], cells[3])
    mean, log_variance = small.encode(truth, prior)
    noise = torch.randn(mean.shape, generator=generator).to(mean.device)
    code = mean + noise * (0.5 * log_variance).exp()
    size = 0.5 * mean.pow(2).sum((1, 2, 3))
    each = small.cell_losses(code, truth, prior, class_weight)
    loss = (each + KL * size) / max(1, some)
    loss = loss[:some].sum() + loss[some:].mean() * (many - some)
    return loss, {
        "code/loss": float(loss.detach()),
        "code/of_cells_with_somebody": float(each[:some].detach().mean()) if some else 0.0,
        "code/of_empty_cells": float(each[some:].detach().mean()),
    }


def _shifted(frame: Tensor, generator: torch.Generator) -> Tensor:
    """(4, x, y), rolled by less than a cell and turned or mirrored, at random."""
    dx, dy, way = (int(torch.randint(CELL, (), generator=generator)) for _ in range(3))
    frame = torch.roll(frame, (dx, dy), (1, 2))
    flips = [axis for axis, bit in ((1, 1), (2, 2)) if way & bit]
    frame = frame.flip(flips)
    return frame.transpose(1, 2) if way & 4 else frame


def _cells(frame: Tensor) -> Tensor:
    """(4, x, y) -> (4, cells, 8, 8)."""
    four, x, y = frame.shape
    return frame.reshape(four, x // CELL, CELL, y // CELL, CELL).transpose(2, 3).reshape(four, -1, CELL, CELL)
