"""The marks of an entry: of which class it is, where in its cell, heading where, how fast."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from occsora_sim.constants import constant
from occsora_sim.counter_random import choice_from
from occsora_sim.grid import DYNAMIC
from occsora_sim.models.entry_view import GROUPS, group_of
from occsora_sim.models.one_hot import one_hot

HEADINGS = 16
"""Bins of the heading; the first is centred on straight ahead."""

STANDS = 0.05
"""Who is slower stands [m/s]: exactly."""

SPEEDS = (
    STANDS, 0.5, 0.8, 1.0, 1.2, 1.4, 1.7, 2.2, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0, 12.0, 13.0, 14.0, 16.0,
    18.0, 20.0, 22.0, 25.0, 28.0, 32.0, 36.0, 42.0,
)  # fmt: skip
"""Edges of the bins of the speed [m/s]; below the first is the atom of those that stand."""

_PACES = tuple(zip((0.0, *SPEEDS), (*SPEEDS, SPEEDS[-1]), strict=True))  # what the bins begin and end with

_SUB = 4
"""Parts of a cell's edge: places are drawn to a column's width."""

_TURN = 2 * math.pi / HEADINGS
"""Width of a bin of the heading [rad]."""

NUMBERS = 7
"""Uniform numbers that the marks of an entry are drawn by: class, part of its cell, where in it (two), heading, speed,
and where in its bin."""


class Marks(nn.Module):
    """Three small networks that tell the marks of one entry, one after another: each is given those before it.

    Args:
        features: numbers that describe a cell.
        width: of the networks.

    """

    groups: Tensor

    def __init__(self, features: int, width: int) -> None:
        super().__init__()
        kinds = len(DYNAMIC)

        def network(given: int, out: int) -> nn.Sequential:
            return nn.Sequential(nn.Linear(features + given, width), nn.GELU(), nn.Linear(width, out))

        self.where = network(len(GROUPS), kinds + _SUB**2)
        self.heading = network(kinds + 2, 2 * HEADINGS)
        self.speed = network(kinds + 4, len(SPEEDS))
        of_group = F.one_hot(group_of(torch.tensor(DYNAMIC)), len(GROUPS)).T.bool()
        self.register_buffer("groups", of_group, persistent=False)

    def loss(self, f: Tensor, kind: Tensor, part: Tensor, yaw: Tensor, speed: Tensor) -> dict[str, Tensor]:
        """Negative log likelihood [nats] of m entries, each (m,): of the class, the place, the heading and the speed,
        and the error of the heading within its bin.

        Args:
            f: (m, f) features of their cells.
            kind: (m,) index in DYNAMIC.
            part: (m, 2) where in their cells they are, 0 to 1.
            yaw: (m,) [rad].
            speed: (m,) [m/s], 0 for those that stand.

        """
        named = one_hot(kind, len(DYNAMIC))
        which, place, heading, turn = self._posed(f, kind, part, yaw)
        pace = torch.bucketize(speed, constant(SPEEDS, speed.device), right=True).clamp(max=len(SPEEDS) - 1)
        return {
            "class": F.cross_entropy(which, kind, reduction="none"),
            "place": place,
            "heading": heading,
            "turn": turn,
            "speed": F.cross_entropy(self._speed(f, named, part, yaw), pace, reduction="none"),
        }

    def along(self, f: Tensor, kind: Tensor, part: Tensor, yaw: Tensor) -> Tensor:
        """As `loss`, of m entries of which place and heading alone are known, (m,)."""
        return torch.stack(self._posed(f, kind, part, yaw)[1:]).sum(0)

    def _posed(
        self, f: Tensor, kind: Tensor, part: Tensor, yaw: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Logits of the class; the parts of `loss` that are about place and heading."""
        which, where = self._where(f, group_of(constant(DYNAMIC, kind.device, torch.uint8)[kind]))
        column = (part * _SUB).long().clamp(0, _SUB - 1)
        bins, rest = self._heading(f, one_hot(kind, len(DYNAMIC)), part)
        turn = (yaw / _TURN).round()
        at = turn.long() % HEADINGS
        off = rest.gather(1, at[:, None])[:, 0] - (yaw / _TURN - turn)
        return (
            which,
            F.cross_entropy(where, column[:, 0] * _SUB + column[:, 1], reduction="none"),
            F.cross_entropy(bins, at, reduction="none"),
            10 * F.huber_loss(off, torch.zeros_like(off), reduction="none", delta=0.2),
        )

    def draw(self, f: Tensor, group: Tensor, drawn: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Draw the marks of entries with features (b, k, f) and groups (b, k) by uniform numbers (b, k, NUMBERS).

        Returns:
            kind (b, k) int64, index in DYNAMIC; part of the cell (b, k, 2), 0 to 1; yaw [rad] and speed [m/s] (b, k).

        """
        for_kind, for_sub, x, y, for_turn, for_pace, within = drawn.unbind(-1)
        which, where = self._where(f, group)
        kind, sub = choice_from(which, for_kind), choice_from(where, for_sub)
        part = torch.stack((sub // _SUB + x, sub % _SUB + y), dim=-1) / _SUB
        named = one_hot(kind, len(DYNAMIC))
        bins, rest = self._heading(f, named, part)
        turn = choice_from(bins, for_turn)
        yaw = (turn + rest.gather(-1, turn[..., None])[..., 0]) * _TURN
        pace = choice_from(self._speed(f, named, part, yaw), for_pace)
        low, up = F.embedding(pace, constant(_PACES, f.device)).unbind(-1)
        speed = (low + (up - low) * within).masked_fill(pace <= 0, 0.0)
        return kind, part, yaw, speed

    def _where(self, f: Tensor, group: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of the class, of those of the group (...), and of the part of the cell."""
        out = self.where(torch.cat((f, one_hot(group, len(GROUPS))), dim=-1)).float()
        which, where = out.split((len(DYNAMIC), _SUB**2), dim=-1)
        return which.masked_fill(~self.groups[group], -1e9), where

    def _heading(self, f: Tensor, named: Tensor, part: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of the bins of the heading, and how far off the middle of each it lies [bins]."""
        bins, rest = self.heading(torch.cat((f, named, part * 2 - 1), dim=-1)).float().chunk(2, dim=-1)
        return bins, rest.tanh()

    def _speed(self, f: Tensor, named: Tensor, part: Tensor, yaw: Tensor) -> Tensor:
        """Logits of the bins of the speed, of those that head along `yaw` (...)."""
        ahead = torch.stack((yaw.cos(), yaw.sin()), dim=-1)
        return self.speed(torch.cat((f, named, part * 2 - 1, ahead), dim=-1)).float()
