"""The ground model: a book of tokens, an outpainter of the plan, and one of the ground that follows it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from occsora_sim.checkpoint import read_tensors, write_tensors
from occsora_sim.geometry import to_frame
from outpainting.ground_canvas import TILE, TOKEN, GroundCanvas
from outpainting.ground_plan import groups_of_cells, pattern_features, patterns_of, plan_table
from outpainting.ground_tokenizer import GroundTokenizer
from outpainting.outpaint import Outpainter, OutpainterConfig, route_features, tile_key

AHEAD = 26.0
"""How much further than the ground its plan is drawn [m]: the ground's network sees this far beyond a tile."""

_PLAN = 1 << 62
"""Sets the keys of the plan's tiles apart from the ground's."""


class GroundModel(nn.Module):
    """Draws ground on canvases, a few tiles a step.

    Attributes:
        tokenizer: columns to codes and back.
        patterns: (codes,) int64, what a plan's codes stand for.
        plan: outpainter of the plan.
        fine: outpainter of the ground.

    """

    patterns: Tensor

    def __init__(
        self, tokenizer: GroundTokenizer, patterns: Tensor, plan: OutpainterConfig, fine: OutpainterConfig
    ) -> None:
        super().__init__()
        self.tokenizer = tokenizer
        self.register_buffer("patterns", patterns)
        self.plan = Outpainter(plan, pattern_features(patterns))
        self.fine = Outpainter(fine, tokenizer.described())

    def enter(self, canvas: GroundCanvas, kinds: Tensor, known: Tensor, corner: Tensor) -> GroundCanvas:
        """With recorded columns on the canvas.

        Args:
            canvas: of b worlds.
            kinds: (b, x, y) uint8, columns on the canvas's lattice; x and y multiples of 8.
            known: (b, x, y) bool, columns that were seen; a token is known where all of its columns are.
            corner: (b, 2) int64, the number of the first token, even along both axes.

        """
        codes = self.tokenizer.encode(kinds)
        table = plan_table(self.patterns)
        plan = table[patterns_of(groups_of_cells(kinds, self.tokenizer.palette))]
        fine_known, plan_known = (
            known.unflatten(2, (-1, p)).unflatten(1, (-1, p)).all(-1).all(2) for p in (4, 8)
        )
        return GroundCanvas(
            fine=canvas.fine.put(codes[:, None], fine_known[:, None], corner[:, None]),
            plan=canvas.plan.put(plan[:, None], plan_known[:, None], corner[:, None] // 2),
            block=canvas.block,
            origin=canvas.origin,
        )

    def draw(
        self, canvas: GroundCanvas, pose: Tensor, route: Tensor, place: Tensor, seed: Tensor, *, half: float = 42.0,
        tiles: int = 1, plans: int = 1, **options: Any,
    ) -> GroundCanvas:  # fmt: skip
        """Draw the most urgent tiles around the ego; no shape depends on how many are wanted.

        Args:
            canvas: of b worlds, which follow the ego (`GroundCanvas.followed`).
            pose: (b, 3) world poses of the ego.
            route: (b, r, 2) world points [m], NaN-padded.
            place: (b,) int64, numbers of place kinds, -1: any.
            seed: (b,) int64; a tile's draw follows from it, the tile's number and what is known around.
            half: half the edge of the square around the ego in which ground is needed [m].
            tiles: tiles of the ground, drawn one after another.
            plans: tiles of the plan, drawn before them.
            options: of `Outpainter.draw`.

        """
        for count, is_plan in ((plans, True), (tiles, False)):
            for _ in range(count):
                reach = half + AHEAD if is_plan else half
                tile, wanted = canvas.urgent(pose, min(reach, 100.0), 1, plan=is_plan)
                # On a CPU a look costs nothing, and a draw a good deal.
                if pose.device.type == "cpu" and not wanted.any():
                    break
                canvas = self._tile(canvas, tile[:, 0], wanted, route, place, seed, is_plan, options)
        return canvas

    def _tile(
        self, canvas: GroundCanvas, tile: Tensor, wanted: Tensor, route: Tensor, place: Tensor, seed: Tensor,
        is_plan: bool, options: dict[str, Any],
    ) -> GroundCanvas:  # fmt: skip
        """With one tile (b, 2) drawn in the worlds that want it (b, 1)."""
        painter, token = (self.plan, 2 * TOKEN) if is_plan else (self.fine, TOKEN)
        layer, window = (
            (canvas.plan, painter.config.window) if is_plan else (canvas.fine, painter.config.window)
        )
        corner = tile[:, None] * TILE - (window - TILE) // 2
        codes, known = layer.gather(corner, canvas.first(plan=is_plan), window)
        plan = None
        if not is_plan:
            plan = canvas.plan.gather(corner // 2, canvas.first(plan=True), window // 2)[0][:, 0]
        middle = (tile + 0.5) * TILE * token  # (b, 2), on the canvas
        frame = torch.cat((middle, torch.zeros_like(middle[:, :1])), dim=-1)
        points = to_frame(to_frame(route, canvas.origin[:, None]), frame[:, None].to(route))
        key = tile_key(seed ^ _PLAN if is_plan else seed, tile)
        drawn, _ = painter.draw(
            codes[:, 0], known[:, 0], route_features(points, window, token), place, key, plan, **options
        )
        put = layer.put(
            drawn[:, None], wanted[:, :, None, None].expand(-1, 1, TILE, TILE), tile[:, None] * TILE
        )
        fine, planned = (canvas.fine, put) if is_plan else (put, canvas.plan)
        return GroundCanvas(fine=fine, plan=planned, block=canvas.block, origin=canvas.origin)

    def save(self, path: Path, **header: Any) -> None:
        """Write the model in half precision."""
        tensors = {
            name: tensor.half() if tensor.is_floating_point() else tensor
            for name, tensor in self.state_dict().items()
            if not name.endswith("described")
        }
        config = {"plan": self.plan.config.to_header(), "fine": self.fine.config.to_header()}
        write_tensors(path, tensors, {"kind": "ground", "config": config, **header})

    @staticmethod
    def load(path: Path) -> GroundModel:
        """Read a model.

        Raises:
            CheckpointError: the file is unusable or of another kind.

        """
        tensors, header = read_tensors(path, kind="ground")
        tokenizer = GroundTokenizer(tensors["tokenizer.palette"], tensors["tokenizer.book"])
        plan, fine = (OutpainterConfig.from_header(header["config"][name]) for name in ("plan", "fine"))
        model = GroundModel(tokenizer, tensors["patterns"], plan, fine)
        model.load_state_dict(
            {name: t.float() if t.is_floating_point() else t for name, t in tensors.items()}, strict=False
        )
        return model.eval()
