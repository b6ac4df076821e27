"""The road users of a recorded rollout: plain arrays over its frames."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from torch import Tensor

from occsora_sim.errors import SceneError
from occsora_sim.grid import NUM_CLASSES
from occsora_sim.road_users import RoadUsers

PREFIX = "road_user_"
"""Of the arrays' names in a file."""

_MOST, _REACH = 128, 64.0
"""Road users that a frame keeps at most, and how far they are from the ego at most [m]."""


@dataclass(frozen=True, kw_only=True)
class RecordedUsers:
    """The road users of t frames, up to n in each, nearest to the ego first.

    Attributes:
        pose: (t, n, 3) float32, world pose of the box's centre: x, y [m], yaw [rad].
        size: (t, n, 3) float32, length, width, height [m].
        label: (t, n) uint8, class label.
        id: (t, n) int64, the same from frame to frame; -1 where there are fewer.
        velocity: (t, n, 2) float32, over the ground, world frame [m/s].
        valid: (t, n) bool, whether there is one.

    """

    pose: np.ndarray
    size: np.ndarray
    label: np.ndarray
    id: np.ndarray
    velocity: np.ndarray
    valid: np.ndarray

    def __post_init__(self) -> None:
        kinds = {"pose": (3, "f4"), "size": (3, "f4"), "velocity": (2, "f4")}
        some = self.valid.shape
        for entry in fields(self):
            value = getattr(self, entry.name)
            last, kind = kinds.get(
                entry.name, (None, {"label": "u1", "id": "i8", "valid": "b1"}.get(entry.name))
            )
            shape = some if last is None else (*some, last)
            if len(some) != 2 or value.shape != shape or value.dtype != np.dtype(kind):
                raise SceneError(
                    f"rollout: {PREFIX}{entry.name} is {value.dtype} {value.shape}, expected {np.dtype(kind)} {shape}"
                )
            if value.dtype.kind == "f" and not np.isfinite(value).all():
                raise SceneError(f"rollout: {PREFIX}{entry.name} holds values that are not finite")
        if self.label.size and int(self.label.max()) >= NUM_CLASSES:
            raise SceneError(f"rollout: {PREFIX}label must hold labels below {NUM_CLASSES}")

    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays by their names in a file."""
        return {PREFIX + entry.name: getattr(self, entry.name) for entry in fields(self)}


def users_in(arrays: Mapping[str, np.ndarray]) -> RecordedUsers | None:
    """The road users among the arrays of a file; None where it holds none.

    Raises:
        SceneError: some of their arrays are missing, or not as they should be.

    """
    names = [entry.name for entry in fields(RecordedUsers)]
    found = [name for name in names if PREFIX + name in arrays]
    if found and len(found) < len(names):
        missing = ", ".join(PREFIX + name for name in names if name not in found)
        raise SceneError(f"rollout: it holds {PREFIX}{found[0]} but no {missing}")
    return RecordedUsers(**{name: arrays[PREFIX + name] for name in names}) if found else None


def record_users(users: RoadUsers, ego_pose: Tensor) -> RecordedUsers:
    """The road users of one world at the last f instants.

    Args:
        users: of one world, with f poses at least; with one more, velocities are known at all instants.
        ego_pose: (f, 3) world poses of the ego then.

    """
    f = len(ego_pose)
    instants = [users.earlier(f - 1 - k) for k in range(f)]
    each = users.instants(f)
    each = replace(each, velocity=torch.cat([one.velocity for one in instants]))
    near = each.nearest(ego_pose[:, :2].to(each.pose), _MOST, _REACH)
    most = int(near.valid.sum(1).max())
    near = near.map(lambda value: value[:, :most].cpu())
    valid = near.valid.numpy()
    return RecordedUsers(
        pose=(near.now.numpy() * valid[..., None]).astype(np.float32),
        size=near.size.numpy().astype(np.float32),
        label=near.label.numpy(),
        id=near.id.numpy(),
        velocity=near.velocity.numpy().astype(np.float32),
        valid=valid,
    )


def join_users(parts: Sequence[RecordedUsers]) -> RecordedUsers:
    """Frames behind one another, with as many places as the fullest has."""
    most = max(part.valid.shape[1] for part in parts)

    def joined(name: str) -> np.ndarray:
        out = []
        for part in parts:
            value = getattr(part, name)
            room = [(0, 0), (0, most - value.shape[1]), *[(0, 0)] * (value.ndim - 2)]
            out.append(np.pad(value, room, constant_values=-1 if name == "id" else 0))
        return np.concatenate(out)

    return RecordedUsers(**{entry.name: joined(entry.name) for entry in fields(RecordedUsers)})
