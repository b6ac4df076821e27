"""Errors of histories, to learn from: off the way, as a rollout strays, and along it, as a measurement is off."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from occsora_sim.geometry import compose
from occsora_sim.models.traffic_motion import STANDS
from occsora_sim.road_users import RoadUsers


def nudge(users: RoadUsers, ego: Tensor, far: float, rng: np.random.Generator) -> RoadUsers:
    """In half of the worlds histories of those that move end beside their way, by `far` [m, standard deviation],
    farther the nearer to the present. The ego's, (b, n) bool, does not.
    """
    b, n, h = users.present.shape
    noise = torch.from_numpy(rng.standard_normal((3, b, n)))
    some = torch.from_numpy(rng.random((b, 1)) < 0.5) & (users.travel > STANDS) & ~ego
    small = torch.where(users.size[..., 0] < 2.5, 0.5, 1.0)
    aside = noise[0] * far * small * some
    turn = (noise[1] * 0.03 + aside * noise[2].abs() * 0.1) * some
    share = torch.linspace(0, 1, h, dtype=torch.float64)
    aside, turn = aside[..., None] * share, turn[..., None] * share
    return _moved(users, torch.stack((torch.zeros_like(aside), aside, turn), dim=-1))


def blur(users: RoadUsers, ego: Tensor, most: float, rng: np.random.Generator) -> tuple[RoadUsers, Tensor]:
    """In half of the worlds each pose is off along its way by up to `most` [m, standard deviation], a fifth of it if
    one stands; the ego's, (b, n) bool, is not. Nobody that moves seems to stand or to reverse by that.

    Returns:
        the road users, and (b, n) bool whose histories are off.

    """
    b, n, h = users.present.shape
    world = torch.from_numpy(rng.random((b, 1)) * (rng.random((b, 1)) < 0.5)) * most
    travel = users.travel
    deviation = torch.where(travel < STANDS, world / 5, world.minimum(travel / 6)) * ~ego
    along = torch.from_numpy(rng.standard_normal((b, n, h))).clamp(-2, 2) * deviation[..., None]
    nothing = torch.zeros_like(along)
    return _moved(users, torch.stack((along, nothing, nothing), dim=-1)), deviation > 0


def _moved(users: RoadUsers, off: Tensor) -> RoadUsers:
    """With poses off by (b, n, h, 3), in their own frames, where they are present."""
    return replace(users, pose=compose(users.pose, off * users.present[..., None]))
