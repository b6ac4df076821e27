"""How an action is drawn from what a road user has seen: as tokens, one of each of two numbers.

A flow from a learned prior was raced against it at equal minutes and lost (lab book, 2026-11-29).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from occsora_sim.counter_random import choice_from, uniform
from occsora_sim.models.traffic_motion import Motion

TOKENS, NUMBERS = 102, 5
"""Use of random numbers (`counter_random`), and how many of them an action takes."""

TEMPERATURE = 0.6
"""Temperature of how much farther one comes: the likelier is likelier still. By itself a network of an hour's training
brakes and lets go by turns where drivers do one or the other, and everybody is slowed down by that (lab book,
2026-11-30)."""


def _edges(largest: float, smallest: float, count: int) -> Tensor:
    """Edges of 2 `count` + 1 bins from -largest to largest; the middle one, `smallest` to either side, is no action."""
    side = smallest * (largest / smallest) ** (torch.arange(count + 1) / count)
    return torch.cat((-side.flip(0), side))


def _middles(edges: Tensor) -> Tensor:
    return (edges[1:] + edges[:-1]) / 2


def _bins(edges: Tensor) -> Tensor:
    """The lower edges and the widths of bins, (bins, 2); nothing of the middle one, so that it is exactly no action."""
    bins = torch.stack((edges[:-1], edges.diff()), dim=-1)
    bins[len(bins) // 2] = 0.0
    return bins


class TokenHead(nn.Module):
    """Whether a road user stands, exactly, by a gate; else two tokens: how much farther it comes, how far it turns.

    Bins widen away from nothing; the middle one of each is exactly nothing, so who goes on goes on evenly.
    """

    more: Tensor
    turn: Tensor
    more_bins: Tensor
    turn_bins: Tensor

    def __init__(self, hidden: int) -> None:
        super().__init__()
        for name, edges in (("more", _edges(4.0, 0.01, 24)), ("turn", _edges(3.1, 0.002, 24))):
            self.register_buffer(name, edges, persistent=False)
            self.register_buffer(f"{name}_bins", _bins(edges), persistent=False)
        bins = len(self.more) - 1
        self.gate = nn.Linear(hidden, 1)
        self.first = nn.Sequential(nn.Linear(hidden, 128), nn.GELU(), nn.Linear(128, bins))
        self.chosen = nn.Embedding(bins, hidden)
        self.second = nn.Sequential(nn.Linear(hidden, 128), nn.GELU(), nn.Linear(128, len(self.turn) - 1))

    def loss(self, seen: Tensor, motion: Motion, mask: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss of recorded motions under `seen` (m, hidden), where `mask` (m,) counts."""
        gate = F.binary_cross_entropy_with_logits(
            self.gate(seen)[..., 0], motion.stand.float(), reduction="none"
        )
        gate = (gate * mask).sum() / mask.sum().clamp(min=1)
        goes = (mask & ~motion.stand).float()
        first, second = self._bin(motion.more, self.more), self._bin(motion.turn, self.turn)
        more = F.cross_entropy(self.first(seen), first, reduction="none")
        turn = F.cross_entropy(self.second(seen + self.chosen(first)), second, reduction="none")
        count = goes.sum().clamp(min=1)
        more, turn = (more * goes).sum() / count, (turn * goes).sum() / count
        return gate + 0.5 * (more + turn), {
            "gate": gate.detach(),
            "more": more.detach(),
            "turn": turn.detach(),
        }

    @staticmethod
    def luck(key: Tensor, n: int) -> Tensor:
        """What chance has to say of n road users: uniform numbers (..., b, n, 5) from keys (..., b, 2)."""
        return uniform(key, TOKENS, n, NUMBERS)

    def sample(self, seen: Tensor, luck: Tensor) -> Motion:
        """Draw motions (..., b, n) from `seen` (b, n, hidden) with `luck` for as many."""
        gate, more, turn, in_more, in_turn = luck.unbind(-1)
        first = choice_from(self.first(seen) / TEMPERATURE, more)
        second = choice_from(self.second(seen + self.chosen(first)), turn)
        return Motion(
            more=self._value(first, self.more_bins, in_more),
            turn=self._value(second, self.turn_bins, in_turn),
            stand=gate < torch.sigmoid(self.gate(seen)[..., 0]),
        )

    def mean(self, seen: Tensor) -> Motion:
        """The means of both tokens, the second given the likeliest first; who stands more likely than not stands."""
        logits = self.first(seen)
        more = (logits.softmax(-1) * _middles(self.more)).sum(-1)
        turn = (self.second(seen + self.chosen(logits.argmax(-1))).softmax(-1) * _middles(self.turn)).sum(-1)
        return Motion(more=more, turn=turn, stand=self.gate(seen)[..., 0] > 0)

    @staticmethod
    def _bin(value: Tensor, edges: Tensor) -> Tensor:
        return torch.bucketize(value.contiguous(), edges[1:-1])

    @staticmethod
    def _value(index: Tensor, bins: Tensor, within: Tensor) -> Tensor:
        low, width = F.embedding(index, bins).unbind(-1)
        return low + within * width
