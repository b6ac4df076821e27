"""Whether boxes seen from above overlap, for all pairs at once."""

from __future__ import annotations

import torch
from torch import Tensor

from occsora_sim.geometry import rotate


def grown(
    pose: Tensor, size: Tensor, speed: Tensor, beside: float, ahead: float, seconds: float
) -> tuple[Tensor, Tensor]:
    """Boxes with the room that road users keep.

    Args:
        pose: (..., 3) centres and headings [m, m, rad].
        size: (..., 2 or more) lengths and widths [m].
        speed: (...) [m/s].
        beside: added on either side [m].
        ahead: added in front and behind [m].
        seconds: how long a way at `speed` is added in front [s].

    Returns:
        poses (..., 3) and sizes (..., 2).

    """
    way = speed.to(pose) * seconds
    shift = rotate(torch.stack((way / 2, torch.zeros_like(way)), dim=-1), pose[..., 2])
    sides = size[..., :2].to(pose) + pose.new_tensor((2 * ahead, 2 * beside))
    sides = torch.stack((sides[..., 0] + way, sides[..., 1]), dim=-1)
    return torch.cat((pose[..., :2] + shift, pose[..., 2:]), dim=-1), sides


def overlap(pose: Tensor, size: Tensor, other_pose: Tensor, other_size: Tensor) -> Tensor:
    """Whether boxes of poses (b, n, 3) and sizes (b, n, 2) overlap others (b, m, 3) and (b, m, 2): (b, n, m) bool.

    Two rectangles are apart if an axis of either parts them (the separating axis theorem).
    """
    a, c = pose[:, :, None], other_pose[:, None]  # (b, n, 1, 3), (b, 1, m, 3)
    half, other = size[:, :, None] / 2, other_size[:, None] / 2
    turn = c[..., 2] - a[..., 2]  # (b, n, m)
    cos, sin = torch.cos(turn).abs()[..., None], torch.sin(turn).abs()[..., None]
    way = c[..., :2] - a[..., :2]

    def parted(yaw: Tensor, mine: Tensor, theirs: Tensor) -> Tensor:
        """Whether an axis of the boxes `mine`, which are turned by `yaw`, parts them."""
        apart = rotate(way, -yaw.expand(way.shape[:-1])).abs()
        return (apart > mine + cos * theirs + sin * theirs.flip(-1)).any(-1)

    return ~(parted(a[..., 2], half, other) | parted(c[..., 2], other, half))
