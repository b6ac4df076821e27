"""Scripts of road users in generated worlds: poses that some follow for a while, before the model moves them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from occsora_sim.grid import FRAME_SECONDS
from occsora_sim.road_users import RoadUsers
from occsora_sim.scenes.start import Start


@dataclass(frozen=True, kw_only=True)
class Scripts:
    """What is scripted in b worlds, for s road users each.

    Attributes:
        id: (b, s) int64, of the road users; -1 where there is none.
        pose: (b, s, f, 3) float64, world poses at the frames since the start, NaN from where a script ends: the last
            one always is.

    """

    id: Tensor
    pose: Tensor

    @staticmethod
    def of(starts: Sequence[Start], device: torch.device) -> Scripts:
        """The scripts of `starts`; with s = 0 where nobody has one."""
        users = max(len(start.scripts) for start in starts)
        frames = max((len(poses) for start in starts for poses in start.scripts.values()), default=0)
        identity = torch.full((len(starts), users), -1, dtype=torch.int64)
        pose = torch.full((len(starts), users, frames + 1, 3), math.nan, dtype=torch.float64)
        for row, start in enumerate(starts):
            for place, (track, poses) in enumerate(start.scripts.items()):
                identity[row, place], pose[row, place, : len(poses)] = track, poses
        return Scripts(id=identity.to(device), pose=pose.to(device))

    def map(self, change: Callable[[Tensor], Tensor]) -> Scripts:
        """Every tensor changed in the same way."""
        return Scripts(id=change(self.id), pose=change(self.pose))

    def padded(self, users: int, frames: int) -> Scripts:
        """With room for so many."""
        more, later = users - self.id.shape[1], frames - self.pose.shape[2]
        return Scripts(
            id=F.pad(self.id, (0, more), value=-1),
            pose=F.pad(self.pose, (0, 0, 0, later, 0, more), value=math.nan),
        )

    def follow(self, users: RoadUsers, frame: Tensor) -> RoadUsers:
        """Road users who have just moved, with those that are scripted where they shall be instead.

        Args:
            users: of b worlds, newest pose last.
            frame: (b,) int64, frames drawn since the start before this one.

        """
        if not self.id.shape[1]:
            return users
        last = self.pose.shape[2] - 1
        at = frame.clamp(max=last)[:, None, None, None].expand(-1, self.id.shape[1], 1, 3)
        pose = self.pose.gather(2, at)[:, :, 0]  # (b, s, 3)
        same = (users.id[:, :, None] == self.id[:, None]) & pose[:, None, :, 0].isfinite()  # (b, n, s)
        mine = same.any(-1, keepdim=True)
        slot = same.int().argmax(-1, keepdim=True).expand(-1, -1, 3)
        now = torch.where(mine, pose.gather(1, slot), users.now)
        step = (now - users.pose[:, :, -2])[..., :2] / FRAME_SECONDS
        return replace(
            users,
            pose=torch.cat((users.pose[:, :, :-1], now[:, :, None]), dim=2),
            velocity=torch.where(mine, step.to(users.velocity), users.velocity),
        )


def alike(*groups: Scripts) -> list[Scripts]:
    """Groups with room for as many road users and frames as the largest."""
    users = max(group.id.shape[1] for group in groups)
    frames = max(group.pose.shape[2] for group in groups)
    return [group.padded(users, frames) for group in groups]
