"""Routes: progress along a polyline that cannot be earned twice, and the stretch ahead of the ego."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from occsora_sim.constants import constant
from occsora_sim.errors import SceneError
from occsora_sim.geometry import to_frame


@dataclass(frozen=True, kw_only=True)
class Routes:
    """b polylines in the world frame, padded to r points by repeating the last.

    Attributes:
        points: (b, r, 2) [m].
        arc: (b, r) arc length from the first point [m].

    """

    points: torch.Tensor
    arc: torch.Tensor

    @property
    def length(self) -> torch.Tensor:
        """Arc length of each route, shape (b,) [m]."""
        return self.arc[:, -1]

    def select(self, rows: Sequence[int]) -> Routes:
        """The routes `rows`."""
        return Routes(points=self.points[list(rows)], arc=self.arc[list(rows)])

    def replace(self, rows: Sequence[int], other: Routes) -> Routes:
        """These routes with `rows` taken from `other`, in order."""
        lists = list(self.points.unbind())
        for row, points in zip(rows, other.points.unbind(), strict=True):
            lists[row] = points
        return make_routes(lists)

    def project(
        self, position: torch.Tensor, near: torch.Tensor, reach: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The closest point of each route, looked for near the last one.

        The window keeps a route that crosses itself from lending its later part to an earlier visit.

        Args:
            position: (b, 2) [m].
            near: (b,) the arc length of the last projection [m].
            reach: (b,) how far from it to look, either way [m].

        Returns:
            arc length (b,) and distance (b,) [m].

        """
        arc, distance = self.follow(position[:, None], near, reach[:, None])
        return arc[:, 0], distance[:, 0]

    def follow(
        self, positions: torch.Tensor, near: torch.Tensor, reach: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """`project` for positions (b, f, 2) one after another, each near the one before: arc lengths and distances
        (b, f) [m]; reach is (b, f).
        """
        start, edge = self.points[:, :-1], self.points.diff(dim=1)  # (b, r - 1, 2)
        size, begin = edge.norm(dim=-1), self.arc[:, :-1]
        length = size.clamp(min=1e-6)
        offset = positions[:, :, None] - start[:, None]  # (b, f, r - 1, 2)
        beside = (offset * edge[:, None]).sum(dim=-1) / length[:, None]
        arcs, distances = [], []
        for frame, around in enumerate(reach.unbind(1)):
            low = ((near - around)[:, None] - begin).clamp(min=0.0)
            high = (near + around)[:, None] - begin
            along = torch.minimum(
                torch.maximum(beside[:, frame], torch.minimum(low, size)), torch.minimum(high, size)
            )
            foot = start + edge * (along / length)[..., None]
            distance = (positions[:, frame, None] - foot).norm(dim=-1)
            distance = distance.masked_fill((high < 0) | (low > size), torch.inf)
            best = distance.argmin(dim=1, keepdim=True)
            near = (begin + along).gather(1, best)[:, 0]
            arcs.append(near)
            distances.append(distance.gather(1, best)[:, 0])
        return torch.stack(arcs, dim=1), torch.stack(distances, dim=1)

    def at(self, arc: torch.Tensor) -> torch.Tensor:
        """Points (b, n, 2) [m] at arc lengths `arc` (b, n) [m], held at the ends."""
        arc = torch.minimum(arc.clamp(min=0.0), self.length[:, None])
        # Not by searchsorted, which copies arcs that lie beside other numbers of their rows.
        index = (self.arc[:, None] <= arc[..., None]).sum(-1).clamp(1, self.arc.shape[1] - 1)
        before, after = self.arc.gather(1, index - 1), self.arc.gather(1, index)
        part = ((arc - before) / (after - before).clamp(min=1e-6)).clamp(0.0, 1.0)[..., None]
        spread = index[..., None].expand(*index.shape, 2)
        return self.points.gather(1, spread - 1) * (1 - part) + self.points.gather(1, spread) * part

    def ahead(self, pose: torch.Tensor, arc: torch.Tensor, count: int, spacing: float) -> torch.Tensor:
        """The next `count` points (b, count, 2) [m] after `arc` (b,), `spacing` apart, in the ego frame."""
        steps = constant(tuple(spacing * k for k in range(1, count + 1)), arc.device, arc.dtype)
        return to_frame(self.at(arc[:, None] + steps), pose[:, None])


def make_routes(polylines: Sequence[torch.Tensor]) -> Routes:
    """Pad polylines, each (r_i, 2) [m], into one batch.

    Raises:
        SceneError: a route has fewer than two points, or is not finite.

    """
    for index, line in enumerate(polylines):
        if line.ndim != 2 or line.shape[0] < 2 or line.shape[1] != 2 or not bool(torch.isfinite(line).all()):
            raise SceneError(
                f"route {index} has shape {tuple(line.shape)}: it needs two finite points or more, (r, 2); "
                "choose a start with a route"
            )
    size = max(len(line) for line in polylines)
    points = torch.stack(
        [torch.cat((line, line[-1:].expand(size - len(line), 2))).float() for line in polylines]
    )
    steps = points.diff(dim=1).norm(dim=-1)
    return Routes(points=points, arc=torch.cat((steps.new_zeros(len(points), 1), steps.cumsum(dim=1)), dim=1))
