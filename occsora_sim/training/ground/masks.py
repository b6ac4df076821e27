"""What is known of a window when a tile of it is to be drawn: the masks that training makes, as driving leaves them."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def known_ground(count: int, side: int, tile: int, view: float, generator: torch.Generator) -> Tensor:
    """Random masks (count, side, side) bool of what is known before a tile in the middle is drawn.

    - a tenth: nothing, where a world begins from nothing;
    - half: one or two squares of `view` tokens, what an ego saw from where it stood and a little later: ground is new
      ahead, to the sides, round a corner. Three in five lie along the axes, as the first view of a world does;
    - the others: tiles on some sides of the middle one, drawn before it, and perhaps a square of what was seen.
    """

    def uniform(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator)

    axis = torch.arange(side) - (side - 1) / 2
    place = torch.stack(torch.meshgrid(axis, axis, indexing="ij"), dim=-1)  # (x, y, 2)
    what = uniform(count)
    along = uniform(count) < 0.6
    yaw = torch.where(along, (uniform(count) * 4).floor() * math.pi / 2, uniform(count) * 2 * math.pi)
    # The view's rim crosses the window: its middle lies about half a view away from somewhere inside.
    rim = (uniform(count) - 0.4) * side
    ahead = torch.stack((view / 2 + rim, (uniform(count) - 0.5) * 1.2 * view), dim=-1)
    first = _square(place, ahead, yaw, view)
    bend = (uniform(count) - 0.5) * 1.5
    later = ahead + torch.stack(
        (-uniform(count) * 0.4 * view * torch.cos(bend), 0.4 * view * torch.sin(bend)), dim=-1
    )
    second = _square(place, later, yaw + bend, view)
    seen = first | (second & (uniform(count) < 0.4)[:, None, None])
    tiles = ((place + tile / 2) / tile).floor()  # (x, y, 2), the middle one is 0
    direction = uniform(count) * 2 * math.pi
    normal = torch.stack((direction.cos(), direction.sin()), dim=-1)
    beside = torch.einsum("x y c, b c -> b x y", tiles, normal) > (uniform(count)[:, None, None] * 2 - 0.7)
    drawn = beside & (tiles != 0).any(-1)
    drawn = drawn | (seen & (uniform(count) < 0.3)[:, None, None] & (tiles != 0).any(-1))
    known = torch.where((what < 0.6)[:, None, None], seen, drawn)
    return known & (what >= 0.1)[:, None, None]


def shown_ground(known: Tensor, tile: int, generator: torch.Generator) -> Tensor:
    """`known` (b, x, y) with some of the other tokens in sight too, as halfway through the drawing: in half of the
    windows only tokens of the tile.
    """
    count, side = known.shape[:2]
    share = 1 - torch.cos(torch.rand(count, generator=generator) * math.pi / 2)
    shown = torch.rand(known.shape, generator=generator) < share[:, None, None]
    edge = (side - tile) // 2
    inside = torch.zeros(side, side, dtype=torch.bool)
    inside[edge : edge + tile, edge : edge + tile] = True
    anywhere = torch.rand(count, generator=generator) < 0.5
    return known | (shown & (inside | anywhere[:, None, None]))


def _square(place: Tensor, middle: Tensor, yaw: Tensor, side: float) -> Tensor:
    """Whether places (x, y, 2) lie in squares of `side` with a middle (b, 2), in the squares' own frames, turned by
    `yaw` (b,): (b, x, y) bool.
    """
    cos, sin = yaw.cos()[:, None, None], yaw.sin()[:, None, None]
    x = cos * place[..., 0] + sin * place[..., 1] + middle[:, 0, None, None]
    y = -sin * place[..., 0] + cos * place[..., 1] + middle[:, 1, None, None]
    return (x.abs() < side / 2) & (y.abs() < side / 2)
