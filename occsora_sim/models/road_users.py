"""Road users of a frame one by one: which columns are whose, and what is known of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from occsora_sim.grid import FRAME_SECONDS, PEDESTRIAN, Grid
from occsora_sim.models.anchor import STANDSTILL
from occsora_sim.models.columns import is_dynamic
from occsora_sim.models.patches import connected, is_vehicle, mean_of

GEOMETRY = 8
"""Numbers that describe a road user beside the estimator's features: see `describe`."""


@dataclass(frozen=True, kw_only=True)
class RoadUsers:
    """m road users of b frames, and their k columns.

    Attributes:
        row: (k,) the frame of each column.
        cell: (k, 2) its x and y.
        user: (k,) whose it is, 0 to m - 1.
        owner: (m,) the frame of each road user, ascending.
        walks: (m,) bool, whether it is a pedestrian.

    """

    row: Tensor
    cell: Tensor
    user: Tensor
    owner: Tensor
    walks: Tensor

    @staticmethod
    def of_image(image: Tensor) -> RoadUsers:
        """Those of frames (b, x, y, 2) uint8 (`road_user_image`): patches of vehicles, of bicycles and motorcycles, and
        of pedestrians.
        """
        labels = image[..., 0]
        kind = is_dynamic(labels).byte() + is_vehicle(labels).byte() + 2 * (labels == PEDESTRIAN).byte()
        cells, patch, _ = connected(kind)
        roots, user = patch.unique(return_inverse=True)
        walks = labels[tuple(cells[roots].unbind(1))] == PEDESTRIAN
        return RoadUsers(row=cells[:, 0], cell=cells[:, 1:], user=user, owner=cells[roots, 0], walks=walks)

    def select(self, which: Tensor) -> RoadUsers:
        """Those of `which` (m,) bool."""
        mine = which[self.user]
        number = which.cumsum(0) - 1
        return RoadUsers(
            row=self.row[mine],
            cell=self.cell[mine],
            user=number[self.user[mine]],
            owner=self.owner[which],
            walks=self.walks[which],
        )

    def mean(self, values: Tensor) -> Tensor:
        """Means over each road user's columns: (k, ...) -> (m, ...)."""
        return mean_of(values, self.user, torch.bincount(self.user, minlength=len(self.owner)))

    def of(self, displacement: Tensor) -> Tensor:
        """Each road user's mean displacement, (b, f, x, y, 2) [m] -> (m, f, 2)."""
        return self.mean(displacement[self.row, :, self.cell[:, 0], self.cell[:, 1]])

    def numbers(self, each: int, generators: Sequence[torch.Generator]) -> Tensor:
        """Numbers from 0 to 1, (m, each): each frame's from its own of the b `generators`."""
        counts = torch.bincount(self.owner, minlength=len(generators)).tolist()
        drawn = [
            torch.rand(n, each, generator=one, device=one.device)
            for n, one in zip(counts, generators, strict=True)
        ]
        return torch.cat(drawn).to(self.owner.device)


def moves(way: Tensor) -> Tensor:
    """Whether ways (..., f, 2) [m] are those of something that moves: (...) bool; the same bound as `hold_still`."""
    return way[..., -1, :].norm(dim=-1) >= STANDSTILL * way.shape[-2] * FRAME_SECONDS


def describe(users: RoadUsers, levels: Sequence[Tensor], displacement: Tensor, grid: Grid) -> Tensor:
    """What is known of each, (m, c + GEOMETRY) float32: the motion estimator's features at its columns
    (`MotionEstimator.levels`), how long it is and where it points but for front and rear, its place, its size, and what
    it is foretold to do.
    """
    at = users.row, users.cell[:, 0], users.cell[:, 1]
    side = displacement.shape[2]
    parts = []
    for level in levels:
        step = side // level.shape[2]
        parts.append(level[at[0], :, at[1] // step, at[2] // step].float())
    place = grid.centres_xy(displacement.device)[at[1], at[2]]
    middle = users.mean(place)
    arm = place - middle[users.user]
    xx, yy, xy = (users.mean(product) for product in (arm[:, 0] ** 2, arm[:, 1] ** 2, arm.prod(dim=1)))
    size = torch.bincount(users.user, minlength=len(users.owner)).float()
    shape = torch.stack((xx - yy, 2 * xy, xx + yy), dim=1)
    foretold = users.of(displacement)[:, -1]
    geometry = torch.cat((shape / 2, middle / 20, size[:, None].log() - 4, foretold), dim=1)
    return torch.cat((users.mean(torch.cat(parts, dim=1)), geometry), dim=1)
