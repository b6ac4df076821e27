"""The ground model: a book of tokens, an outpainter of the plan, and one of the ground that follows it."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from occsora_sim.device import fast_bfloat16
from occsora_sim.errors import CheckpointError, ConfigurationError
from occsora_sim.geometry import to_frame
from occsora_sim.models.ground.canvas import GroundCanvas
from occsora_sim.models.ground.hourglass import HourglassConfig
from occsora_sim.models.ground.outpainter import Outpainter, OutpainterConfig, route_features, tile_key
from occsora_sim.models.ground.palette import GROUPS, nearest_kind
from occsora_sim.models.ground.plan import CELLS, groups_of_cells, patterns_of, plan_table
from occsora_sim.models.ground.tokenizer import PATCH, GroundTokenizer

PLAN_CALLS = 3
"""Calls of the plan's network for each of the ground's: what is crooked in the plan, nothing sets right."""

_OUTWARD = 1.0
"""How the plan grows out of what is known (`shown_in_order`). The ground need not: it follows its plan."""

_LEAST, _SHAPE = 0.02, 0.5
_PLAN_LEAST, _PLAN_SHAPE = 0.005, 0.2
"""Which codes are drawn (`Likely`). Of the plan more: what is cut there are not freaks alone but kinds of places."""

_AT_ONCE = 64
"""Most tiles in a call of a network, for its memory's sake."""

_PLAN = 1 << 62
"""Sets the keys of the plan's tiles apart from the ground's."""


@dataclass(frozen=True, kw_only=True)
class GroundConfig:
    """Sizes of a ground model; it travels in the checkpoint.

    Attributes:
        column: edge of a column [m].
        height: layers of a column.
        kinds: of columns.
        codes: of tokens.
        patterns: codes of the plan.
        tile: edge of a tile [tokens].
        window: edge of what the ground's network sees [tokens].
        plan_window: of what the plan's network sees [tokens of the plan].
        body: sizes of the ground's network.
        plan_body: of the plan's.

    """

    column: float = 0.4
    height: int = 16
    kinds: int = 48
    codes: int = 4096
    patterns: int = 512
    tile: int = 16
    window: int = 32
    plan_window: int = 40
    body: HourglassConfig = field(
        default_factory=lambda: HourglassConfig(width=96, inner=192, depth=4, heads=3)
    )
    plan_body: HourglassConfig = field(
        default_factory=lambda: HourglassConfig(width=96, inner=256, depth=4, heads=4)
    )

    def __post_init__(self) -> None:
        if min(self.kinds, self.codes, self.patterns, self.height) < 1 or self.column <= 0:
            raise ConfigurationError(f"ground: sizes must be positive, got {self}")
        if self.kinds > 256 or self.codes > 2**15 or self.patterns > 2**15:
            raise ConfigurationError(f"ground: at most 256 kinds and {2**15} codes and patterns, got {self}")
        if max(self.tile, self.window, self.plan_window) > 256:
            raise ConfigurationError(f"ground: tile and windows may have 256 tokens a side, got {self}")

    @property
    def token(self) -> float:
        """Edge of a token [m]."""
        return PATCH * self.column

    @property
    def fine(self) -> OutpainterConfig:
        """Sizes of the ground's outpainter."""
        return OutpainterConfig(
            codes=self.codes, parts=PATCH**2, values=self.kinds, plan=self.patterns, token=self.token,
            window=self.window, tile=self.tile, body=self.body, least=_LEAST, shape=_SHAPE,
        )  # fmt: skip

    @property
    def plan(self) -> OutpainterConfig:
        """Sizes of the plan's outpainter."""
        return OutpainterConfig(
            codes=self.patterns, parts=CELLS, values=len(GROUPS), token=2 * self.token, window=self.plan_window,
            tile=self.tile, body=self.plan_body, least=_PLAN_LEAST, shape=_PLAN_SHAPE,
        )  # fmt: skip

    @staticmethod
    def from_header(header: dict[str, Any]) -> GroundConfig:
        """The configuration stored in a checkpoint.

        Raises:
            CheckpointError: a field is unknown or missing.

        """
        try:
            bodies = {name: HourglassConfig(**header[name]) for name in ("body", "plan_body")}
            return GroundConfig(**{**header, **bodies})
        except (KeyError, TypeError, AttributeError) as error:
            raise CheckpointError(
                f"weights: the configuration of the ground does not fit this release ({error})"
            ) from error


class GroundModel(nn.Module):
    """Draws ground on canvases, tile by tile.

    Attributes:
        palette: (kinds, z) uint8, the column of each kind.
        plan: outpainter of the plan; its `contents` are the plan's book.
        fine: outpainter of the ground; its `contents` are the tokenizer's book.

    """

    palette: Tensor

    def __init__(self, config: GroundConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("palette", torch.zeros(config.kinds, config.height, dtype=torch.uint8))
        self.plan, self.fine = Outpainter(config.plan), Outpainter(config.fine)

    def quick(self) -> GroundModel:
        """A copy to draw with, in bfloat16 where the device is fast at that."""
        model = deepcopy(self).requires_grad_(False).eval()
        model = model.bfloat16() if fast_bfloat16(self.palette.device) else model
        model.plan.settle()
        model.fine.settle()
        return model

    @property
    def tokenizer(self) -> GroundTokenizer:
        """Columns to codes and back."""
        return GroundTokenizer(self.palette, self.fine.contents)

    def kinds(self, columns: Tensor) -> Tensor:
        """Kinds (...) uint8 of columns (..., z) uint8; those with an unseen voxel are of any kind."""
        flat = columns.reshape(-1, columns.shape[-1])
        return torch.cat([nearest_kind(part, self.palette) for part in flat.split(8192)]).view(
            columns.shape[:-1]
        )

    def plan_of(self, kinds: Tensor) -> Tensor:
        """The plan (b, x / 8, y / 8) int64 of kinds (b, x, y) uint8."""
        return plan_table(self.plan.contents)[patterns_of(groups_of_cells(kinds, self.palette))]

    def given_back(self, columns: Tensor) -> Tensor:
        """Frames (b, x, y, z) uint8 without road users as tokens give them back; x and y multiples of 4."""
        return self.palette[self.tokenizer.decode(self.tokenizer.encode(self.kinds(columns))).int()]

    def enter(self, origin: Tensor, kinds: Tensor, known: Tensor, corner: int) -> GroundCanvas:
        """Canvases on which recorded ground is known.

        Args:
            origin: (b, 3) world poses of the canvas frames.
            kinds: (b, x, y) uint8, of the columns of the canvas's lattice; x and y multiples of 8.
            known: (b, x, y) bool, columns that were seen; a token is known where all of its columns are.
            corner: the number of the first token along both axes, even.

        """
        at = torch.full((len(origin), 1, 2), corner, device=origin.device)
        fine_known, plan_known = (
            known.unflatten(2, (-1, p)).unflatten(1, (-1, p)).all(-1).all(2) for p in (PATCH, 2 * PATCH)
        )
        canvas = GroundCanvas.empty(origin, self.config.token, self.config.tile)
        return replace(
            canvas,
            fine=canvas.fine.put(self.tokenizer.encode(kinds)[:, None], fine_known[:, None], at),
            plan=canvas.plan.put(self.plan_of(kinds)[:, None], plan_known[:, None], at // 2),
        )

    @torch.no_grad()
    def draw(
        self, canvas: GroundCanvas, pose: Tensor, route: Tensor, place: Tensor, seed: Tensor, half: float, *,
        steps: int = 4, expected: bool = False, tiles: int | None = None,
    ) -> GroundCanvas:  # fmt: skip
        """Draw what is hidden around the ego, the nearest tile first.

        Args:
            canvas: of b worlds, which follow the ego (`GroundCanvas.followed`).
            pose: (b, 3) world poses of the ego.
            route: (b, r, 2) world points [m], NaN-padded.
            place: (b,) int64, numbers of place kinds, -1: any.
            seed: (b,) int64; a tile's draw follows from it, the tile's number and what is known around.
            half: half the edge of the square around the ego in which ground is needed [m]. The plan is drawn as far
                as the windows of its tiles see: the streets are there before the houses, and further.
            steps: calls of the network for a tile of the ground; a tile of the plan takes PLAN_CALLS times as many.
            expected: take what is expected, in one call, instead of a draw.
            tiles: of the plan and of the ground, drawn one after another in every world, wanted or not: no shape
                depends on what is known, and nothing waits for the device. None: as many as are wanted.

        """
        told = (route, place, seed)
        calls = {False: 1 if expected else steps, True: 1 if expected else steps * PLAN_CALLS}
        find = partial(GroundCanvas.urgent, pose=pose, half=half, window=self.config.window)
        if tiles is not None:
            for plan in (True,) * tiles + (False,) * tiles:
                found = find(canvas)[2:] if plan else find(canvas)[:2]
                drawn = self._tile(canvas, found[0], *told, plan=plan, steps=calls[plan], expected=expected)
                canvas = canvas.with_tile(drawn, found[1], found[0], plan=plan)
            return canvas
        while True:
            tile, wanted, plan_tile, plan_wanted = find(canvas)
            # A world's plan comes before its ground; the worlds of a batch need not be at the same.
            todo = [(plan_tile, plan_wanted, True), (tile, wanted & ~plan_wanted, False)]
            if not bool((wanted | plan_wanted).any()):
                return canvas
            for number, where, plan in todo:
                for rows in filter(len, torch.nonzero(where)[:, 0].split(_AT_ONCE)):
                    pick = partial(torch.index_select, dim=0, index=rows)
                    some = self._tile(
                        canvas.map(pick), *map(pick, (number, *told)), plan=plan, steps=calls[plan],
                        expected=expected,
                    )  # fmt: skip
                    drawn = some.new_zeros((len(pose), *some.shape[1:])).index_copy(0, rows, some)
                    here = torch.zeros_like(where).index_fill(0, rows, True)
                    canvas = canvas.with_tile(drawn, here, number, plan=plan)

    def _tile(
        self, canvas: GroundCanvas, tile: Tensor, route: Tensor, place: Tensor, seed: Tensor, *, plan: bool,
        **options: Any,
    ) -> Tensor:  # fmt: skip
        """The codes (b, tile, tile) int64 of one tile (b, 2) of each canvas."""
        painter = self.plan if plan else self.fine
        config = painter.config
        corner = tile[:, None] * config.tile - (config.window - config.tile) // 2
        codes, known = canvas.layer(plan=plan).gather(corner, canvas.first(plan=plan), config.window)
        planned = None
        if not plan:
            planned = canvas.plan.gather(corner // 2, canvas.first(plan=True), config.window // 2)[0][:, 0]
        middle = (tile + 0.5) * (config.tile * config.token)  # (b, 2), on the canvas
        points = to_frame(route, canvas.origin[:, None]) - middle[:, None]
        told = route_features(points, config.window, config.token)
        key = tile_key(seed ^ _PLAN if plan else seed, tile)
        outward = _OUTWARD if plan else 0.0
        return painter.draw(codes[:, 0], known[:, 0], told, place, key, planned, outward=outward, **options)
