"""What a draw leaves that cannot be, mended: vehicles that grew, fell apart or came from nowhere, frayed edges."""

from __future__ import annotations

from torch import Tensor

from occsora_sim.grid import Grid
from occsora_sim.models.anchor import keep_standing
from occsora_sim.models.arrivals import without_uncarried
from occsora_sim.models.boxes import as_boxes
from occsora_sim.models.context import FLOW, Context, unseen
from occsora_sim.models.evenness import evened
from occsora_sim.models.foretold import as_foretold
from occsora_sim.models.newcomers import Newcomers
from occsora_sim.models.patches import is_vehicle, without_crumbs, without_shapeless


def as_it_stood(labels: Tensor, known: Context) -> Tensor:
    """Labels (b, f, x, y, z) uint8 in which vehicles that stand are as they stood."""
    flow = known.auxiliary[:, :, FLOW].movedim(2, -1)
    return keep_standing(labels, known.prior, flow, ~unseen(known.static))


def mended(labels: Tensor, known: Context, newcomers: Newcomers | None, grid: Grid) -> Tensor:
    """Drawn labels (b, f, x, y, z) uint8 in which vehicles that move are boxes, nobody is there who was not expected
    (that is for `newcomers`, where there are any), and edges are even.
    """
    labels, new = labels.flatten(0, 1), unseen(known.static).flatten(0, 1)
    if newcomers is not None:
        flow = known.auxiliary[:, :, FLOW].movedim(2, -1).flatten(0, 1)
        prior = known.prior.flatten(0, 1)
        stands = is_vehicle(prior).any(-1) & (flow == 0).all(-1)
        labels = as_foretold(without_uncarried(labels, prior), prior, new)
        labels = as_boxes(labels, stands, newcomers.size, grid)
    labels = without_shapeless(without_crumbs(labels), new)
    return evened(labels, new).unflatten(0, known.static.shape[:2])
