"""Departures: whether a road user that stands sets off, and how.

A car before a red light does one of two things in the next second, and so does who waits at a kerb; what lies between
is neither. The motion estimator foretells a mean, by which they would stand for ever. So for each road user that is
expected to stand, a small network says with what probability it sets off and where it then is; a drawn future draws
which, a foretold one keeps the mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from occsora_sim.grid import FRAME_SECONDS, PEDESTRIAN, Grid
from occsora_sim.models.anchor import STANDSTILL
from occsora_sim.models.columns import is_dynamic
from occsora_sim.models.patches import connected, is_vehicle, mean_of

GEOMETRY = 8
"""Numbers that describe a road user beside the estimator's features: see `describe`."""

_SCALE = 2.0  # [m]; brings ways to the order of one


@dataclass(frozen=True, kw_only=True)
class Standing:
    """The m road users of b frames that are expected to stand, and their k columns.

    Attributes:
        row: (k,) the frame of each column.
        cell: (k, 2) its x and y.
        user: (k,) whose it is, 0 to m - 1.
        owner: (m,) the frame of each road user, ascending.

    """

    row: Tensor
    cell: Tensor
    user: Tensor
    owner: Tensor

    def mean(self, values: Tensor) -> Tensor:
        """Means over each road user's columns: (k, ...) -> (m, ...)."""
        return mean_of(values, self.user, torch.bincount(self.user, minlength=len(self.owner)))

    def of(self, displacement: Tensor) -> Tensor:
        """Each road user's mean displacement, (b, f, x, y, 2) [m] -> (m, f, 2)."""
        return self.mean(displacement[self.row, :, self.cell[:, 0], self.cell[:, 1]])


def moves(way: Tensor) -> Tensor:
    """Whether ways (..., f, 2) [m] are those of something that moves: (...) bool; the same bound as `hold_still`."""
    return way[..., -1, :].norm(dim=-1) >= STANDSTILL * way.shape[-2] * FRAME_SECONDS


def standing_road_users(displacement: Tensor, image: Tensor) -> Standing:
    """The road users that are foretold to stand: patches of vehicles, of bicycles and motorcycles, and of pedestrians.

    Args:
        displacement: (b, f, x, y, 2) [m] until each instant.
        image: (b, x, y, 2) uint8, `road_user_image` of the newest frame.

    """
    labels = image[..., 0]
    kind = is_dynamic(labels).byte() + is_vehicle(labels).byte() + 2 * (labels == PEDESTRIAN).byte()
    cells, patch, _ = connected(kind)
    roots, user = patch.unique(return_inverse=True)
    every = Standing(row=cells[:, 0], cell=cells[:, 1:], user=user, owner=cells[roots, 0])
    if not len(cells):
        return every
    still = ~moves(every.of(displacement))
    mine = still[user]
    number = still.cumsum(0) - 1
    return Standing(
        row=every.row[mine], cell=every.cell[mine], user=number[user[mine]], owner=every.owner[still]
    )


def describe(standing: Standing, levels: Sequence[Tensor], displacement: Tensor, grid: Grid) -> Tensor:
    """What is known of each who stands, (m, c + GEOMETRY) float32: the motion estimator's features at its columns
    (`MotionEstimator.levels`), how long it is and where it points but for front and rear, its place, its size, and what
    it is foretold to do.
    """
    at = standing.row, standing.cell[:, 0], standing.cell[:, 1]
    side = displacement.shape[2]
    parts = []
    for level in levels:
        step = side // level.shape[2]
        parts.append(level[at[0], :, at[1] // step, at[2] // step].float())
    place = grid.centres_xy(displacement.device)[at[1], at[2]]
    middle = standing.mean(place)
    arm = place - middle[standing.user]
    xx, yy, xy = (standing.mean(product) for product in (arm[:, 0] ** 2, arm[:, 1] ** 2, arm.prod(dim=1)))
    size = torch.bincount(standing.user, minlength=len(standing.owner)).float()
    shape = torch.stack((xx - yy, 2 * xy, xx + yy), dim=1)
    foretold = standing.of(displacement)[:, -1]
    geometry = torch.cat((shape / 2, middle / 20, size[:, None].log() - 4, foretold), dim=1)
    return torch.cat((standing.mean(torch.cat(parts, dim=1)), geometry), dim=1)


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
        counts = torch.bincount(standing.owner, minlength=len(image)).tolist()
        chance = torch.cat(
            [
                torch.rand(n, generator=one, device=one.device)
                for n, one in zip(counts, generators, strict=True)
            ]
        )
        off = (chance.to(logit.device) < logit.sigmoid())[standing.user]
        out = displacement.clone()
        at = standing.row[off], standing.cell[off, 0], standing.cell[off, 1]
        out[at[0], :, at[1], at[2]] = way[standing.user[off]]
        return out
