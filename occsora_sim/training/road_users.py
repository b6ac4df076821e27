"""Train departures and paces by themselves: a road user is one sample, so a step costs little."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from occsora_sim.models.columns import ground_image
from occsora_sim.models.departures import Departures, standing_road_users
from occsora_sim.models.motion import smooth_displacement
from occsora_sim.models.paces import Paces, further, moving_vehicles
from occsora_sim.models.road_users import describe
from occsora_sim.models.world_model import WorldModel
from occsora_sim.training.known import aligned_images
from occsora_sim.training.loop import LoopConfig, run
from occsora_sim.training.windows import WindowSource

BATCH = 512
"""Road users of a step."""


@dataclass(frozen=True)
class Seen:
    """Road users of some windows, by what the motion estimator expects of them.

    Attributes:
        standing: what is known (`describe`) of each of those that are foretold to stand, (m, c) float32.
        way: that these went in truth, (m, f, 2) [m].
        moving: what is known of those on wheels that are foretold to move, (n, c) float32.
        difference: how much further than foretold these went, (n,) [m].

    """

    standing: Tensor
    way: Tensor
    moving: Tensor
    difference: Tensor


@torch.no_grad()
def draw_road_users(model: WorldModel, source: WindowSource, windows: int, first: int = 0) -> Seen:
    """The road users of some windows.

    Args:
        model: its motion estimator is asked.
        source: of the windows.
        windows: how many.
        first: step number of the first batch of them.

    """
    parts, grid, h = [], model.config.grid, model.config.history
    for step in range(-(-windows // 8)):
        drawn = source.draw(min(8, windows - step * 8), first + step)
        labels, poses = drawn.labels[:, :h], drawn.poses[:, :h]
        images = aligned_images(labels, poses, grid, model.motion.frames)
        levels = model.motion.levels(images, ground_image(labels[:, -1], grid))
        displacement = smooth_displacement(model.motion.foretell(levels, images), images[:, -1])
        standing = standing_road_users(displacement, images[:, -1])
        moving = moving_vehicles(displacement, images[:, -1])
        parts.append(
            (
                describe(standing, levels, displacement, grid),
                standing.of(drawn.displacement),
                describe(moving, levels, displacement, grid),
                further(moving.of(drawn.displacement), moving.of(displacement)),
            )
        )
    return Seen(*(torch.cat(part) for part in zip(*parts, strict=True)))


def train_road_users(
    model: WorldModel, source: WindowSource, windows: int, steps: int, loop: LoopConfig, out: Path
) -> None:
    """Train the departures and the paces, where the model has them, for so many steps each on the road users of some
    windows.
    """
    if not steps or (model.departures is None and model.paces is None):
        return
    seen = draw_road_users(model, source, windows)
    if model.departures is not None:
        _train(model.departures, seen.standing, seen.way, loop.of_a_part(steps, 1e-3), out / "departures")
    if model.paces is not None:
        _train(model.paces, seen.moving, seen.difference, loop.of_a_part(steps, 1e-3), out / "paces")


def _train(part: Departures | Paces, known: Tensor, truth: Tensor, loop: LoopConfig, out: Path) -> None:
    if not len(known):
        return

    def loss(step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        rows = torch.randint(len(known), (BATCH,), generator=generator).to(known.device)
        return part.loss(known[rows], truth[rows])

    run(part, loss, loop, out).copy_to(part)
