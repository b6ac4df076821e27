"""Where an ego will be that follows its route."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def poses_along(route: Tensor, pose: Tensor, reach: float, stride: float) -> Tensor:
    """Poses every `stride` [m] along routes from the point nearest to an ego on, up to `reach` [m].

    Args:
        route: (b, r, 2) world points [m], NaN-padded.
        pose: (b, 3) world poses of the egos.
        reach: [m].
        stride: [m].

    Returns:
        (b, k, 3) float32, headed along the route; where a route has ended its last pose, without one the ego's.

    """
    way = route[:, 1:] - route[:, :-1]
    there = torch.isfinite(way).all(-1)
    length = way.norm(dim=-1).masked_fill(~there, 0.0)
    travelled = F.pad(length.cumsum(1), (1, 0))  # (b, r)
    away = (route - pose[:, None, :2]).norm(dim=-1).nan_to_num(torch.inf)
    begin = travelled.gather(1, away.argmin(1, keepdim=True))
    wanted = begin + stride * torch.arange(1, int(reach / stride) + 1, device=route.device)  # (b, k)
    last = there.sum(1, keepdim=True) - 1  # the last piece
    piece = torch.searchsorted(travelled.contiguous(), wanted).sub(1)
    piece = torch.minimum(piece, last).clamp(min=0)[..., None].expand(-1, -1, 2)
    start, along = route.gather(1, piece), way.gather(1, piece)
    rest = wanted - travelled.gather(1, piece[..., 0])
    full = along.norm(dim=-1).clamp(min=1e-6)
    place = start + along * (rest / full).clamp(0, 1)[..., None]
    heading = torch.atan2(along[..., 1], along[..., 0])
    poses = torch.cat((place, heading[..., None]), dim=-1)
    return torch.where(poses.isfinite().all(-1, keepdim=True), poses, pose[:, None].to(poses))
