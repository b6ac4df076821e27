"""A census of the road users that clips show: how many, how fast, how large, how often they run into one another.

All of it is read off the voxels, of real and of generated clips alike, so that both can be held against each other.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from occsora_sim.geometry import to_world
from occsora_sim.grid import FRAME_SECONDS, NUM_CLASSES, Grid
from occsora_sim.scoring.road_users import patches_of

SPEEDS = (0.5, 2.0, 5.0, 10.0)
"""Bounds between the classes of speed [m/s]: standing, walking, slow, town traffic, fast."""

REACH = 8.0
"""How far from one frame to the next a road user is looked for [m]; 16 m/s at two frames a second."""


@dataclass(frozen=True, kw_only=True)
class Census:
    """Road users of n clips; a road user is a patch of touching columns of one class (`road_users`).

    Attributes:
        users: (n, NUM_CLASSES) float64, of each class in a frame, mean over the clip's frames.
        speeds: (n, len(SPEEDS) + 1) int64, how many moved how fast from a frame to the next; only those found again.
        patches: (n,) int64, in all frames.
        columns: (n,) int64, columns that they fill.
        touching: (n,) int64, how many of them touch one of another class.

    """

    users: Tensor
    speeds: Tensor
    patches: Tensor
    columns: Tensor
    touching: Tensor

    @staticmethod
    def cat(parts: list[Census]) -> Census:
        """The clips of `parts`, one after another."""
        return Census(
            **{
                entry.name: torch.cat([getattr(part, entry.name) for part in parts])
                for entry in fields(Census)
            }
        )

    def select(self, rows: Tensor) -> Census:
        """The clips `rows`: indices, or a bool for each."""
        return Census(**{entry.name: getattr(self, entry.name)[rows] for entry in fields(Census)})

    def figures(self) -> dict[str, float | list[float] | None]:
        """Over all clips: `columns` that a road user fills on average, the share that is `touching` one of another
        class, `standing` (slower than SPEEDS[0]) and the shares of all classes of speed; null where nobody is.
        """
        patches, moved = int(self.patches.sum()), int(self.speeds.sum())
        shares = (self.speeds.sum(0).double() / max(moved, 1)).tolist()
        return {
            "columns": int(self.columns.sum()) / patches if patches else None,
            "touching": int(self.touching.sum()) / patches if patches else None,
            "standing": shares[0] if moved else None,
            "speeds": shares,
        }


def take_census(clips: Tensor, poses: Tensor, grid: Grid) -> Census:
    """The census of clips (n, t, x, y, z) uint8 seen from world poses (n, t, 3) [m, m, rad].

    A road user is found again in the next frame as the nearest of its class within REACH, if it is that one's nearest
    too; its speed is the way between the middles of both. Those cut by the edge of the view seem slower or faster than
    they are, in real and generated clips alike.
    """
    n, t = clips.shape[:2]
    found = patches_of(clips.flatten(0, 1))
    frame, label = found.frame, found.label
    clip = frame // t
    per_class = torch.bincount(clip * NUM_CLASSES + label, minlength=n * NUM_CLASSES).view(n, NUM_CLASSES)
    lower = torch.tensor(grid.lower[:2], dtype=torch.float64, device=clips.device)
    middle = found.middle * grid.voxel + lower  # [m], in the frame's own axes
    middle = to_world(middle, poses.to(clips.device).double().flatten(0, 1)[frame])
    speeds = torch.zeros(n, len(SPEEDS) + 1, dtype=torch.int64, device=clips.device)
    bounds = torch.tensor(SPEEDS, dtype=torch.float64, device=clips.device)
    for k in range(n * t):
        if (k + 1) % t == 0:
            continue
        here, there = (torch.nonzero(frame == at)[:, 0] for at in (k, k + 1))
        if not len(here) or not len(there):
            continue
        way = torch.cdist(middle[here], middle[there])
        way[label[here][:, None] != label[there]] = torch.inf
        nearest, whose = way.min(dim=1)
        mutual = way.argmin(dim=0)[whose] == torch.arange(len(here), device=clips.device)
        speed = nearest[mutual & (nearest <= REACH)] / FRAME_SECONDS
        speeds[k // t] += torch.bincount(torch.bucketize(speed, bounds), minlength=len(SPEEDS) + 1)
    return Census(
        users=(per_class.double() / t).cpu(),
        speeds=speeds.cpu(),
        patches=torch.bincount(clip, minlength=n).cpu(),
        columns=torch.bincount(clip, weights=found.columns.double(), minlength=n).long().cpu(),
        touching=torch.bincount(clip, weights=found.touching.double(), minlength=n).long().cpu(),
    )
