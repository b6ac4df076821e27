"""Vehicles that are carried on over known ground are no larger than what carries them foretells.

A draw that holds a vehicle to be elsewhere than where it was carried to puts it there beside the carried one, and the
two, which touch, would go on as one: an L, a crescent, as large as two.
"""

from __future__ import annotations

import torch
from torch import Tensor

from occsora_sim.grid import FREE
from occsora_sim.models.patches import at_edge, connected, grown, is_vehicle

_GROWTH = 1.5
"""How many times the columns that were foretold a vehicle may fill. What decodes it adds a column here and there; a
second vehicle half over it makes it half as large again."""


def as_foretold(labels: Tensor, prior: Tensor, new: Tensor) -> Tensor:
    """Drawn frames in which vehicles that grew are as they were carried.

    Args:
        labels: (n, x, y, z) uint8.
        prior: (n, x, y, z) uint8, what was foretold (`Context.prior`).
        new: (n, x, y) bool, columns of new ground.

    Returns:
        (n, x, y, z) uint8. A vehicle, or several that touch, with more than _GROWTH times the columns that were
        foretold is as foretold; whom the edge of the view cuts or who touches new ground stays as drawn, since there
        the rest of one who was half in view may come out.

    """
    drawn, told = is_vehicle(labels), is_vehicle(prior)
    there, carried = drawn.any(dim=-1), told.any(dim=-1)
    cells, blob, _ = connected((there | carried).byte())
    if not len(cells):
        return labels
    roots, number = blob.unique(return_inverse=True)
    at = tuple(cells.unbind(1))
    marks = torch.stack((there[at], carried[at], at_edge(cells, labels) | grown(new)[at]), dim=1).long()
    columns, foretold, open_ended = marks.new_zeros(len(roots), 3).index_add_(0, number, marks).unbind(1)
    grew = (foretold > 0) & (columns > _GROWTH * foretold) & (open_ended == 0)
    at = tuple(cells[grew[number]].unbind(1))
    out = labels.clone()
    out[at] = torch.where(told[at], prior[at], torch.where(drawn[at], FREE, labels[at]))
    return out
