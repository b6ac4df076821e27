"""Two ways to draw an action from what a road user has seen: by a flow from a learned prior, or as tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from occsora_sim.constants import constant
from occsora_sim.counter_random import choice_from, normal_from, uniforms
from occsora_sim.models.traffic_motion import Motion

_GATE, _NOISE, _TOKENS = range(100, 103)  # uses of random numbers

_SCALE = (0.25, 0.08)
"""About what actions deviate from nothing by: `more` [m], `turn` [rad]."""


def _squeeze(action: Tensor) -> Tensor:
    """Actions (..., 2) on a scale on which both the smallest and the largest ones can be told apart."""
    return torch.asinh(action / constant(_SCALE, action.device) * 4) / 2


def _unsqueeze(squeezed: Tensor) -> Tensor:
    return torch.sinh(squeezed * 2) / 4 * constant(_SCALE, squeezed.device)


class FlowHead(nn.Module):
    """Whether a road user stands, exactly, by a gate; else an action by flow matching (Lipman et al. 2023).

    The flow begins at a Gaussian that the road user's own feature gives, not at N(0, 1): a few steps are enough then
    (FlowS, VectorWorld: few-step sampling is good where the base lies near the data).
    """

    steps = 4

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.gate = nn.Linear(hidden, 1)
        self.prior = nn.Linear(hidden, 4)
        self.condition = nn.Linear(hidden, 128)
        last = nn.Linear(256, 2)
        nn.init.zeros_(last.weight)
        self.net = nn.Sequential(nn.Linear(128 + 2 + 8, 256), nn.GELU(), nn.Linear(256, 256), nn.GELU(), last)

    def base(self, seen: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and spread (..., 2) of the Gaussian that the flow begins at."""
        mean, spread = self.prior(seen).chunk(2, dim=-1)
        return mean, F.softplus(spread) + 0.02

    def velocity(self, z: Tensor, t: Tensor, seen: Tensor) -> Tensor:
        """The flow's velocity at z (..., 2) and time t (..., 1) in [0, 1], from base to data."""
        return self._velocity(z, t, *self.base(seen), self.condition(seen))

    def _velocity(self, z: Tensor, t: Tensor, mean: Tensor, spread: Tensor, condition: Tensor) -> Tensor:
        mean, spread = mean.detach(), spread.detach()
        # Its straight part is known from the base; the network has only to say what bends it.
        turns = torch.pi * t * constant((1.0, 2.0, 3.0, 4.0), t.device)
        waves = torch.stack((turns.cos(), turns.sin()), dim=-1).flatten(-2)
        parts = (part.expand(*z.shape[:-1], -1) for part in (condition, (z - mean) / spread, waves))
        inner = torch.cat(tuple(parts), dim=-1)
        return self.net(inner) * spread

    def loss(
        self, seen: Tensor, motion: Motion, mask: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss of recorded motions under `seen` (m, hidden), where `mask` (m,) counts."""
        gate = F.binary_cross_entropy_with_logits(
            self.gate(seen)[..., 0], motion.stand.float(), reduction="none"
        )
        gate = (gate * mask).sum() / mask.sum().clamp(min=1)
        goes = mask & ~motion.stand
        x = _squeeze(torch.stack((motion.more, motion.turn), dim=-1))
        mean, spread = self.base(seen)
        nll = (0.5 * ((x - mean) / spread) ** 2 + spread.log()).sum(-1)
        t = torch.rand(len(x), 1, generator=generator).to(x)
        z0 = (mean + spread * torch.randn(x.shape, generator=generator).to(x)).detach()
        target = x - z0
        bend = self.velocity((1 - t) * z0 + t * x, t, seen)
        flow = ((bend - target) ** 2 / spread.detach() ** 2).sum(-1)
        count = goes.sum().clamp(min=1)
        nll, flow = (nll * goes).sum() / count, (flow * goes).sum() / count
        return gate + 0.2 * nll + flow, {"gate": gate.detach(), "nll": nll.detach(), "flow": flow.detach()}

    def luck(self, key: Tensor, n: int) -> list[Tensor]:
        """What chance has to say of n road users: uniform numbers (..., b, n, *) from keys (..., b, 2)."""
        return uniforms(key, {_GATE: (n,), _NOISE: (n, 2)})

    def sample(self, seen: Tensor, luck: Sequence[Tensor]) -> Motion:
        """Draw motions (..., b, n) from `seen` (b, n, hidden) with `luck` for as many."""
        gate, noise = luck
        mean, spread = self.base(seen)
        z = mean + spread * normal_from(noise[..., None])
        return self._follow(z, seen, gate < torch.sigmoid(self.gate(seen)[..., 0]))

    def mean(self, seen: Tensor) -> Motion:
        """The motion that the flow leads to from the middle of its base; who stands more likely than not stands."""
        return self._follow(self.base(seen)[0], seen, self.gate(seen)[..., 0] > 0)

    def _follow(self, z: Tensor, seen: Tensor, stand: Tensor) -> Motion:
        """Euler's method along the flow from z (..., b, n, 2)."""
        known = *self.base(seen), self.condition(seen)
        for k in range(self.steps):
            z = z + self._velocity(z, z.new_full((1,), k / self.steps), *known) / self.steps
        more, turn = _unsqueeze(z).unbind(-1)
        return Motion(more=more.clamp(-4, 4), turn=turn.clamp(-3.1, 3.1), stand=stand)


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

    def loss(
        self, seen: Tensor, motion: Motion, mask: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor]]:
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

    def luck(self, key: Tensor, n: int) -> list[Tensor]:
        """What chance has to say of n road users: uniform numbers (..., b, n, *) from keys (..., b, 2)."""
        return uniforms(key, {_TOKENS: (n, 5)})

    def sample(self, seen: Tensor, luck: Sequence[Tensor]) -> Motion:
        """Draw motions (..., b, n) from `seen` (b, n, hidden) with `luck` for as many."""
        gate, more, turn, in_more, in_turn = luck[0].unbind(-1)
        first = choice_from(self.first(seen), more)
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


HEADS: dict[str, Any] = {"flow": FlowHead, "tokens": TokenHead}
"""Heads by name."""
