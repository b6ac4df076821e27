"""The anchor: an earlier frame that road users who stand are drawn from, for as long as they stand.

Carrying a standing car from each frame to the next resamples it once a chunk, and its outline wears off within
seconds. Seen from one earlier frame it is resampled once, however long it stands: the same reason for which what never
moves has a record of its own.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from occsora_sim.geometry import relative
from occsora_sim.grid import FRAME_SECONDS, FREE, Grid
from occsora_sim.models.patches import is_vehicle
from occsora_sim.models.warp import warp

STANDSTILL = 0.4
"""A road user whose foretold mean speed is below this stands [m/s]; pedestrians walk at one and more."""

_REACH = (15.0, 0.5)  # the ego's motion after which the newest frame becomes the anchor [m], [rad]


@dataclass(frozen=True, kw_only=True)
class Anchor:
    """One frame of each of b worlds.

    Attributes:
        labels: (b, x, y, z) uint8.
        pose: (b, 3) its world pose.

    """

    labels: Tensor
    pose: Tensor

    def renew(self, labels: Tensor, pose: Tensor) -> Anchor:
        """The anchor once the ego has come to `pose` (b, 3) and sees `labels` (b, x, y, z): the same, or that frame
        where the ego has gone further than the anchor serves.
        """
        gone = relative(self.pose, pose)
        far = (gone[:, :2].norm(dim=-1) > _REACH[0]) | (gone[:, 2].abs() > _REACH[1])
        return Anchor(
            labels=torch.where(far[:, None, None, None], labels, self.labels),
            pose=torch.where(far[:, None], pose, self.pose),
        )


def hold_still(displacement: Tensor) -> Tensor:
    """Displacements (b, f, x, y, 2) [m] with what is slower than STANDSTILL set to zero in all frames."""
    seconds = displacement.shape[1] * FRAME_SECONDS
    slow = displacement[:, -1:].norm(dim=-1, keepdim=True) < STANDSTILL * seconds
    return displacement.masked_fill(slow, 0.0)


def draw_standing(
    anchor: Anchor, last: Tensor, last_pose: Tensor, displacement: Tensor, target_pose: Tensor, grid: Grid
) -> tuple[Tensor, Tensor]:
    """Vehicles that stand now and stood in the anchor, seen from future ego poses; small road users keep their place by
    offsets (`walkers`).

    An anchor's column counts as standing still where, to within a voxel, a standing road user is seen now.

    Args:
        anchor: the anchor.
        last: (b, x, y, z) uint8, the newest frame.
        last_pose: (b, 3) its world pose.
        displacement: (b, f, x, y, 2) [m] of its road users, after `hold_still`.
        target_pose: (b, f, 3) world poses of the ego at the future instants.
        grid: the voxel grid.

    Returns:
        labels (b, f, x, y, z) uint8 of these road users alone, FREE elsewhere; and `last` without them, for `advect`.

    """
    large = is_vehicle(last)
    standing = large.any(dim=-1) & (displacement[:, -1] == 0).all(dim=-1)  # (b, x, y)
    seen = warp(_grown(standing)[..., None].byte(), last_pose, anchor.pose[:, None], grid, fill=0)[:, 0]
    kept = torch.where(is_vehicle(anchor.labels) & (seen > 0), anchor.labels, FREE)
    covered = warp(kept, anchor.pose, last_pose[:, None], grid, fill=FREE)[:, 0]
    covered = _grown(is_vehicle(covered).any(dim=-1)) & standing
    rest = torch.where(covered[..., None] & large, FREE, last)
    return warp(kept, anchor.pose, target_pose, grid, fill=FREE), rest


def _grown(mask: Tensor) -> Tensor:
    """(b, x, y) bool with every true column's eight neighbours."""
    return F.max_pool2d(mask.float()[:, None], 3, 1, 1)[:, 0] > 0
