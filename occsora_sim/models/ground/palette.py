"""Kinds of static columns: a small palette, so that a column of the ground is one number.

Towns hold some 130 distinct columns of what stands still, but 48 of them cover 99.97 % of their area; the others are
taken for the nearest of these.
"""

from __future__ import annotations

import torch
from torch import Tensor

from occsora_sim.grid import BARRIER, DRIVEABLE, FREE, MANMADE, OTHER_FLAT, SIDEWALK, TERRAIN, VEGETATION
from occsora_sim.models.columns import is_dynamic, is_ground, without_road_users

KINDS = 48
"""Kinds in a palette."""

ROAD, PAVEMENT, FLAT, OPEN, BUILDING, GREEN, FENCE, NOTHING = range(8)
"""Groups of kinds: what a person would call a column at a glance (`group_of`)."""

GROUPS = ("road", "pavement", "other flat", "terrain", "building", "vegetation", "barrier", "nothing")


def common_columns(palettes: list[Tensor], counts: list[Tensor], kinds: int = KINDS) -> Tensor:
    """The commonest columns, the commonest first: (kinds, z) uint8.

    Args:
        palettes: (k, z) uint8 each, columns of labels.
        counts: (k,) each, how often each occurs.
        kinds: how many are wanted; where there are fewer, the last is repeated.

    """
    columns = without_road_users(torch.cat(palettes))
    unique, index = torch.unique(columns, dim=0, return_inverse=True)
    total = torch.zeros(len(unique), dtype=torch.float64).index_add_(0, index, torch.cat(counts).double())
    order = total.argsort(descending=True, stable=True)[:kinds]
    order = torch.cat((order, order[-1:].expand(kinds - len(order))))
    return unique[order]


def nearest_kind(columns: Tensor, palette: Tensor) -> Tensor:
    """Kind (k,) uint8 of the nearest column of `palette` (kinds, z) to `columns` (k, z) uint8: what one stands on and
    whether there is anything above count most, then the number of voxels that differ.
    """
    ours, theirs = without_road_users(columns), palette
    voxels = (ours[:, None] != theirs).sum(-1)
    ground = _stood_on(ours)[:, None] != _stood_on(theirs)
    above = _above(ours)[:, None] != _above(theirs)
    return (voxels + 8 * ground + 16 * above).argmin(-1).to(torch.uint8)


def group_of(palette: Tensor) -> Tensor:
    """Group (kinds,) int64 of each column of a palette (kinds, z) uint8 of static labels."""
    stood_on = _stood_on(palette)
    group = torch.full_like(stood_on, NOTHING, dtype=torch.int64)
    for label, of in ((DRIVEABLE, ROAD), (SIDEWALK, PAVEMENT), (OTHER_FLAT, FLAT), (TERRAIN, OPEN)):
        group[stood_on == label] = of
    above = _above(palette)
    group[above == VEGETATION] = GREEN
    group[above == MANMADE] = torch.where(stood_on == DRIVEABLE, ROAD, BUILDING)[above == MANMADE]
    group[(above != 0) & (above != VEGETATION) & (above != MANMADE)] = FENCE
    return group


def _stood_on(columns: Tensor) -> Tensor:
    """Label (k,) of the ground in columns (k, z), 0 where there is none."""
    return (columns * is_ground(columns)).amax(-1)


def _above(columns: Tensor) -> Tensor:
    """Label (k,) of what stands on the ground in columns (k, z): the lowest such voxel's, 0 where there is none."""
    solid = (columns != FREE) & ~is_ground(columns) & ~is_dynamic(columns)
    first = solid.int().argmax(-1, keepdim=True)
    label = columns.gather(-1, first)[:, 0]
    label = torch.where(label == 0, torch.full_like(label, BARRIER), label)
    return torch.where(solid.any(-1), label, torch.zeros_like(label))
