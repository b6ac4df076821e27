"""Where an episode begins: the last frames seen, and the route to follow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True, kw_only=True)
class Start:
    """Where an episode begins: what was seen until now, and the route to follow.

    Attributes:
        occupancy: (t, x, y, z) uint8 labels of the last frames, oldest first, each in its own ego frame.
        ego_pose: (t, 3) float32 world poses of these frames: x, y [m], yaw [rad].
        route: (r, 2) float32 polyline in the world frame [m], from behind the ego to the goal.
        name: for reports.
        source: what a world that is not generated replays: (scene, ego index, time index) for the others.

    """

    occupancy: torch.Tensor
    ego_pose: torch.Tensor
    route: torch.Tensor
    name: str = "scene"
    source: Any = None
