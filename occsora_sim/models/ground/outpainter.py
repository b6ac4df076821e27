"""New ground by masked discrete diffusion: codes that are known are seen, the others are drawn, a few at a time.

The forward process hides tokens one by one (absorbing states: Austin et al. 2021; Chang et al. 2022, MaskGIT); the
network says what each hidden token is, given those in sight. Sampling begins with what is known and ends when nothing
is hidden: what was known never changes, and no token is drawn twice.

Axes: b, x, y, tokens of a window of the canvas.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import lru_cache, partial
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from occsora_sim import counter_random
from occsora_sim.errors import ConfigurationError
from occsora_sim.models.ground.hourglass import Hourglass, HourglassConfig
from occsora_sim.models.ground.likely import Likely
from occsora_sim.scene_prompt import PLACES

ROUTE_FEATURES = 5
"""Numbers that tell a token of the route beside it (`route_features`)."""

_ROUTE_POINTS = 1024
"""Points of a route that a window is told of: those nearest to its middle."""

_CODE, _ORDER = 0x0B7, 0x0B8
"""Uses of random numbers (`counter_random`)."""


@dataclass(frozen=True, kw_only=True)
class OutpainterConfig:
    """Sizes of an `Outpainter`.

    Attributes:
        codes: of the tokens.
        parts: of a code, columns or cells; codes that are alike share what is learned about them.
        values: that a part may have.
        plan: codes of a plan at half the resolution that the tokens follow; 0: there is none.
        token: edge of a token [m].
        window: edge of the window that the network sees [tokens].
        tile: edge of the square in its middle that is drawn [tokens].
        least: which codes are drawn, with `shape` (`Likely`).
        shape: see there.
        body: the network's sizes.

    """

    codes: int
    parts: int
    values: int
    plan: int = 0
    token: float = 1.6
    window: int = 32
    tile: int = 16
    least: float = 0.0
    shape: float = 0.0
    body: HourglassConfig = field(default_factory=HourglassConfig)

    def __post_init__(self) -> None:
        if min(self.codes, self.parts, self.values, self.window, self.tile) < 1 or self.plan < 0:
            raise ConfigurationError(f"outpainter: sizes must be positive, got {self}")
        if self.window % 4 or self.tile % 4 or self.tile > self.window:
            raise ConfigurationError(
                f"outpainter: window {self.window} and tile {self.tile} must be multiples of 4, the tile no larger"
            )


class Outpainter(nn.Module):
    """What each hidden token of a window is, given those in sight, the route, the kind of place and the plan."""

    contents: Tensor

    def __init__(self, config: OutpainterConfig) -> None:
        super().__init__()
        self.config = config
        width, features = config.body.width, config.parts * config.values
        # (codes, parts) uint8: what each code is; training sets it once.
        self.register_buffer("contents", torch.zeros(config.codes, config.parts, dtype=torch.uint8))
        self.code = nn.Embedding(config.codes, width)
        self.feature = nn.Linear(features, width)
        self.hidden = nn.Parameter(torch.zeros(width))
        self.route = nn.Linear(ROUTE_FEATURES, width)
        self.place = nn.Embedding(len(PLACES) + 1, width)  # the last: any
        nn.init.normal_(self.code.weight, std=0.02)
        nn.init.normal_(self.place.weight, std=0.02)
        if config.plan:
            self.planned = nn.Embedding(config.plan, config.body.inner)
            self.cells = nn.Embedding(config.plan, 4 * width)
            nn.init.normal_(self.planned.weight, std=0.02)
            nn.init.normal_(self.cells.weight, std=0.02)
        self.body = Hourglass(config.body)
        self.norm = nn.LayerNorm(width)
        self.answer = nn.Linear(width, config.codes)
        self.shared = nn.Linear(width, features, bias=False)
        nn.init.zeros_(self.answer.weight)
        nn.init.zeros_(self.shared.weight)
        self.books: tuple[Tensor, Tensor, Likely] | None = None  # see `settle`

    def settle(self) -> None:
        """Make `table`, `answers` and which codes are likely once and for all: nothing will be learned any more."""
        self.books = self.table(), self.answers(), self.likely()

    def likely(self) -> Likely:
        """Which codes are drawn."""
        return Likely.of(self.contents, self.config.least, self.config.shape)

    def described(self) -> Tensor:
        """What is where in each code: (codes, parts x values) of ones and zeros, in the weights' type."""
        return F.one_hot(self.contents.long(), self.config.values).flatten(1).to(self.feature.weight.dtype)

    def table(self) -> Tensor:
        """Embeddings (codes, width): what each code has of its own, and what it shares with others alike."""
        return self.code.weight + self.feature(self.described())

    def answers(self) -> Tensor:
        """Weights (codes, width) of the answers, made in the same way."""
        return self.answer.weight + self.described() @ self.shared.weight

    def forward(
        self, codes: Tensor, known: Tensor, route: Tensor, place: Tensor, plan: Tensor | None = None
    ) -> Tensor:
        """Features (b, x, y, width) of every token, for `logits`.

        Args:
            codes: (b, x, y) int64; what stands where `known` is False is not looked at.
            known: (b, x, y) bool, tokens in sight.
            route: (b, x, y, ROUTE_FEATURES), of `route_features`.
            place: (b,) int64, number of the place kind, -1: any.
            plan: (b, x / 2, y / 2) int64, codes of the plan, where it has one.

        """
        return self.look(codes, known, *self.told(route, place, plan), self.table())

    def told(self, route: Tensor, place: Tensor, plan: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """What tokens are told that stays while they are drawn: (b, x, y, width), and (b, x / 2, y / 2, inner) or None;
        arguments as of `forward`.
        """
        x = self.route(route.to(self.hidden.dtype)) + self.place(place % (len(PLACES) + 1))[:, None, None]
        if not self.config.plan or plan is None:
            return x, None
        b, h, w = plan.shape
        cells = self.cells(plan).view(b, h, w, 2, 2, -1).permute(0, 1, 3, 2, 4, 5)
        return x + cells.reshape(b, 2 * h, 2 * w, -1), self.planned(plan)

    def look(self, codes: Tensor, known: Tensor, told: Tensor, half: Tensor | None, table: Tensor) -> Tensor:
        """As `forward`, of what `told` and `table` give."""
        seen = F.embedding(codes, table)
        x = torch.where(known[..., None], seen, self.hidden.to(seen.dtype))
        return self.norm(self.body(x + told, half))

    def logits(self, features: Tensor, answers: Tensor | None = None) -> Tensor:
        """Features (..., width) -> logits (..., codes); `answers` where they are at hand."""
        return F.linear(features, self.answers() if answers is None else answers, self.answer.bias)

    def draw(
        self, codes: Tensor, known: Tensor, route: Tensor, place: Tensor, key: Tensor, plan: Tensor | None = None, *,
        steps: int = 4, expected: bool = False, outward: float = 0.0,
    ) -> Tensor:  # fmt: skip
        """Draw the hidden tokens of the tile in the middle of each window; fixed shapes, no wait for the device.

        Args:
            codes: (b, x, y) int64, as of `forward`; so are the next three.
            known: (b, x, y) bool.
            route: (b, x, y, ROUTE_FEATURES).
            place: (b,) int64.
            key: (b, 2) int64, the seed of the world and the number of the tile (`tile_key`); all randomness follows.
            plan: (b, x / 2, y / 2) int64, where there is one.
            steps: calls of the network. Each shows a share of the hidden tokens, few at first.
            expected: take the code of which most is expected to be right instead of a draw.
            outward: how much sooner tokens are shown that lie nearer to known ones (`shown_in_order`).

        Returns:
            (b, tile, tile) int64.

        """
        window, tile, b = self.config.window, self.config.tile, len(codes)
        count, size = tile * tile, window * window
        table, answers, likely = self.books or (self.table(), self.answers(), self.likely())
        told, half = self.told(route, place, plan)
        cells = _middle(window, tile, codes.device)  # (count,), where the tile's tokens are in the window
        begin, chance = counter_random.uniforms(key, {_ORDER: (2,), _CODE: (count,)})
        order, total = shown_in_order(known, begin, tile, outward)
        hidden, step_of, number, most = _schedule(steps, count, codes.device)
        # How many are shown before each step, and at last: (b, steps + 1).
        until = total - (total * hidden).floor().long()
        rank, end = until[:, step_of] + number, until[:, step_of + 1]
        token = order.gather(1, rank.clamp(max=count - 1))
        cell = cells[token]
        # As many in every window: what is beyond its share is written beside it.
        written = torch.where(rank < end, cell, size).split(most, dim=1)
        chances = chance.gather(1, token)[..., None].split(most, dim=1)
        looked = cell[..., None].split(most, dim=1)
        # (b, steps, count), which tokens of the tile are in sight in each step
        place_in_order = order.argsort(1)
        seen = known.flatten(1)[:, None].repeat(1, steps, 1)
        seen[:, :, cells] |= place_in_order[:, None] < until[:, :-1, None]
        codes = F.pad(codes.flatten(1), (0, 1))
        for step in range(steps):
            image = codes[:, :size].unflatten(1, (window, window))
            features = self.look(image, seen[:, step].view_as(image), told, half, table).flatten(1, 2)
            features = features.gather(1, looked[step].expand(-1, -1, features.shape[-1]))
            p = self.logits(features, answers).float().softmax(-1)  # (b, n, codes)
            if expected:
                alike = self.described().float()
                drawn = (p @ alike @ alike.T).argmax(-1)
            else:
                drawn = likely.draw(p, chances[step])
            codes = codes.scatter(1, written[step], drawn)
        return codes[:, cells].view(b, tile, tile)


def shown_in_order(known: Tensor, begin: Tensor, tile: int, outward: float) -> tuple[Tensor, Tensor]:
    """In which order the hidden tokens of a tile are shown, and how many there are.

    Each is as far as can be from those just before it, by a Halton sequence that begins anywhere (Besnier et al. 2025,
    "Halton scheduler for masked generative image transformer", arXiv 2503.17076): tokens that are drawn together do not
    know of each other, so they should have little to do with each other. Those that the network is sure of first, as
    MaskGIT has it, are neighbours: it takes 32 calls of the plan to look as well as 12 do. But what is drawn far from
    all that is known may not fit to it, and a street ends in nothing; so nearer ones may come sooner (lab book,
    2026-11-29).

    Args:
        known: (b, w, w) bool, the tokens of windows, each with a square tile in its middle.
        begin: (b, 2) in [0, 1), how far along x and y the sequence is moved round the tile.
        tile: its edge.
        outward: how much later a token comes that is an edge of the tile farther from the nearest known one, as a share
            of the whole sequence.

    Returns:
        (b, tile x tile) int64, the tokens, the hidden ones first; (b, 1) int64, how many are hidden.

    """
    window, device = known.shape[1], known.device
    seen, cell = known.flatten(1), torch.arange(tile * tile, device=device)
    inside = seen[:, _middle(window, tile, device)]
    moved = (begin * tile).long()
    x, y = (cell // tile + moved[:, :1]) % tile, (cell % tile + moved[:, 1:]) % tile
    rank = _halton(tile, device)[x * tile + y].float() / tile**2
    if outward:
        away = _distances(window, tile, device).masked_fill(~seen[:, None], math.inf).amin(-1)
        rank = rank + outward * away.clamp(max=2 * window) / tile
    return rank.masked_fill(inside, math.inf).argsort(dim=1, stable=True), (~inside).sum(1, keepdim=True)


@lru_cache(maxsize=8)
def _distances(window: int, tile: int, device: torch.device) -> Tensor:
    """From each token of a tile to each of the window around it: (tile x tile, window x window) [tokens]."""
    axis = torch.arange(window, device=device, dtype=torch.float32)
    cells = torch.stack(torch.meshgrid(axis, axis, indexing="ij"), dim=-1).view(-1, 2)
    return torch.cdist(cells[_middle(window, tile, device)], cells)


@lru_cache(maxsize=8)
def _halton(tile: int, device: torch.device) -> Tensor:
    """When each cell (tile x tile,) int64 of a square is first met by the Halton sequence of bases 2 and 3."""
    ranks: dict[int, int] = {}
    number = 0
    while len(ranks) < tile * tile:
        x, y = (int(_radical_inverse(number, base) * tile) for base in (2, 3))
        ranks.setdefault(x * tile + y, len(ranks))
        number += 1
    return torch.tensor([ranks[cell] for cell in range(tile * tile)], device=device)


def _radical_inverse(number: int, base: int) -> float:
    """The digits of `number` behind the point, the last one first."""
    value, unit = 0.0, 1.0
    while number:
        unit /= base
        number, digit = divmod(number, base)
        value += unit * digit
    return value


@lru_cache(maxsize=8)
def _schedule(steps: int, count: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor, list[int]]:
    """How many of at most `count` tokens are drawn in each of so many calls: the share (steps + 1,) that is hidden
    before each and after the last, a quarter of a cosine (Chang et al. 2022); of all that may be drawn, one call behind
    the other, the call and the number in it (m,) int64; and how many there are at most in each call.
    """
    hidden = [math.cos(math.pi / 2 * step / steps) if step < steps else 0.0 for step in range(steps + 1)]
    most = [math.ceil(count * (before - after)) for before, after in pairwise(hidden)]
    step_of = [step for step, n in enumerate(most) for _ in range(n)]
    number = [k for n in most for k in range(n)]
    as_tensor = partial(torch.tensor, device=device)
    return as_tensor(hidden), as_tensor(step_of), as_tensor(number), most


@lru_cache(maxsize=8)
def _middle(window: int, tile: int, device: torch.device) -> Tensor:
    """Flat places (tile x tile,) int64 of a tile's tokens in the window around it."""
    axis = torch.arange(tile, device=device) + (window - tile) // 2
    return (axis[:, None] * window + axis).flatten()


def tile_key(seed: Tensor, tile: Tensor) -> Tensor:
    """Keys (b, 2) int64 of tiles (b, 2) int64, their numbers along x and y, in worlds of `seed` (b,) int64."""
    return torch.stack((seed, (tile[:, 0] & 0xFFFFFFFF) | (tile[:, 1] << 32)), dim=-1)


def route_features(route: Tensor, side: int, token: float) -> Tensor:
    """What each token of a window is told of the route.

    Args:
        route: (b, r, 2) float32 [m] in the window's frame, whose origin is its middle; NaN-padded.
        side: edge of the window [tokens].
        token: edge of a token [m].

    Returns:
        (b, side, side, ROUTE_FEATURES): how near the route is, from 1 on it to 0 at 12 m; the way to its nearest point
        [8 m] and the direction there (cosine and sine), all times the nearness.

    """
    axis = (torch.arange(side, device=route.device) - (side - 1) / 2) * token
    centres = torch.stack(torch.meshgrid(axis, axis, indexing="ij"), dim=-1).view(1, -1, 2)
    along = torch.cat((route[:, 1:] - route[:, :-1], route[:, -1:] * math.nan), dim=1)
    there = torch.isfinite(along).all(-1)  # the last point has no direction
    points = torch.where(there[..., None], route, 1e4)
    along = torch.where(there[..., None], along, 0.0)
    if points.shape[1] > _ROUTE_POINTS:  # however long the route is, a window costs the same
        near = points.norm(dim=-1).topk(_ROUTE_POINTS, dim=1, largest=False, sorted=False).indices
        near = near.sort(dim=1).values[..., None].expand(-1, -1, 2)
        points, along = points.gather(1, near), along.gather(1, near)
    along = along / along.norm(dim=-1, keepdim=True).clamp(min=1e-3)
    square = (
        centres.square().sum(-1)[..., None]
        - 2 * centres @ points.transpose(1, 2)
        + points.square().sum(-1)[:, None]
    )
    nearest = square.argmin(-1)[..., None].expand(-1, -1, 2)  # (b, n, 2)
    way = points.gather(1, nearest) - centres
    distance = way.norm(dim=-1, keepdim=True)
    near = (1 - distance / 12).clamp(min=0)
    features = torch.cat((near, near * way / 8, near * along.gather(1, nearest)), dim=-1)
    return features.view(len(route), side, side, ROUTE_FEATURES)
