"""What stands still in generated worlds: what was seen, as it was measured, and what was drawn where nothing was."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from occsora_sim.grid import Grid
from occsora_sim.models.ground.canvas import GroundCanvas
from occsora_sim.models.ground.model import GroundModel
from occsora_sim.models.ground.tokenizer import PATCH
from occsora_sim.models.ground_crop import UNSEEN_GROUND, crop_points, kinds_of_columns
from occsora_sim.models.seen import Seen, of_codes

_LATTICE = 256
"""Columns along the edge of the square that is entered on a canvas: the view, and what the frames before it saw."""


@dataclass(frozen=True, kw_only=True)
class Ground:
    """The ground of b worlds; a value.

    Attributes:
        seen: by the start's frames; it stays as it is.
        canvas: what was drawn since, and, as tokens, what was seen: the context of what is drawn.

    """

    seen: Seen
    canvas: GroundCanvas

    @staticmethod
    def of(frames: Tensor, poses: Tensor, model: GroundModel, grid: Grid) -> Ground:
        """The ground that frames (b, h, x, y, z) without road users saw from world poses (b, h, 3)."""
        seen = Seen.of(frames, poses, grid)
        corner = -_LATTICE // 2
        axis = (torch.arange(_LATTICE, device=frames.device) + corner + 0.5) * model.config.column
        lattice = torch.stack(torch.meshgrid(axis, axis, indexing="ij"), dim=-1)
        codes = seen.look(lattice.expand(len(frames), *lattice.shape), grid)
        kinds = of_codes(model.kinds(seen.palette)[..., None], codes)[..., 0]
        canvas = model.enter(seen.origin, kinds, codes > 0, corner // PATCH)
        return Ground(seen=seen, canvas=canvas)

    def map(self, change: Callable[[Tensor], Tensor]) -> Ground:
        """Every tensor changed in the same way: rows picked, say."""
        return Ground(seen=self.seen.map(change), canvas=self.canvas.map(change))

    def drawn(
        self, model: GroundModel, grid: Grid, pose: Tensor, route: Tensor, place: Tensor, seed: Tensor, *,
        steps: int, expected: bool = False, margin: float = 0.0, tiles: int | None = None,
    ) -> Ground:  # fmt: skip
        """With everything drawn that is in view at world poses (b, 3), or at most `margin` [m] beyond; the other
        arguments as of `GroundModel.draw`.
        """
        half = max(map(abs, (*grid.lower[:2], *grid.upper[:2]))) + margin
        canvas = model.draw(
            self.canvas.followed(pose), pose, route, place, seed, half, steps=steps, expected=expected,
            tiles=tiles,
        )  # fmt: skip
        return replace(self, canvas=canvas)

    def read(self, poses: Tensor, model: GroundModel, grid: Grid) -> View:
        """The ground in view at world poses (b, f, 3). What was not drawn in time shows the commonest column."""
        points = self.seen.points(poses, grid)  # the canvas has the same frame
        seen = self.seen.look(points, grid)
        kinds, known = self.canvas.look(points, model.fine.contents)
        kinds = torch.where(known, kinds, model.fine.contents[0, 0])
        return View(codes=self._joined(seen, kinds, model), palette=self._palette(model))

    def kinds(self, model: GroundModel, grid: Grid) -> Tensor:
        """What road users see in each of the columns that there can be, for `crops`: (b, p + 1) uint8; the last is what
        nothing is known of.
        """
        kinds = kinds_of_columns(self._palette(model), grid)
        return torch.cat((kinds, torch.full_like(kinds[:, :1], UNSEEN_GROUND)), dim=1)

    def crops(self, poses: Tensor, table: Tensor, model: GroundModel, grid: Grid) -> Tensor:
        """What road users at world poses (b, n, 3) see of the ground: (b, n, *CROP) uint8 (`ground_crop`); the table is
        that of `kinds`.
        """
        points = crop_points(poses, self.canvas.origin[:, None].to(poses))
        kinds, known = self.canvas.look(points, model.fine.contents)
        codes = self._joined(self.seen.look(points, grid), kinds, model)
        return of_codes(table, torch.where((codes >= len(model.palette)) | known, codes, -1))

    def _palette(self, model: GroundModel) -> Tensor:
        """What can be drawn, and what was seen: (b, p, z) uint8."""
        return torch.cat((model.palette.expand(len(self.seen.palette), -1, -1), self.seen.palette), dim=1)

    @staticmethod
    def _joined(seen: Tensor, kinds: Tensor, model: GroundModel) -> Tensor:
        """Codes into `_palette`: what was seen hides what was drawn."""
        return torch.where(seen > 0, seen + len(model.palette), kinds.int())


@dataclass(frozen=True, kw_only=True)
class View:
    """Ground in frames of b worlds, as codes: what a column means is asked of the few hundred that there are.

    Attributes:
        codes: (b, f, x, y) int32.
        palette: (b, p, z) uint8, the columns of each world's codes.

    """

    codes: Tensor
    palette: Tensor

    def each(self, table: Tensor) -> Tensor:
        """What a table (b, p, ...) says of the codes: (b, f, x, y, ...)."""
        return of_codes(table, self.codes)

    def columns(self) -> Tensor:
        """Labels (b, f, x, y, z) uint8."""
        return self.each(self.palette)
