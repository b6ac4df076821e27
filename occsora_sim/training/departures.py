"""Train the departures by themselves: a road user that is foretold to stand is one sample, so a step costs little."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from occsora_sim.models.columns import ground_image
from occsora_sim.models.departures import describe, standing_road_users
from occsora_sim.models.motion import smooth_displacement
from occsora_sim.models.world_model import WorldModel
from occsora_sim.training.known import aligned_images
from occsora_sim.training.windows import WindowSource

BATCH = 512
"""Road users of a step."""


@dataclass(frozen=True, kw_only=True)
class Standing:
    """What `draw_standing` returns.

    Attributes:
        known: (m, c) float32.
        way: (m, f, 2) float32 [m].

    """

    known: Tensor
    way: Tensor


@torch.no_grad()
def draw_standing(
    model: WorldModel,
    source: WindowSource,
    windows: int,
    first: int = 0,
    draws: Callable[[int], Iterable[int]] = range,
) -> tuple[Tensor, Tensor]:
    """The road users of some windows that the motion estimator expects to stand: what is known of each (m, c) float32,
    and the way that it went (m, f, 2) [m].

    Args:
        model: its motion estimator is asked.
        source: of the windows.
        windows: how many.
        first: step number of the first batch of them.
        draws: of how many batches are wanted, the numbers of those that there is time for (`Turn.draws`).

    """
    known, ways, grid = [], [], model.config.grid
    h = model.config.history
    for step in draws(-(-windows // 8)):
        drawn = source.draw(min(8, windows - step * 8), first + step)
        labels, poses = drawn.labels[:, :h], drawn.poses[:, :h]
        images = aligned_images(labels, poses, grid, model.motion.frames)
        levels = model.motion.levels(images, ground_image(labels[:, -1], grid))
        displacement = smooth_displacement(model.motion.foretell(levels, images), images[:, -1])
        standing = standing_road_users(displacement, images[:, -1])
        if len(standing.owner):
            known.append(describe(standing, levels, displacement, grid))
            ways.append(standing.of(drawn.displacement))
    if not known:
        width = model.motion.channels
        return torch.zeros(0, width), torch.zeros(0, model.config.frames, 2)
    return torch.cat(known), torch.cat(ways)
