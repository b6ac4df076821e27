"""Ground as it is drawn: a canvas of tokens in the world frame and its plan, tile by tile, each drawn once.

A canvas wraps round like a torus and follows the ego block by block: what lies more than about 200 m behind is
forgotten. It is a value; every field has the batch axis first, shapes are fixed, and nothing here waits for the device.

Axes: b, x, y. The lattice's axes are the canvas frame's; token (0, 0) has its lower corner at the frame's origin.
Tokens are 1.6 m, tokens of the plan 3.2 m; a tile is TILE tokens of either, a block a tile of the plan.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from occsora_sim.geometry import relative, to_frame, to_world
from occsora_sim.grid import Grid
from outpainting.ground_tokenizer import PATCH, GroundTokenizer

TOKEN = 1.6
"""Edge of a token [m]."""

TILE = 16
"""Edge of a tile [tokens]: 25.6 m of ground, 51.2 m of the plan."""

BLOCKS = 8
"""Blocks along the edge of a canvas: 410 m."""

_BLOCK = 2 * TILE


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
        fine: tokens of 1.6 m.
        plan: tokens of 3.2 m.
        block: (b, 2) int64, the first block that is held, along x and y.
        origin: (b, 3) world pose of the canvas frame.

    """

    fine: Layer
    plan: Layer
    block: Tensor
    origin: Tensor

    @staticmethod
    def empty(origin: Tensor) -> GroundCanvas:
        """Blank canvases with the frames `origin` (b, 3)."""
        b, device = len(origin), origin.device

        def layer(size: int) -> Layer:
            return Layer(
                codes=torch.zeros(b, size, size, dtype=torch.int16, device=device),
                known=torch.zeros(b, size, size, dtype=torch.bool, device=device),
            )

        return GroundCanvas(
            fine=layer(BLOCKS * _BLOCK),
            plan=layer(BLOCKS * TILE),
            block=torch.full((b, 2), -BLOCKS // 2, device=device),
            origin=origin,
        )

    def map(self, change: Callable[[Tensor], Tensor]) -> GroundCanvas:
        """Every tensor changed in the same way: rows picked, say."""
        return GroundCanvas(
            fine=self.fine.map(change), plan=self.plan.map(change), block=change(self.block),
            origin=change(self.origin),
        )  # fmt: skip

    def followed(self, pose: Tensor) -> GroundCanvas:
        """With the ego at world poses (b, 3) in one of the two middle blocks: what is left behind is forgotten."""
        place = relative(self.origin, pose)[:, :2]
        wanted = torch.floor(place / (_BLOCK * TOKEN) + 0.5).long() - BLOCKS // 2
        slots = torch.arange(BLOCKS, device=pose.device)

        def held(first: Tensor) -> Tensor:
            """Which block each slot holds along both axes: (b, 2, BLOCKS)."""
            return first[..., None] + (slots - first[..., None]) % BLOCKS

        same = held(self.block) == held(wanted)
        kept = same[:, 0, :, None] & same[:, 1, None, :]  # (b, BLOCKS, BLOCKS)

        def without(layer: Layer) -> Layer:
            repeat = layer.known.shape[1] // BLOCKS
            mask = kept.repeat_interleave(repeat, 1).repeat_interleave(repeat, 2)
            return replace(layer, known=layer.known & mask)

        return replace(self, fine=without(self.fine), plan=without(self.plan), block=wanted)

    def first(self, *, plan: bool = False) -> Tensor:
        """The first token (b, 2) int64 that is held."""
        return self.block * (TILE if plan else _BLOCK)

    def urgent(self, pose: Tensor, half: float, count: int, *, plan: bool = False) -> tuple[Tensor, Tensor]:
        """The tiles that are to be drawn next: those with hidden tokens within `half` [m] of the ego along and across
        its heading, the nearest first.

        Args:
            pose: (b, 3) world poses of the ego.
            half: half the edge of the square around it [m]; a canvas reaches about 180 m.
            count: tiles of each world.
            plan: tiles of the plan, not of the ground.

        Returns:
            (b, count, 2) int64, tiles' numbers along x and y; (b, count) bool, whether each is wanted.

        """
        layer, token = (self.plan, 2 * TOKEN) if plan else (self.fine, TOKEN)
        local = relative(self.origin, pose)
        reach = math.ceil(half * math.sqrt(2) / (token * TILE))
        around = torch.arange(-reach, reach + 1, device=pose.device)
        middle = torch.floor(local[:, :2] / (token * TILE)).long()
        offset = torch.stack(torch.meshgrid(around, around, indexing="ij"), dim=-1).view(1, -1, 2)
        tiles = middle[:, None] + offset  # (b, n, 2)
        _, known = layer.gather(tiles * TILE, self.first(plan=plan), TILE)
        step = torch.arange(TILE, device=pose.device) + 0.5
        inside = torch.stack(torch.meshgrid(step, step, indexing="ij"), dim=-1)  # (TILE, TILE, 2)
        centres = (tiles[:, :, None, None] * TILE + inside) * token
        seen = to_frame(centres, local[:, None, None, None])
        hidden = ~known & (seen.abs() < half).all(-1)
        distance = seen.norm(dim=-1).masked_fill(~hidden, math.inf).flatten(2).amin(-1)  # (b, n)
        nearest, index = distance.topk(count, dim=-1, largest=False)
        return tiles.gather(1, index[..., None].expand(-1, -1, 2)), torch.isfinite(nearest)

    def read(self, pose: Tensor, tokenizer: GroundTokenizer, grid: Grid, unseen: int) -> Tensor:
        """The ground around world poses (b, 3): labels (b, x, y, z) uint8, `unseen` where nothing is drawn."""
        local = relative(self.origin, pose)
        points = to_world(grid.centres_xy(pose.device), local[:, None, None])  # (b, x, y, 2)
        column = torch.floor(points / (TOKEN / PATCH)).long()
        token, part = torch.div(column, PATCH, rounding_mode="floor"), column % PATCH
        size = self.fine.codes.shape[1]
        ahead = token - self.first()[:, None, None]
        held = ((ahead >= 0) & (ahead < size)).all(-1)
        slot = token % size
        row = torch.arange(len(pose), device=pose.device).view(-1, 1, 1) * size
        index = (row + slot[..., 0]) * size + slot[..., 1]
        codes = self.fine.codes.view(-1)[index].long()
        kinds = tokenizer.book.view(-1)[codes * PATCH**2 + part[..., 0] * PATCH + part[..., 1]]
        labels = tokenizer.palette[kinds.int()]
        return labels.masked_fill(~(self.fine.known.view(-1)[index] & held)[..., None], unseen)
