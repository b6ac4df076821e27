"""Train the newcomers by themselves, on maps from above and who is on them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from occsora_sim.grid import DYNAMIC, FRAME_SECONDS, Grid
from occsora_sim.models.columns import index_of_class, road_user_image
from occsora_sim.models.context import route_mask
from occsora_sim.models.newcomers import CELL, Newcomers, Present, surroundings
from occsora_sim.models.patches import connected, count_vehicles, mean_of, rectangles
from occsora_sim.models.world_model import WorldModel
from occsora_sim.training.windows import Windows, WindowSource

BATCH = 8
"""Frames of a step."""

_OPEN = 0.5
"""Share of the frames in which it is left open how many vehicles there are."""

_ALL, _HALF = 0.3, 0.3
"""Shares of the frames that are hidden as a whole, and beyond a straight line; of the rest a rim is."""


@dataclass(frozen=True, kw_only=True)
class Maps:
    """n frames seen from above, and the m whole road users on them.

    Attributes:
        around: (n, CHANNELS, x / CELL, y / CELL) uint8, `surroundings` times CELL squared.
        vehicles: (n,) float32, how many are in view.
        present: who is there; `row` ascending.
        first: (n + 1,) int64, number of each frame's first road user.
        size: (len(DYNAMIC), 3) mean length and width [m] and height [voxels] of each class; one where none is seen.

    """

    around: Tensor
    vehicles: Tensor
    present: Present
    first: Tensor
    size: Tensor

    @property
    def rate(self) -> Tensor:
        """(len(DYNAMIC),) road users of each class on a cell, in the mean."""
        n, _, x, y = self.around.shape
        return torch.bincount(self.present.kind, minlength=len(DYNAMIC)) / (n * x * y)


@torch.no_grad()
def draw_maps(
    model: WorldModel, source: WindowSource, windows: int, draws: Callable[[int], Iterable[int]] = range
) -> Maps:
    """The newest history frame of each of some windows; of fewer where `draws` ends before its count."""
    grid, h = model.config.grid, model.config.history
    around, vehicles, rows, marks = [], [], [], []
    for step in draws(-(-windows // 8)):
        drawn = source.draw(min(8, windows - step * 8), step)
        labels = drawn.labels[:, h - 1]
        mask = route_mask(drawn.route, drawn.poses[:, h - 1 : h], grid)[:, 0]
        around.append((surroundings(labels, mask) * CELL**2).round().to(torch.uint8))
        vehicles.append(count_vehicles(labels))
        row, mark = road_users(drawn, grid)
        rows.append(row + step * 8)
        marks.append(mark)
    row, mark = torch.cat(rows), torch.cat(marks)
    kind = mark[:, 0].long()
    count = torch.bincount(kind, minlength=len(DYNAMIC))[:, None]
    size = mark.new_zeros(len(DYNAMIC), 3).index_add_(0, kind, mark[:, 5:])
    present = Present(row=row, kind=kind, cell=mark[:, 1:3].long(), velocity=mark[:, 3:5])
    frames = torch.cat(around)
    first = torch.zeros(len(frames) + 1, dtype=torch.long, device=row.device)
    first[1:] = torch.bincount(row, minlength=len(frames)).cumsum(0)
    return Maps(
        around=frames,
        vehicles=torch.cat(vehicles),
        present=present,
        first=first,
        size=torch.where(count > 0, size / count.clamp(min=1), 1.0),
    )


def road_users(windows: Windows, grid: Grid) -> tuple[Tensor, Tensor]:
    """The road users in the newest history frames, as patches of columns that the edge of the view does not cut: the
    frame of each (m,), ascending, and (m, 8) its class's index in DYNAMIC, the cell of its middle, its velocity [m/s],
    its length and width [m] and its height [voxels].
    """
    image = road_user_image(windows.labels[:, windows.history - 1])
    cells, patch, _ = connected(image[..., 0])
    roots, number = patch.unique(return_inverse=True)
    m = len(roots)
    if not m:
        return roots, torch.zeros(0, 8, device=image.device)
    count = torch.bincount(number, minlength=m)

    row, i, j = cells.unbind(1)
    middle, sides, _ = rectangles(cells[:, 1:].float() + 0.5, number, count)
    velocity = mean_of(windows.displacement[row, 0, i, j], number, count) / FRAME_SECONDS
    height = mean_of(image[row, i, j, 1].float(), number, count)
    kind = index_of_class(image[..., 0][tuple(cells[roots].unbind(1))])
    last = cells.new_tensor(image.shape[1:3]) - 1
    edge = ((cells[:, 1:] == 0) | (cells[:, 1:] == last)).any(dim=1)
    cut = mean_of(edge.float(), number, count) > 0
    marks = torch.cat(
        (kind[:, None].float(), (middle / CELL).floor(), velocity, sides * grid.voxel, height[:, None]), dim=1
    )
    owner, order = cells[roots, 0][~cut].sort(stable=True)
    return owner, marks[~cut][order]


def newcomer_loss(
    newcomers: Newcomers, pool: Maps, voxel: float, generator: torch.Generator
) -> tuple[Tensor, dict[str, float]]:
    """Loss on frames of the pool of which a part is hidden, each turned by quarters at random."""
    n = len(pool.around)
    rows = torch.randint(n, (min(BATCH, n),), generator=generator)
    around = pool.around[rows.to(pool.around.device)].float() / CELL**2
    turns = int(torch.randint(4, (), generator=generator)) if around.shape[2] == around.shape[3] else 0
    around = torch.rot90(around, turns, (2, 3))
    hidden = hide(len(rows), around.shape[2:], CELL * voxel, generator).to(around.device)
    around = torch.cat((around[:, :-2], around[:, -2:] * ~hidden[:, None]), dim=1)
    vehicles = pool.vehicles[rows.to(pool.vehicles.device)].clone()
    vehicles[(torch.rand(len(rows), generator=generator) < _OPEN).to(vehicles.device)] = math.nan
    parts = []
    for number, row in enumerate(rows.tolist()):
        here = slice(int(pool.first[row]), int(pool.first[row + 1]))
        cell, velocity = pool.present.cell[here], pool.present.velocity[here]
        for _ in range(turns):  # as torch.rot90: what lay along the first axis lies along the second
            cell = torch.stack((hidden.shape[1] - 1 - cell[:, 1], cell[:, 0]), dim=1)
            velocity = torch.stack((-velocity[:, 1], velocity[:, 0]), dim=1)
        mine = hidden[number][cell[:, 0], cell[:, 1]]
        parts.append(
            (
                torch.full_like(cell[mine, 0], number),
                pool.present.kind[here][mine],
                cell[mine],
                velocity[mine],
            )
        )
    row, kind, cell, velocity = (torch.cat(part) for part in zip(*parts, strict=True))
    present = Present(row=row, kind=kind, cell=cell, velocity=velocity)
    return newcomers.loss(around, hidden, vehicles, present)


def hide(count: int, shape: tuple[int, ...], edge: float, generator: torch.Generator) -> Tensor:
    """What is hidden of `count` frames of `shape` cells with `edge` [m], (count, *shape) bool: all of it, what lies
    beyond a random line, or a rim, as it comes into view when the ego moves.
    """
    chance = torch.rand(count, generator=generator)
    angle = torch.rand(count, generator=generator) * 2 * math.pi
    offset = torch.rand(count, generator=generator) * 1.2 - 0.2  # in half views
    rim = 8 + 8 * torch.rand(count, generator=generator)  # [m]
    gone = 14 * torch.rand(count, generator=generator) - 2  # [m], of the ego
    x, y = (torch.linspace(-1, 1, side) for side in shape)
    x, y = torch.meshgrid(x, y, indexing="ij")
    line = x * angle.cos()[:, None, None] + y * angle.sin()[:, None, None] > offset[:, None, None]
    halves = [side * edge / 2 for side in shape]
    ahead = (x * halves[0] + gone[:, None, None]).abs() > (halves[0] - rim)[:, None, None]
    beside = (y * halves[1]).abs() > (halves[1] - rim)[:, None, None]
    out = torch.where((chance < _ALL + _HALF)[:, None, None], line, ahead | beside)
    return out | (chance < _ALL)[:, None, None]
