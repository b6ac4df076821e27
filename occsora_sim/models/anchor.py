"""The anchor: earlier frames that road users who stand are drawn from, for as long as they stand.

Carrying a standing car from each frame to the next resamples it once a chunk, and its outline wears off within
seconds. Seen from earlier frames it is resampled once, however long it stands; and of several frames in which it stood
the nearest column answers, which tells its outline finer than a voxel. The record of what never moves does the same.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from occsora_sim.geometry import relative
from occsora_sim.grid import BICYCLE, FRAME_SECONDS, FREE, MOTORCYCLE, Grid
from occsora_sim.models.columns import is_dynamic
from occsora_sim.models.patches import connected, grown, is_vehicle
from occsora_sim.models.warp import warp, warp_nearest

STANDSTILL = 0.4
"""A road user whose foretold mean speed is below this stands [m/s]; pedestrians walk at one and more."""

_BESIDE = 2
"""How near to a standing vehicle no other appears from nowhere [columns]."""

_MOST = 0.9
"""Share of a vehicle's columns that makes nearly all of it."""

_REACH = (15.0, 0.5)  # the ego's motion after which the newest frame becomes the anchor [m], [rad]


@dataclass(frozen=True, kw_only=True)
class Anchor:
    """h frames of each of b worlds; where there is but one, it is there h times.

    Attributes:
        labels: (b, h, x, y, z) uint8, newest first.
        pose: (b, h, 3) their world poses.

    """

    labels: Tensor
    pose: Tensor

    @staticmethod
    def of(labels: Tensor, pose: Tensor, count: int) -> Anchor:
        """The anchor of one frame `labels` (b, x, y, z) at `pose` (b, 3), with h = `count`."""
        return Anchor(
            labels=labels[:, None].repeat(1, count, 1, 1, 1), pose=pose[:, None].repeat(1, count, 1)
        )

    def renew(self, labels: Tensor, pose: Tensor) -> Anchor:
        """The anchor once the ego has come to `pose` (b, 3) and sees `labels` (b, x, y, z): the same, or that frame
        where the ego has gone further than the anchor serves.
        """
        gone = relative(self.pose[:, 0], pose)
        far = (gone[:, :2].norm(dim=-1) > _REACH[0]) | (gone[:, 2].abs() > _REACH[1])
        return Anchor(
            labels=torch.where(far[:, None, None, None, None], labels[:, None], self.labels),
            pose=torch.where(far[:, None, None], pose[:, None], self.pose),
        )

    def distinct(self) -> Anchor:
        """The same without what is there more than once in all worlds."""
        once = bool((self.pose == self.pose[:, :1]).all())
        return Anchor(labels=self.labels[:, :1], pose=self.pose[:, :1]) if once else self


def hold_still(displacement: Tensor) -> Tensor:
    """Displacements (b, f, x, y, 2) [m] with what is slower than STANDSTILL set to zero in all frames."""
    seconds = displacement.shape[1] * FRAME_SECONDS
    slow = displacement[:, -1:].norm(dim=-1, keepdim=True) < STANDSTILL * seconds
    return displacement.masked_fill(slow, 0.0)


def draw_standing(
    anchor: Anchor, last: Tensor, last_pose: Tensor, displacement: Tensor, target_pose: Tensor, grid: Grid
) -> tuple[Tensor, Tensor]:
    """Road users who stand now and stood in the anchor, seen from future ego poses; pedestrians, and bicycles and
    motorcycles of an anchor of one frame, are left out: they keep their place by offsets (`walkers`).

    An anchor's column counts as standing still where, to within a voxel, a standing road user is seen now, and its
    vehicle only where nearly all of it does: one that has moved on by less than its length would else be drawn in both
    places. A frame in which a vehicle that stands now did not, or something else moved there, says nothing about it.

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
    anchor = anchor.distinct()
    several = (anchor.pose != anchor.pose[:, :1]).flatten(1).any(dim=1)[:, None, None, None]
    large = _outlined(last, several)
    standing = large.any(dim=-1) & (displacement[:, -1] == 0).all(dim=-1)  # (b, x, y)
    seen = warp(grown(standing)[..., None].byte(), last_pose, anchor.pose, grid, fill=0)[..., 0] > 0
    vehicle = _outlined(anchor.labels, several[:, None])  # (b, h, x, y, z)
    there = vehicle.any(dim=-1)
    stood = seen & there & _whole(there, anchor.pose, seen, last_pose, grid)
    kept = torch.where(vehicle & stood[..., None], anchor.labels, FREE)
    says = torch.where(there, stood, ~seen | grown(stood.flatten(0, 1)).view_as(stood))
    poses = torch.cat((last_pose[:, None], target_pose), dim=1)
    drawn = warp_nearest(kept, says, anchor.pose, poses, grid, fill=FREE)
    covered = grown(is_dynamic(drawn[:, 0]).any(dim=-1)) & standing
    rest = torch.where(covered[..., None] & large, FREE, last)
    return drawn[:, 1:], rest


def _outlined(labels: Tensor, several: Tensor) -> Tensor:
    """Voxels of road users whose outline the anchor tells: vehicles; of `several` frames, which together miss none of
    their columns, bicycles and motorcycles too. A pedestrian's place is better known than his outline.
    """
    return is_vehicle(labels) | (several & ((labels == BICYCLE) | (labels == MOTORCYCLE)))


def _whole(vehicle: Tensor, source_pose: Tensor, seen: Tensor, pose: Tensor, grid: Grid) -> Tensor:
    """Of the columns of vehicles (b, h, x, y) in frames at `source_pose` (b, h, 3), those of whose vehicle nearly all
    that is in view from `pose` (b, 3) is `seen` (b, h, x, y).
    """
    b, h = seen.shape[:2]
    everywhere = torch.ones(b, *grid.shape[:2], 1, dtype=torch.uint8, device=seen.device)
    inside = warp(everywhere, pose, source_pose, grid, fill=0)[..., 0].flatten(0, 1)
    cells, patch, _ = connected(vehicle.flatten(0, 1).byte())
    at = tuple(cells.unbind(1))
    seen = seen.flatten(0, 1)

    def count(mask: Tensor) -> Tensor:
        return torch.zeros(len(cells), device=seen.device).index_add_(0, patch, mask[at].float())

    share = count(seen) / count(inside > 0).clamp(min=1)
    out = torch.zeros_like(seen)
    out[at] = (share >= _MOST)[patch]
    return out.unflatten(0, (b, h))


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
    near = grown(stands.flatten(0, 1), _BESIDE).view_as(stands)
    beside = near & ~there & known
    out = torch.where(beside[..., None] & is_vehicle(labels), FREE, labels)
    kept = torch.where(carried, prior, torch.where(is_vehicle(labels), FREE, labels))
    return torch.where(stands[..., None], kept, out)
