"""What stands still in generated worlds: what was seen, as it was measured, and what was drawn where nothing was."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from occsora_sim.geometry import relative, to_world
from occsora_sim.grid import Grid
from occsora_sim.models.columns import UNSEEN
from occsora_sim.models.ground.canvas import GroundCanvas
from occsora_sim.models.ground.model import GroundModel
from occsora_sim.models.ground.tokenizer import PATCH
from occsora_sim.models.ground_crop import UNSEEN_GROUND, crop_points, kinds_of_columns
from occsora_sim.models.record import Record

_LATTICE = 256
"""Columns along the edge of the square that is entered on a canvas: the view, and what the frames before it saw."""


@dataclass(frozen=True, kw_only=True)
class Ground:
    """The ground of b worlds; a value.

    Attributes:
        record: what the start's frames saw; it stays as it is.
        canvas: what was drawn since, and, as tokens, what was seen: the context of what is drawn.

    """

    record: Record
    canvas: GroundCanvas

    @staticmethod
    def of(frames: Tensor, poses: Tensor, model: GroundModel, grid: Grid) -> Ground:
        """The ground that frames (b, h, x, y, z) without road users saw from world poses (b, h, 3)."""
        record = Record.of(frames, poses, grid)
        corner = -_LATTICE // 2
        axis = (torch.arange(_LATTICE, device=frames.device) + corner + 0.5) * model.config.column
        lattice = torch.stack(torch.meshgrid(axis, axis, indexing="ij"), dim=-1)
        columns, known = record.look(lattice.expand(len(frames), *lattice.shape), grid)
        canvas = model.enter(record.origin, columns, known, corner // PATCH)
        return Ground(record=record, canvas=canvas)

    def map(self, change: Callable[[Tensor], Tensor]) -> Ground:
        """Every tensor changed in the same way: rows picked, say."""
        return Ground(record=self.record.map(change), canvas=self.canvas.map(change))

    def drawn(
        self, model: GroundModel, grid: Grid, pose: Tensor, route: Tensor, place: Tensor, seed: Tensor, *,
        steps: int, expected: bool = False, tiles: int | None = None,
    ) -> Ground:  # fmt: skip
        """With everything drawn that is in view at world poses (b, 3); arguments as of `GroundModel.draw`."""
        half = max(map(abs, (*grid.lower[:2], *grid.upper[:2])))
        canvas = model.draw(
            self.canvas.followed(pose), pose, route, place, seed, half, steps=steps, expected=expected,
            tiles=tiles,
        )  # fmt: skip
        return replace(self, canvas=canvas)

    def read(self, pose: Tensor, model: GroundModel, grid: Grid) -> Tensor:
        """The ground in view at world poses (b, 3): labels (b, x, y, z) uint8. What was not drawn in time shows the
        commonest column.
        """
        seen = self.record.read(pose[:, None], grid)[:, 0]
        local = relative(self.canvas.origin, pose)
        points = to_world(grid.centres_xy(pose.device), local[:, None, None])  # (b, x, y, 2)
        kinds, known = self.canvas.look(points, model.fine.contents)
        kinds = torch.where(known, kinds, model.fine.contents[0, 0])
        return torch.where(seen == UNSEEN, model.palette[kinds.int()], seen)

    def crops(self, poses: Tensor, model: GroundModel, grid: Grid) -> Tensor:
        """What road users at world poses (b, n, 3) see of the ground: (b, n, *CROP) uint8 (`ground_crop`)."""
        points = crop_points(poses, self.canvas.origin[:, None].to(poses))
        columns, seen = self.record.look(points, grid)
        kinds, known = self.canvas.look(points, model.fine.contents)
        drawn = kinds_of_columns(model.palette, grid)[kinds.int()]
        drawn = torch.where(known, drawn, UNSEEN_GROUND)
        return torch.where(seen, kinds_of_columns(columns, grid), drawn)
