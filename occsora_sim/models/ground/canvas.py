"""Ground as it is drawn: a canvas of tokens in the world frame and its plan, tile by tile, each drawn once.

A canvas wraps round like a torus and follows the ego block by block, no further than it must: what lies more than about
150 m behind may be forgotten. It is a value; every field has the batch axis first, shapes are fixed, and nothing here
waits for the device.

Axes: b, x, y. The lattice's axes are the canvas frame's; token (0, 0) has its lower corner at the frame's origin.
Tokens of the plan are twice as large; a tile is a square of as many tokens of either, a block a tile of the plan.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from occsora_sim.constants import span
from occsora_sim.geometry import relative, to_frame
from occsora_sim.models.ground.tokenizer import PATCH

BLOCKS = 12
"""Blocks along the edge of a canvas: 614 m with tiles of 16 tokens of 1.6 m."""

RIM = 3
"""Blocks between the ego's and the rim: as far as the windows of the plan around its view reach."""

_BITS = PATCH.bit_length() - 1
"""A token's number is its columns' without so many of the last bits."""


@dataclass(frozen=True, kw_only=True)
class Layer:
    """Tokens of one size on the torus.

    Attributes:
        codes: (b, s, s) int16.
        known: (b, s, s) bool; where it is False, `codes` mean nothing.

    """

    codes: Tensor
    known: Tensor

    def gather(self, corner: Tensor, first: Tensor, side: int) -> tuple[Tensor, Tensor]:
        """Codes int64 and known bool (b, n, side, side) of squares whose lower corners are `corner` (b, n, 2) int64;
        the canvas holds the tokens from `first` (b, 2) on, others are not known.
        """
        size = self.codes.shape[1]
        step = torch.arange(side, device=corner.device)
        cells = corner[..., None, :] + step[:, None]  # (b, n, side, 2)
        ahead = cells - first[:, None, None]
        within = (ahead >= 0) & (ahead < size)
        slot = cells % size
        row = torch.arange(len(corner), device=corner.device).view(-1, 1, 1, 1) * size
        index = (row + slot[..., :, None, 0]) * size + slot[..., None, :, 1]  # (b, n, side, side)
        held = within[..., :, None, 0] & within[..., None, :, 1]
        return self.codes.view(-1)[index].long(), self.known.view(-1)[index] & held

    def put(self, codes: Tensor, where: Tensor, corner: Tensor) -> Layer:
        """With squares of codes (b, n, side, side) written at `corner` (b, n, 2) where `where` (b, n, side, side) is
        True and nothing is known yet.
        """
        size, side = self.codes.shape[1], codes.shape[-1]
        slot = (corner[..., None, :] + torch.arange(side, device=corner.device)[:, None]) % size
        row = torch.arange(len(corner), device=corner.device).view(-1, 1, 1, 1) * size
        index = ((row + slot[..., :, None, 0]) * size + slot[..., None, :, 1]).flatten()
        new_codes, new_known = self.codes.clone().view(-1), self.known.clone().view(-1)
        old = new_known[index]
        new_codes[index] = torch.where(where.flatten() & ~old, codes.flatten().short(), new_codes[index])
        new_known[index] = old | where.flatten()
        return Layer(codes=new_codes.view_as(self.codes), known=new_known.view_as(self.known))

    def map(self, change: Callable[[Tensor], Tensor]) -> Layer:
        """Both tensors changed in the same way."""
        return Layer(codes=change(self.codes), known=change(self.known))


@dataclass(frozen=True, kw_only=True)
class GroundCanvas:
    """The canvases of b worlds.

    Attributes:
        fine: tokens of the ground.
        plan: tokens of its plan.
        block: (b, 2) int64, the first block that is held, along x and y.
        origin: (b, 3) world pose of the canvas frame.
        token: edge of a token of the ground [m].
        tile: edge of a tile [tokens].

    """

    fine: Layer
    plan: Layer
    block: Tensor
    origin: Tensor
    token: float
    tile: int

    @staticmethod
    def empty(origin: Tensor, token: float, tile: int) -> GroundCanvas:
        """Blank canvases with the frames `origin` (b, 3)."""
        b, device = len(origin), origin.device

        def layer(size: int) -> Layer:
            return Layer(
                codes=torch.zeros(b, size, size, dtype=torch.int16, device=device),
                known=torch.zeros(b, size, size, dtype=torch.bool, device=device),
            )

        return GroundCanvas(
            fine=layer(BLOCKS * 2 * tile),
            plan=layer(BLOCKS * tile),
            block=torch.full((b, 2), -BLOCKS // 2, device=device),
            origin=origin,
            token=token,
            tile=tile,
        )

    def map(self, change: Callable[[Tensor], Tensor]) -> GroundCanvas:
        """Every tensor changed in the same way: rows picked, say."""
        return replace(
            self, fine=self.fine.map(change), plan=self.plan.map(change), block=change(self.block),
            origin=change(self.origin),
        )  # fmt: skip

    def followed(self, pose: Tensor) -> GroundCanvas:
        """With RIM blocks on each side of the ego's, at world poses (b, 3), moved as little as that takes; what falls
        off is forgotten.
        """
        place = relative(self.origin, pose)[:, :2]
        ego = torch.floor(place / (2 * self.tile * self.token)).long()
        wanted = torch.minimum(torch.maximum(self.block, ego - (BLOCKS - 1 - RIM)), ego - RIM)
        slots = span(BLOCKS, pose.device)

        def held(first: Tensor) -> Tensor:
            """Which block each slot holds along both axes: (b, 2, BLOCKS)."""
            return first[..., None] + (slots - first[..., None]) % BLOCKS

        same = held(self.block) == held(wanted)
        kept = same[:, 0, :, None] & same[:, 1, None, :]  # (b, BLOCKS, BLOCKS)

        def without(layer: Layer) -> Layer:
            blocks = layer.known.unflatten(2, (BLOCKS, -1)).unflatten(1, (BLOCKS, -1))
            return replace(layer, known=(blocks & kept[:, :, None, :, None]).view_as(layer.known))

        return replace(self, fine=without(self.fine), plan=without(self.plan), block=wanted)

    def layer(self, *, plan: bool) -> Layer:
        """The plan, or the ground."""
        return self.plan if plan else self.fine

    def with_tile(self, codes: Tensor, where: Tensor, tile: Tensor, *, plan: bool) -> GroundCanvas:
        """With the codes (b, tile, tile) int64 of one tile (b, 2) written in the worlds where `where` (b,) bool is
        True; what is known stays.
        """
        where = where[:, None, None].expand_as(codes)[:, None]
        layer = self.layer(plan=plan).put(codes[:, None], where, tile[:, None] * self.tile)
        return replace(self, plan=layer) if plan else replace(self, fine=layer)

    def first(self, *, plan: bool = False) -> Tensor:
        """The first token (b, 2) int64 that is held."""
        return self.block * (self.tile if plan else 2 * self.tile)

    def urgent(self, pose: Tensor, half: float, window: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """What is to be drawn next so that nothing within `half` [m] of the ego at the world poses (b, 3), along and
        across its heading, stays hidden: the nearest such tile whose plan is known as far as its `window` [tokens]
        reaches, and the tile of the plan with the nearest token that a window lacks.

        Returns:
            (b, 2) int64, the tile's number along x and y; (b,) bool, whether there is one; the same of the plan.

        """
        local, side, size = relative(self.origin, pose), self.tile, self.tile * self.token
        reach = math.ceil(half * math.sqrt(2) / size)
        around = torch.arange(-reach, reach + 1, device=pose.device)
        offset = torch.stack(torch.meshgrid(around, around, indexing="ij"), dim=-1).view(1, -1, 2)
        tiles = torch.floor(local[:, :2] / size).long()[:, None] + offset  # (b, n, 2)
        _, known = self.fine.gather(tiles * side, self.first(), side)
        seen = to_frame(_centres(tiles * side, side, self.token), local[:, None, None, None])
        turned = local[:, 2].cos().abs() + local[:, 2].sin().abs()  # how wide a token is across the heading
        within = (half + 0.5 * self.token * turned - 1e-3).view(-1, 1, 1, 1)
        hidden = ~known & (seen.abs().amax(-1) < within)
        distance = seen.norm(dim=-1).masked_fill(~hidden, math.inf).flatten(2).amin(-1)  # (b, n)

        corner = (tiles * side - (window - side) // 2) // 2  # of what the tiles' windows see of the plan
        _, planned = self.plan.gather(corner, self.first(plan=True), window // 2)
        missing = ~planned & torch.isfinite(distance)[..., None, None]
        away = (_centres(corner, window // 2, 2 * self.token) - local[:, None, None, None, :2]).norm(dim=-1)
        away, at = away.masked_fill(~missing, math.inf).flatten(1).min(dim=-1)
        number = torch.div(at, (window // 2) ** 2, rounding_mode="floor")
        rest = at % (window // 2) ** 2
        inside = torch.stack(
            (torch.div(rest, window // 2, rounding_mode="floor"), rest % (window // 2)), dim=-1
        )
        token = corner.gather(1, number[:, None, None].expand(-1, 1, 2))[:, 0] + inside

        least, nearest = distance.masked_fill(missing.flatten(2).any(-1), math.inf).min(dim=-1)
        tile = tiles.gather(1, nearest[:, None, None].expand(-1, 1, 2))[:, 0]
        plan = torch.div(token, side, rounding_mode="floor")
        return tile, torch.isfinite(least), plan, torch.isfinite(away)

    def look(self, points: Tensor, book: Tensor) -> tuple[Tensor, Tensor]:
        """What lies at points (b, ..., 2) [m] of the canvas frame: kinds (b, ...) uint8, by the tokenizer's `book`,
        and whether anything is known there, bool; where it is not, the kinds mean nothing.
        """
        size = self.fine.codes.shape[1]
        first = self.first().int().view(len(points), *(1,) * (points.ndim - 2), 2)
        column = torch.floor(points * (PATCH / self.token)).int()
        token = column >> _BITS
        ahead = token - first
        (x, y), (in_x, in_y) = (token % size).unbind(-1), ((ahead >= 0) & (ahead < size)).unbind(-1)
        part_x, part_y = (column & PATCH - 1).unbind(-1)
        row = span(len(points), points.device, torch.int32) * (size * size)
        index = row.view(first.shape[:-1]) + x * size + y
        flat, part = index.flatten(), part_x * PATCH + part_y
        codes = self.fine.codes.view(-1).index_select(0, flat).int()
        kinds = book.view(-1).index_select(0, codes * PATCH**2 + part.flatten()).view(index.shape)
        return kinds, self.fine.known.view(-1).index_select(0, flat).view(index.shape) & in_x & in_y


def _centres(corner: Tensor, side: int, token: float) -> Tensor:
    """Middles (b, n, side, side, 2) [m] of the tokens of squares whose lower corners are `corner` (b, n, 2)."""
    step = torch.arange(side, device=corner.device) + 0.5
    inside = torch.stack(torch.meshgrid(step, step, indexing="ij"), dim=-1)
    return (corner[:, :, None, None] + inside) * token
