"""Departures: whether a road user that stands sets off, and how.

A car before a red light does one of two things in the next second, and so does who waits at a kerb; what lies between
is neither. The motion estimator foretells a mean, by which they would stand for ever. So for each road user that is
expected to stand, a small network says with what probability it sets off and where it then is; a drawn future draws
which, a foretold one keeps the mean.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from occsora_sim.grid import Grid
from occsora_sim.models.road_users import GEOMETRY, RoadUsers, describe, moves

_SCALE = 2.0  # [m]; brings ways to the order of one


def standing_road_users(displacement: Tensor, image: Tensor) -> RoadUsers:
    """The road users that are foretold to stand.

    Args:
        displacement: (b, f, x, y, 2) [m] until each instant.
        image: (b, x, y, 2) uint8, `road_user_image` of the newest frame.

    """
    every = RoadUsers.of_image(image)
    return every.select(~moves(every.of(displacement)))


class Departures(nn.Module):
    """Probability and way of setting off, road user by road user.

    Args:
        channels: c, of the motion estimator's features.
        future: f, instants ahead.
        width: of the network.

    """

    def __init__(self, channels: int, future: int = 2, width: int = 128) -> None:
        super().__init__()
        self.future = future
        self.network = nn.Sequential(
            nn.Linear(channels + GEOMETRY, width), nn.GELU(), nn.Linear(width, width), nn.GELU(),
            nn.Linear(width, 1 + 2 * future),
        )  # fmt: skip
        last = self.network[-1]
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        with torch.no_grad():
            last.bias[0] = -10.0  # a fresh one lets everybody stand

    def forward(self, known: Tensor) -> tuple[Tensor, Tensor]:
        """`describe`d road users (m, c + GEOMETRY) -> logit (m,) of setting off, and the way (m, f, 2) [m] if so."""
        out = self.network(known)
        return out[:, 0], out[:, 1:].unflatten(1, (self.future, 2)) * _SCALE

    def loss(self, known: Tensor, way: Tensor) -> tuple[Tensor, dict[str, float]]:
        """Of road users (m, c + GEOMETRY) that in truth went `way` (m, f, 2) [m]: binary cross-entropy of setting off
        [nats], and the Huber loss of the way of those who did (bend at 2 m: the mean way is wanted, since the many who
        have hardly begun would make a median of which nobody ever gets going).
        """
        logit, foretold = self(known)
        off = moves(way)
        entropy = F.binary_cross_entropy_with_logits(logit, off.float())
        error = ((foretold - way)[off].square().sum(-1) + 1e-8).sqrt()
        bent = F.huber_loss(error, torch.zeros_like(error), reduction="sum", delta=2.0)
        loss = entropy + bent / max(1, len(way))
        return loss, {
            "departures/loss": float(loss.detach()),
            "departures/entropy": float(entropy.detach()),
            "departures/error_m": float(error.detach()[:, -1].mean()) if len(error) else 0.0,
        }

    @torch.no_grad()
    def draw(
        self, displacement: Tensor, image: Tensor, levels: Sequence[Tensor], grid: Grid,
        generators: Sequence[torch.Generator],
    ) -> Tensor:  # fmt: skip
        """Displacements (b, f, x, y, 2) [m] in which each road user that is foretold to stand has set off or not.

        Args:
            displacement: as foretold.
            image: (b, x, y, 2) uint8, `road_user_image` of the newest frame.
            levels: `MotionEstimator.levels`.
            grid: the voxel grid.
            generators: one a frame; each advances by as many numbers as stand in its own.

        """
        standing = standing_road_users(displacement, image)
        if not len(standing.owner):
            return displacement
        logit, way = self(describe(standing, levels, displacement, grid))
        chance = standing.numbers(1, generators)[:, 0]
        off = (chance < logit.sigmoid())[standing.user]
        out = displacement.clone()
        at = standing.row[off], standing.cell[off, 0], standing.cell[off, 1]
        out[at[0], :, at[1], at[2]] = way[standing.user[off]]
        return out
