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
from occsora_sim.models.patches import connected, is_vehicle
from occsora_sim.models.warp import warp

STANDSTILL = 0.4
"""A road user whose foretold mean speed is below this stands [m/s]; pedestrians walk at one and more."""

_BESIDE = 2
"""How near to a standing vehicle no other appears from nowhere [columns]."""

_MOST = 0.9
"""Share of a vehicle's columns that makes nearly all of it."""

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

    An anchor's column counts as standing still where, to within a voxel, a standing road user is seen now, and its
    vehicle only where nearly all of it does: one that has moved on by less than its length would else be drawn in both
    places.

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
    seen = (seen > 0) & _whole(anchor, seen[..., 0] > 0, last_pose, grid)[..., None]
    kept = torch.where(is_vehicle(anchor.labels) & seen, anchor.labels, FREE)
    covered = warp(kept, anchor.pose, last_pose[:, None], grid, fill=FREE)[:, 0]
    covered = _grown(is_vehicle(covered).any(dim=-1)) & standing
    rest = torch.where(covered[..., None] & large, FREE, last)
    return warp(kept, anchor.pose, target_pose, grid, fill=FREE), rest


def _whole(anchor: Anchor, seen: Tensor, pose: Tensor, grid: Grid) -> Tensor:
    """Columns of the anchor's vehicles of which nearly all that is in view from `pose` (b, 3) is `seen` (b, x, y)."""
    everywhere = torch.ones(*seen.shape, 1, dtype=torch.uint8, device=seen.device)
    inside = warp(everywhere, pose, anchor.pose[:, None], grid, fill=0)[:, 0, ..., 0]
    cells, patch, _ = connected(is_vehicle(anchor.labels).any(dim=-1).byte())
    at = tuple(cells.unbind(1))

    def count(mask: Tensor) -> Tensor:
        return torch.zeros(len(cells), device=seen.device).index_add_(0, patch, mask[at].float())

    share = count(seen) / count(inside > 0).clamp(min=1)
    out = torch.zeros_like(seen)
    out[at] = (share >= _MOST)[patch]
    return out


def keep_standing(labels: Tensor, prior: Tensor, flow: Tensor, known: Tensor) -> Tensor:
    """Drawn frames in which vehicles that stand are as they stood: to the voxel, and no larger.

    What stands needs no drawing, and a decoder that adds a column to it once a chunk makes a lorry of a car within half
    a minute.

    Args:
        labels: (b, f, x, y, z) uint8, as drawn.
        prior: (b, f, x, y, z) uint8, road users as carried.
        flow: (b, f, x, y, 2), how far those have come; zero where they stand.
        known: (b, f, x, y) bool, columns whose ground was seen before.

    Returns:
        (b, f, x, y, z) uint8. Columns of standing vehicles are the prior's; in the columns around, up to _BESIDE away,
        a vehicle is only where one was carried to or where the ground is new.

    """
    carried = is_vehicle(prior)  # (b, f, x, y, z)
    there = carried.any(dim=-1)
    stands = there & (flow == 0).all(dim=-1)
    near = F.max_pool2d(stands.flatten(0, 1).float()[:, None], 2 * _BESIDE + 1, 1, _BESIDE)[:, 0] > 0
    grown = near.view_as(stands) & ~there & known
    out = torch.where(grown[..., None] & is_vehicle(labels), FREE, labels)
    kept = torch.where(carried, prior, torch.where(is_vehicle(labels), FREE, labels))
    return torch.where(stands[..., None], kept, out)


def _grown(mask: Tensor) -> Tensor:
    """(b, x, y) bool with every true column's eight neighbours."""
    return F.max_pool2d(mask.float()[:, None], 3, 1, 1)[:, 0] > 0
