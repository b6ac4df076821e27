"""What is known about a future frame before it is drawn: the compensated past, as the networks' input."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from occsora_sim.geometry import to_frame
from occsora_sim.grid import Grid
from occsora_sim.models.columns import UNSEEN, is_dynamic
from occsora_sim.models.motion import advect

AUXILIARY = 6
"""Channels of `Context.auxiliary`."""

FLOW, ROUTE = slice(2, 4), 4
"""Those of them that hold the velocity of the carried ones, and the route mask."""


@dataclass(frozen=True, kw_only=True)
class Context:
    """The known part of b x f future frames, each in its own ego frame.

    Attributes:
        static: (b, f, x, y, z) uint8: what stands still, from the record; UNSEEN where nothing was ever shown.
        prior: (b, f, x, y, z) uint8: `static` with the road users carried along their motion.
        auxiliary: (b, f, AUXILIARY, x, y) float32: road users where they last stood (presence, height [4 voxels]),
            velocity of the carried ones [10 m/s] x 2, route mask, time ahead [s].

    """

    static: Tensor
    prior: Tensor
    auxiliary: Tensor

    def flatten(self) -> Context:
        """Frames in the batch axis: (b, f, ...) -> (b f, 1, ...)."""
        return Context(
            static=self.static.flatten(0, 1)[:, None],
            prior=self.prior.flatten(0, 1)[:, None],
            auxiliary=self.auxiliary.flatten(0, 1)[:, None],
        )


def columns_at(points: Tensor, poses: Tensor, grid: Grid) -> tuple[Tensor, Tensor]:
    """Columns of frames at `poses` (b, f, 3) that hold world points (b, n, 2) [m]: their indices (b, f, n, 2) long, and
    which lie inside the grid (b, f, n) bool; outside (NaN too) the indices are 0.
    """
    place = to_frame(points[:, None], poses[:, :, None])
    voxel = torch.floor((place - place.new_tensor(grid.lower[:2])) / grid.voxel)
    inside = (voxel >= 0).all(-1) & (voxel[..., 0] < grid.shape[0]) & (voxel[..., 1] < grid.shape[1])
    return torch.where(inside[..., None], voxel, 0.0).long(), inside


def mark_columns(voxel: Tensor, which: Tensor, grid: Grid) -> Tensor:
    """The columns `voxel` (b, f, n, 2) long, of them those that are `which` (b, f, n) bool, as a (b, f, x, y) float32
    image of 0 and 1.
    """
    row, frame, _ = which.nonzero(as_tuple=True)
    x, y = voxel[which].unbind(1)
    mask = torch.zeros(*which.shape[:2], *grid.shape[:2], device=voxel.device)
    mask[row, frame, x, y] = 1.0
    return mask


def route_mask(route: Tensor, poses: Tensor, grid: Grid) -> Tensor:
    """Columns within about 1 m of the route.

    route (b, r, 2) world points about 1 m apart, NaN-padded; poses (b, f, 3) -> (b, f, x, y) float32 of 0 and 1.
    """
    return F.max_pool2d(mark_columns(*columns_at(route, poses, grid), grid), 5, 1, 2)


def build_context(
    *,
    static: Tensor,
    last: Tensor,
    last_pose: Tensor,
    last_image: Tensor,
    displacement: Tensor,
    target_pose: Tensor,
    seconds: Tensor,
    route: Tensor | None,
    grid: Grid,
    drawn: tuple[Tensor, Tensor] | None = None,
    offset: Tensor | None = None,
) -> Context:
    """Put the known parts together.

    Args:
        static: (b, f, x, y, z) uint8, the record (or the warped history) in each target frame.
        last: (b, x, y, z) uint8, the newest frame.
        last_pose: (b, 3), its world pose.
        last_image: (b, f, x, y, 2) uint8, the newest frame's `road_user_image` warped into each target frame.
        displacement: (b, f, x, y, 2) [m] of the newest frame's road users until each instant, in its axes.
        target_pose: (b, f, 3) world poses of the ego at the future instants.
        seconds: (f,) how far ahead they are [s].
        route: (b, r, 2) world points [m], NaN-padded, or None where no route is given.
        grid: the voxel grid.
        drawn: (b, f, x, y, z) uint8, road users already drawn in the target frames (`anchor.draw_standing`,
            `bodies.draw_bodies`), FREE elsewhere, and (b, f, x, y, 2) how far they have come [m] in the axes of each;
            `last` then holds the others alone.
        offset: (b, x, y, 2) [m], how far off the middles of their columns the newest frame's small road users are.

    """
    b, f = target_pose.shape[:2]
    way = displacement if offset is None else displacement + offset[:, None]
    moved, flow = advect(last, way, last_pose, target_pose, grid)
    if drawn is not None:
        labels, come = drawn
        there = is_dynamic(labels)
        moved = torch.where(there, labels, moved)
        flow = torch.where(there.any(dim=-1, keepdim=True), come, flow)
    flow = flow / seconds.view(1, f, 1, 1, 1)  # mean velocity [m/s]
    prior = torch.where(is_dynamic(moved), moved, static)
    known = route_mask(route, target_pose, grid) if route is not None else torch.zeros_like(flow[..., 0])
    ahead = seconds.view(1, f, 1, 1).expand(b, f, *grid.shape[:2])
    auxiliary = torch.stack(
        (
            (last_image[..., 0] > 0).float(),
            last_image[..., 1].float() / 4,
            flow[..., 0] / 10,
            flow[..., 1] / 10,
            known,
            ahead,
        ),
        dim=2,
    )
    return Context(static=static, prior=prior, auxiliary=auxiliary)


def unseen(static: Tensor) -> Tensor:
    """Columns without a record: (..., x, y, z) uint8 -> (..., x, y) bool."""
    return (static == UNSEEN).any(dim=-1)
