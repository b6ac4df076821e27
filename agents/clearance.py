"""How near each manoeuvre comes to road users that keep their velocity."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from occsora_sim.constants import constant
from occsora_sim.envs.manoeuvre import BRAKE, MANOEUVRES, OFFSET, PULL, SOON, SPEEDS
from occsora_sim.vehicle import Vehicle

TIMES = tuple(0.5 * k for k in range(1, 9))
"""When it is looked at [s]."""

FAR = 5.0
"""What is farther is as far as this [m]."""

_SIDEWAYS = 2.0  # how fast a car changes to the line of a manoeuvre, about [m/s]
_CAR = Vehicle()


def clearances(users: Tensor, along: Tensor, aside: Tensor, speed: Tensor) -> Tensor:
    """Room between the ego and the nearest road user ahead, for every manoeuvre at every time: (n, manoeuvres, times)
    [m], from -1, well into it, to FAR.

    All are boxes in the frame of the route, the others along it where they are turned. They keep their velocity, the
    ego, a car of the default size, changes to the manoeuvre's speed and line and keeps these. Nobody behind is looked
    at: whoever follows brakes.

    Args:
        users: (n, m, *) as they are observed.
        along: (n, m, 6), their places in the frame of the route (`driving_policy.along_route`).
        aside: (n,) how far left of the route the ego is [m].
        speed: (n,) of the ego [m/s].

    """
    device, time = users.device, constant(TIMES, users.device)
    kept = speed[:, None].expand(-1, len(MANOEUVRES) - len(SPEEDS))  # what goes left or right keeps its speed
    wanted = torch.cat((constant(SPEEDS, device).expand(len(speed), -1), kept), dim=1)
    missing = (wanted - speed[:, None])[..., None]
    pull = (missing / SOON).clamp(BRAKE, PULL)
    spent = torch.minimum(time, (missing / pull).nan_to_num(0.0))  # until it has that speed
    ahead = speed[:, None, None] * time + pull * spent * (time - spent / 2)  # (n, manoeuvres, times)
    ahead = ahead + (_CAR.front + _CAR.rear) / 2  # of the middle of the car
    aside, step = aside[:, None, None], _SIDEWAYS * time
    left = aside + (constant(OFFSET, device)[:, None] - aside).clamp(-step, step)
    place, velocity, (cos, sin) = along[..., :2], along[..., 2:4], along[..., 4:].abs().unbind(-1)
    long, wide = users[..., 7], users[..., 8]
    size = torch.stack((cos * long + sin * wide, sin * long + cos * wide), dim=-1)
    half = (size + constant((_CAR.length, _CAR.width), device)) / 2
    there = place[..., None, :] + velocity[..., None, :] * time[:, None]  # (n, m, times, 2)
    apart = [
        (there[:, :, None, :, k] - mine[:, None]).abs() - half[:, :, None, None, k]
        for k, mine in enumerate((ahead, left))
    ]
    room = torch.maximum(*apart)  # (n, m, manoeuvres, times)
    unseen = (users[..., 0] <= 0) | (place[..., 0] < 0)
    room = room.masked_fill(unseen[:, :, None, None], math.inf)
    return room.amin(dim=1).clamp(-1.0, FAR)
