"""Paces: how much further, or less far, a road user on wheels goes than is foretold: drawn.

The motion estimator foretells the middle of what may come. A car that creeps creeps on in it, chunk after chunk, where
a real one drives off or stops: the middle of both is neither, and traffic that follows it dies down. So for each that
is foretold to move, a small network says how probable each difference is; a drawn future draws one, as a constant
acceleration over the chunk, which the next chunk's history shows.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from occsora_sim.grid import Grid
from occsora_sim.models.road_users import GEOMETRY, RoadUsers, describe, moves

EDGES = (
    -8.0, -4.0, -2.5, -1.6, -1.0, -0.6, -0.35, -0.2, -0.1, 0.1, 0.2, 0.35, 0.6, 1.0, 1.6, 2.5, 4.0, 6.0,
)  # fmt: skip
"""Bounds of the classes of differences at the end of a chunk [m]; within one they are drawn evenly."""


def moving_vehicles(displacement: Tensor, image: Tensor) -> RoadUsers:
    """The road users on wheels that are foretold to move; arguments as for `standing_road_users`."""
    every = RoadUsers.of_image(image)
    return every.select(moves(every.of(displacement)) & ~every.walks)


def further(way: Tensor, foretold: Tensor) -> Tensor:
    """How much further (m,) [m] ways (m, f, 2) lead than the `foretold` (m, f, 2), in the direction of those."""
    length = foretold[:, -1].norm(dim=-1)
    return (way[:, -1] * foretold[:, -1]).sum(-1) / length.clamp(min=1e-6) - length


class Paces(nn.Module):
    """Probabilities of the differences, road user by road user.

    Args:
        channels: c, of the motion estimator's features.
        width: of the network.

    """

    edges: Tensor

    def __init__(self, channels: int, width: int = 128) -> None:
        super().__init__()
        self.register_buffer("edges", torch.tensor(EDGES), persistent=False)
        self.network = nn.Sequential(
            nn.Linear(channels + GEOMETRY, width), nn.GELU(), nn.Linear(width, width), nn.GELU(),
            nn.Linear(width, len(EDGES) - 1),
        )  # fmt: skip
        last = self.network[-1]
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.weight)
        with torch.no_grad():
            last.bias.fill_(-10.0)  # a fresh one keeps to what is foretold, to a decimetre
            last.bias[_class_of(self.edges, torch.zeros(1))] = 0.0

    def forward(self, known: Tensor) -> Tensor:
        """`describe`d road users (m, c + GEOMETRY) -> logits (m, classes)."""
        return self.network(known)

    def loss(self, known: Tensor, differences: Tensor) -> tuple[Tensor, dict[str, float]]:
        """Cross-entropy [nats] of the classes of the `differences` (m,) [m] that those `known` (m, c + GEOMETRY) in
        truth made (`further`).
        """
        loss = F.cross_entropy(self(known), _class_of(self.edges, differences))
        return loss, {"paces/entropy": float(loss.detach())}

    @torch.no_grad()
    def draw(
        self, displacement: Tensor, image: Tensor, levels: Sequence[Tensor], grid: Grid,
        generators: Sequence[torch.Generator],
    ) -> Tensor:  # fmt: skip
        """What the displacements (b, f, x, y, 2) [m] of road users on wheels that are foretold to move differ by from
        those foretold, zero elsewhere: a constant acceleration makes the difference, so after half of the time a
        quarter of it is there, and nobody goes back. Arguments as for `Departures.draw`; each generator advances by two
        numbers for each of these in its own frame.
        """
        moving = moving_vehicles(displacement, image)
        if not len(moving.owner):
            return torch.zeros_like(displacement)
        chance = self(describe(moving, levels, displacement, grid)).softmax(dim=-1).cumsum(dim=-1)
        numbers = moving.numbers(2, generators)
        one = torch.searchsorted(chance, numbers[:, :1].contiguous()).clamp(max=len(EDGES) - 2)[:, 0]
        difference = torch.lerp(self.edges[one], self.edges[one + 1], numbers[:, 1])
        foretold = moving.of(displacement)[:, -1]
        length = foretold.norm(dim=-1)
        more = foretold * (difference.maximum(-length) / length)[:, None]  # (m, 2)
        f = displacement.shape[1]
        share = (torch.arange(1, f + 1, device=more.device) / f).square()
        out = torch.zeros_like(displacement)
        at = moving.row, moving.cell[:, 0], moving.cell[:, 1]
        out[at[0], :, at[1], at[2]] = (more[:, None] * share[:, None])[moving.user]
        return out


def _class_of(edges: Tensor, differences: Tensor) -> Tensor:
    """The class (m,) int64 of each of `differences` (m,); the first and the last take what lies beyond."""
    return torch.bucketize(differences, edges[1:-1])
