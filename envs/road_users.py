"""The observation "road_users": who is around the ego, nearest first, and who is who."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from gymnasium import spaces
from torch import Tensor

from occsora_sim.constants import constant
from occsora_sim.errors import ConfigurationError
from occsora_sim.geometry import rotate
from occsora_sim.grid import NUM_CLASSES
from occsora_sim.road_users import FEATURES, RoadUsers

REACH = 64.0
"""Road users up to this distance from the ego are told [m]."""

BOUNDS = np.array([1, REACH, REACH, 1, 1, 100, 100, 50, 50, NUM_CLASSES - 1], dtype=np.float32)
"""Largest values: valid, x, y [m], cos and sin of the yaw, velocity [m/s], length and width [m], label."""

_SIGNED = np.array([0, 1, 1, 1, 1, 1, 1, 0, 0, 0], dtype=np.float32)


def road_users_space(count: int) -> spaces.Box:
    """(count, FEATURES) float32.

    Raises:
        ConfigurationError: `count` is no whole number from 1 on.

    """
    if isinstance(count, bool) or not isinstance(count, int | np.integer) or count < 1:
        raise ConfigurationError(f"road_users={count!r}: must be a whole number, 1 or more")
    high = np.tile(BOUNDS, (int(count), 1))
    return spaces.Box(-high * _SIGNED, high, dtype=np.float32)


def observe_road_users(users: RoadUsers | None, ego: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` road users nearest to the egos at `ego` (b, 3), and their ids.

    Returns:
        (b, count, FEATURES) float32 in the ego frame, zero where there are fewer, and
        (b, count) int64 ids, -1 there.

    Raises:
        ConfigurationError: the world does not tell road users apart.

    """
    if users is None:
        raise ConfigurationError(
            'observation "road_users": this world tells no road users apart; observe "occupancy" or "birdseye", or '
            'drive in tracked scenes with world="replay" or "traffic"'
        )
    seen, distance = _features(users, ego.double()), (users.now[..., :2] - ego[:, None, :2]).norm(dim=-1)
    distance = distance.masked_fill(~(users.valid & (distance <= REACH)), torch.inf)
    distance, slots = (value[:, :count] for value in distance.sort(dim=1, stable=True))
    there = distance < torch.inf
    seen = seen.gather(1, slots[..., None].expand(*slots.shape, FEATURES)) * there[..., None]
    ids = users.id.gather(1, slots).masked_fill(~there, -1)
    if (missing := count - slots.shape[1]) > 0:
        seen, ids = F.pad(seen, (0, 0, 0, missing)), F.pad(ids, (0, missing), value=-1)
    low, high = (constant(tuple(bound.tolist()), ego.device) for bound in (-BOUNDS * _SIGNED, BOUNDS))
    return seen.float().clamp(low, high), ids


def _features(users: RoadUsers, ego: Tensor) -> Tensor:
    """What is told of each slot, valid or not: (b, n, FEATURES) float64, seen from `ego` (b, 3) float64."""
    here, yaw = ego[:, None, :2], ego[:, None, 2]
    seen = rotate(
        torch.stack((users.now[..., :2] - here, users.velocity.double())), -yaw
    )  # both in the ego frame
    turn = users.now[..., 2:] - yaw[..., None]
    parts = (
        torch.ones_like(turn), seen[0], turn.cos(), turn.sin(), seen[1], users.size[..., :2].double(),
        users.label[..., None].double(),
    )  # fmt: skip
    return torch.cat(parts, dim=-1)
