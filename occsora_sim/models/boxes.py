"""Moving vehicles keep their shape: each is drawn as a box as long and wide as it is, or as its class can be.

A vehicle that is carried on chunk by chunk is resampled each time, and what decodes it adds a column here and there:
after a quarter of a minute it is a star. A rectangle fitted to it anew each time (by its second moments) cannot drift.
"""

from __future__ import annotations

import torch
from torch import Tensor

from occsora_sim.grid import DYNAMIC, FREE, Grid
from occsora_sim.models.columns import index_of_class
from occsora_sim.models.patches import at_edge, connected, is_vehicle, mean_of, rectangles

_LEAST, _MOST = 0.88, 1.12
"""Bounds of a vehicle's sides, as shares of its class's mean."""

_MERGED = 1.7
"""Longer than this share of its class's mean length it is more than one, and left alone."""


def as_boxes(labels: Tensor, stands: Tensor, size: Tensor, grid: Grid) -> Tensor:
    """Drawn frames in which vehicles that move are boxes.

    Args:
        labels: (n, x, y, z) uint8.
        stands: (n, x, y) bool, columns of vehicles that stand; who has more of them than others stays as it is.
        size: (len(DYNAMIC), 3) mean length and width [m] and height [voxels] of each class; a length of one metre or
            less says that it is not known, and nothing of that class is touched.
        grid: the voxel grid.

    Returns:
        (n, x, y, z) uint8. Vehicles that the edge of the view cuts, that are several in one, or that have fewer than
        half of their class's columns stay as they are. A box takes only what is free or was its own.

    """
    vehicle = is_vehicle(labels)
    image = (labels * vehicle).amax(dim=-1)
    cells, patch, _ = connected((image > 0).byte())
    if not len(cells):
        return labels
    roots, number = patch.unique(return_inverse=True)
    m = len(roots)
    count = torch.bincount(number, minlength=m)

    row, i, j = cells.unbind(1)
    place = grid.centres_xy(labels.device)[i, j].double()
    middle, sides, angle = rectangles(place, number, count, grid.voxel)
    edge = at_edge(cells, image)
    about = torch.stack((edge, stands[row, i, j]), dim=1).double()
    share = mean_of(about, number, count)
    cut, still = share[:, 0] > 0, share[:, 1] > 0.5  # who turns has columns that hardly move
    kind = index_of_class(image[row, i, j])
    votes = torch.zeros(m, len(DYNAMIC), device=labels.device)
    votes.index_put_((number, kind), torch.ones(len(number), device=labels.device), accumulate=True)
    kind = votes.argmax(dim=1)
    usual = size[kind].double()
    whole = count * grid.voxel**2 >= 0.5 * usual[:, 0] * usual[:, 1]
    wanted = ~cut & ~still & whole & (usual[:, 0] > 1) & (sides[:, 0] <= _MERGED * usual[:, 0])
    if not bool(wanted.any()):
        return labels
    sides = torch.minimum(torch.maximum(sides, _LEAST * usual[:, :2]), _MOST * usual[:, :2])
    out = labels.clone()
    mine = wanted[number]
    columns = out[row[mine], i[mine], j[mine]]
    lowest = vehicle[row, i, j].byte().argmax(dim=-1)
    out[row[mine], i[mine], j[mine]] = torch.where(is_vehicle(columns), FREE, columns)
    level = torch.full((m,), labels.shape[-1], device=labels.device).scatter_reduce_(
        0, number, lowest, reduce="amin"
    )
    centres = grid.centres_xy(labels.device).double()
    z = torch.arange(labels.shape[-1], device=labels.device)
    frames = cells[roots, 0].tolist()
    for one in wanted.nonzero()[:, 0].tolist():
        c, s = torch.cos(angle[one]), torch.sin(angle[one])
        dx, dy = (centres - middle[one]).unbind(-1)
        box = ((c * dx + s * dy).abs() <= sides[one, 0] / 2) & ((c * dy - s * dx).abs() <= sides[one, 1] / 2)
        a, b = box.nonzero().unbind(1)
        frame = out[frames[one], a, b]
        body = (z >= level[one]) & (z < level[one] + usual[one, 2].round())
        body = body & (frame == FREE)
        out[frames[one], a, b] = torch.where(body, DYNAMIC[int(kind[one])], frame)
    return out
