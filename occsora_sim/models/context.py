"""What is known about future frames before their ground is drawn: the recorded ground and the road users, as input."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from occsora_sim.geometry import rotate, to_frame
from occsora_sim.grid import Grid
from occsora_sim.models.columns import UNSEEN
from occsora_sim.road_users import RoadUsers
from occsora_sim.voxels.cover import column_owners
from occsora_sim.voxels.paint import paint_road_users

AUXILIARY = 6
"""Channels of `Context.auxiliary`."""


@dataclass(frozen=True, kw_only=True)
class Context:
    """The known part of b x f future frames, each in its own ego frame.

    Attributes:
        static: (b, f, x, y, z) uint8: what stands still, from the record; UNSEEN where nothing was ever shown.
        prior: (b, f, x, y, z) uint8: `static` with the road users where they are then.
        auxiliary: (b, f, AUXILIARY, x, y) float32: road users where they last stood (presence, height [4 voxels]),
            mean velocity until then of those that are there then [10 m/s] x 2, route mask, time ahead [s].

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
    x, y = grid.shape[:2]
    cells = voxel[..., 0] * y + voxel[..., 1]
    mask = torch.zeros(*which.shape[:2], x * y, device=voxel.device)
    return mask.scatter_reduce(2, cells, which.float(), "amax").unflatten(2, (x, y))


def route_mask(route: Tensor, poses: Tensor, grid: Grid) -> Tensor:
    """Columns within about 1 m of the route.

    route (b, r, 2) world points about 1 m apart, NaN-padded; poses (b, f, 3) -> (b, f, x, y) float32 of 0 and 1.
    """
    return F.max_pool2d(mark_columns(*columns_at(route, poses, grid), grid), 5, 1, 2)


def build_context(
    *,
    static: Tensor,
    users: RoadUsers,
    then: Sequence[RoadUsers],
    pose: Tensor,
    seconds: Tensor,
    route: Tensor | None,
    grid: Grid,
) -> Context:
    """Put the known parts together.

    Args:
        static: (b, f, x, y, z) uint8, the record in each future frame.
        users: the road users of b worlds now.
        then: f of them: where the same slots are in each future frame.
        pose: (b, f, 3) world poses of the ego in the future frames.
        seconds: (f,) how far ahead they are [s].
        route: (b, r, 2) world points [m], NaN-padded, or None where no route is given.
        grid: the voxel grid.

    """
    b, f = pose.shape[:2]
    shape = (b, f, *grid.shape[:2])
    prior, parts = [], []
    for k, later in enumerate(then):
        at = pose[:, k]
        before, owner = column_owners(users, at, grid), column_owners(later, at, grid)
        height = _of_owner(before, users.size[..., 2:] / grid.voxel / 4)[..., 0]
        way = rotate(
            (later.now - users.now)[..., :2], -at[:, None, 2].to(users.now).expand(later.valid.shape)
        )
        flow = _of_owner(owner, (way / seconds[k] / 10).float())
        parts.append(torch.stack(((before >= 0).float(), height, flow[..., 0], flow[..., 1]), dim=1))
        prior.append(paint_road_users(static[:, k], later, at, grid))
    lane = route_mask(route, pose, grid) if route is not None else torch.zeros(shape, device=pose.device)
    ahead = seconds.view(1, f, 1, 1).expand(shape)
    auxiliary = torch.cat((torch.stack(parts, dim=1), torch.stack((lane, ahead), dim=2)), dim=2)
    return Context(static=static, prior=torch.stack(prior, dim=1), auxiliary=auxiliary)


def _of_owner(owner: Tensor, values: Tensor) -> Tensor:
    """What is said of the road users that have the columns: owner (b, x, y), values (b, n, c) -> (b, x, y, c)."""
    index = owner.clamp(min=0).flatten(1)[..., None].expand(-1, -1, values.shape[-1])
    found = values.gather(1, index).view(*owner.shape, -1)
    return found * (owner >= 0)[..., None]


def unseen(static: Tensor) -> Tensor:
    """Columns without a record: (..., x, y, z) uint8 -> (..., x, y) bool."""
    return (static == UNSEEN).any(dim=-1)
