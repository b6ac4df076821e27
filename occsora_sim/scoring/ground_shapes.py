"""Shapes of the ground seen from above: widths of bands, where streets end and meet, and outlines of buildings.

Each function takes a mask of columns and the region in which it is known; what touches the region's rim, and may go on
beyond it, is left out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from occsora_sim.voxels.patches import connected

REACH = 14.0
"""Distances are measured up to this [m]: bands up to twice as wide."""

CIRCLE = 10.0
"""Radius of the circle that tells whether a street goes on [m]; wider than a street of two lanes."""

PASSABLE = 1.2
"""Half the width that a road needs to count as a street [m]."""

BEND = 2.4
"""An outline is straight where it is so for this far in either direction [m]."""

STRAIGHT = 0.2
"""Root mean square of its distances from a line there [m]; columns of 0.4 m make 0.12 m of any line, and more of one
that is read from another pose than it was written from."""

_SECTORS = 72  # of the circle, 5 degrees each
_NARROW = 24  # sectors that a street which ends can take up at most: a third of the circle


def distance_to(mask: Tensor, reach: int) -> Tensor:
    """Distance from each cell's centre to that of the nearest cell of `mask` (n, x, y) bool, in cells: (n, x, y)
    float32, exact below `reach`, and `reach` where it is farther.
    """
    x = mask.shape[1]
    at = torch.arange(x, device=mask.device).view(1, x, 1).expand(mask.shape)
    before = torch.where(mask, at, -reach).cummax(dim=1).values
    after = torch.where(mask, at, x + reach).flip(1).cummin(dim=1).values.flip(1)
    along = torch.minimum(at - before, after - at).clamp(max=reach).float().square_()
    padded = F.pad(along, (reach, reach), value=float(reach**2))
    least = along.clone()
    for step in range(-reach, reach + 1):
        other = padded[..., reach + step : reach + step + mask.shape[2]]
        least = torch.minimum(least, other + float(step**2))
    return least.sqrt_().clamp_(max=reach)


def widths(mask: Tensor, region: Tensor, voxel: float) -> Tensor:
    """Widths (k,) float32 [m] of the bands of `mask` (n, x, y) bool along their middle lines: the diameters of the
    largest discs in them, wherever a disc is larger than those beside it and lies within `region` (n, x, y) bool.

    Discs are centred on columns and between them, so that a straight band of k columns is k columns wide.
    """
    n, x, y = mask.shape
    reach = 2 * round(REACH / voxel)
    outside = torch.zeros(n, 2 * x + 3, 2 * y + 3, dtype=torch.bool, device=mask.device)
    unknown = outside | True
    outside[:, 2:-2:2, 2:-2:2] = ~mask & region
    unknown[:, 2:-2, 2:-2] = False
    unknown[:, 2:-2:2, 2:-2:2] = ~region
    distance = distance_to(outside, reach)  # [half columns]
    free = distance_to(unknown, reach)
    inside = distance[:, 2:-2, 2:-2]
    peak = F.max_pool2d(inside, 3, stride=1, padding=1)
    middle = (inside >= peak - 0.3) & (inside >= 2) & (inside < reach)
    middle &= inside <= free[:, 2:-2, 2:-2]
    band = F.max_pool2d(
        F.pad(mask.float(), (1, 1, 1, 1)), 2, stride=1
    )  # corners of columns, a row more than columns
    near = torch.zeros_like(middle)
    near[:, ::2, ::2] = mask
    near[:, 1::2, 1::2] = band[:, 1:-1, 1:-1] > 0
    near[:, 1::2, ::2] = mask[:, 1:] | mask[:, :-1]
    near[:, ::2, 1::2] = mask[:, :, 1:] | mask[:, :, :-1]
    return (inside[middle & near] - 1) * voxel


def street_nodes(road: Tensor, region: Tensor, voxel: float) -> tuple[Tensor, Tensor]:
    """Ends and junctions of the streets in `road` (n, x, y) bool: two (n,) int64.

    Around places in the middle of the road a circle of CIRCLE is drawn. Of the road that is joined to the place within
    it, it cuts two arms where a street goes on, three or more at a junction, and one, or none, where it ends in
    nothing. Neighbouring places of a kind are one end or one junction. Circles that leave `region` (n, x, y) bool are
    not judged.
    """
    n, radius = len(road), round(CIRCLE / voxel)
    ends, junctions = (torch.zeros_like(road) for _ in range(2))
    inside = distance_to(~road & region, radius)
    peak = F.max_pool2d(inside, 3, stride=1, padding=1)
    x, y = (torch.arange(size, device=road.device) for size in road.shape[1:])
    lattice = (x[:, None] + 2 * y) % 5 < 2  # some of any line's columns, whichever way it runs
    unknown = F.pad(~region, (1, 1, 1, 1), value=True)
    near = distance_to(unknown, radius + 1)[:, 1:-1, 1:-1] <= radius
    places = (road & lattice & ~near & (inside - 0.5 >= PASSABLE / voxel) & (inside >= peak - 0.3)).nonzero()
    for some in places.split(256) if len(places) else ():
        arms, spread = _arms(road, some, radius)
        frame, i, j = some.unbind(1)
        ends[frame, i, j] = (arms <= 1) & (spread <= _NARROW)
        junctions[frame, i, j] = arms >= 3
    return _groups(ends, n, radius // 4), _groups(junctions, n, radius // 2)


def _arms(road: Tensor, places: Tensor, radius: int) -> tuple[Tensor, Tensor]:
    """How many arms of the road leave the circles around `places` (k, 3), and how many sectors they take up: (k,)."""
    reach = torch.arange(-radius, radius + 1, device=road.device)
    frame, i, j = places.unbind(1)
    padded = F.pad(road, (radius, radius, radius, radius))
    patch = padded[
        frame[:, None, None],
        (i[:, None] + reach + radius)[:, :, None],
        (j[:, None] + reach + radius)[:, None],
    ]
    far = torch.hypot(reach[:, None].float(), reach.float())
    open_ = (patch & (far <= radius)).float()
    filled = torch.zeros_like(open_)
    filled[:, radius, radius] = 1.0
    while True:
        spread = F.max_pool2d(filled, 3, stride=1, padding=1) * open_
        if torch.equal(spread, filled):
            break
        filled = spread
    angle = torch.atan2(reach.float(), reach[:, None].float())
    sector = ((angle / (2 * math.pi) + 0.5) * _SECTORS).long() % _SECTORS
    rim = (far > radius - 3) & (far <= radius)
    hit = torch.zeros(len(places), _SECTORS, device=road.device)
    hit.index_add_(1, sector[rim], filled[:, rim])
    cut = hit > 0
    cut |= cut.roll(1, 1) & cut.roll(-1, 1)
    whole = cut & cut.roll(1, 1)
    cut = whole | whole.roll(-1, 1)  # an arm takes two sectors, 1.7 m, or more
    return (cut & ~cut.roll(1, 1)).sum(dim=1), cut.sum(dim=1)


def _groups(marks: Tensor, n: int, reach: int) -> Tensor:
    """Groups (n,) int64 of marked columns (n, x, y) bool that are within twice `reach` of one another."""
    wide = F.max_pool2d(marks.float(), 2 * reach + 1, stride=1, padding=reach).long()
    cells, number, _ = connected(wide)
    return torch.bincount(cells[number.unique(), 0], minlength=n)


@dataclass(frozen=True, kw_only=True)
class Buildings:
    """m buildings: patches of columns that touch along an edge and lie whole within the region.

    Attributes:
        area: (m,) float64 [m2].
        rectangularity: (m,) float64, its area over that of the smallest rectangle around it, in (0, 1]; a disc has
            0.79.
        straightness: (m,) float64, share of its outline that is straight (BEND, STRAIGHT).

    """

    area: Tensor
    rectangularity: Tensor
    straightness: Tensor


def buildings_of(mask: Tensor, region: Tensor, voxel: float) -> Buildings:
    """The buildings in `mask` (n, x, y) bool, as far as `region` (n, x, y) bool reaches."""
    cells, component, _ = connected((mask & region).long(), corners=False)
    _, number = component.unique(return_inverse=True)
    m = int(number.max()) + 1 if len(number) else 0
    place = tuple(cells.unbind(1))
    rim = F.max_pool2d(F.pad((~region).float(), (1, 1, 1, 1), value=1.0), 3, stride=1) > 0
    cut = torch.zeros(m).index_add_(0, number, rim[place].float()) > 0
    count = torch.bincount(number, minlength=m).double()
    smallest = torch.full((m,), math.inf, dtype=torch.float64)
    points = cells[:, 1:].double()
    for degrees in range(0, 90, 3):
        turn = math.radians(degrees)
        sides = []
        for a, b in ((math.cos(turn), math.sin(turn)), (-math.sin(turn), math.cos(turn))):
            along = a * points[:, 0] + b * points[:, 1]
            high = torch.full((m,), -math.inf, dtype=torch.float64).scatter_reduce(0, number, along, "amax")
            low = torch.full((m,), math.inf, dtype=torch.float64).scatter_reduce(0, number, along, "amin")
            sides.append(high - low)
        # Columns' middles fall short of a wall by half a column on average if it runs along them, and by little if it
        # crosses many.
        slope = math.tan(min(turn, math.pi / 2 - turn))
        one, other = sides[0] + 1 / (1 + slope * sides[1] / 4), sides[1] + 1 / (1 + slope * sides[0] / 4)
        smallest = torch.minimum(smallest, one * other)
    outline, straight = _outline(mask, voxel)
    long_ = torch.zeros(m, dtype=torch.float64).index_add_(0, number, outline[place].double())
    even = torch.zeros(m, dtype=torch.float64).index_add_(0, number, straight[place].double())
    return Buildings(
        area=(count * voxel**2)[~cut],
        rectangularity=(count / smallest).clamp(max=1.0)[~cut],
        straightness=(even / long_.clamp(min=1))[~cut],
    )


def _outline(mask: Tensor, voxel: float) -> tuple[Tensor, Tensor]:
    """Which columns of `mask` (n, x, y) bool lie on an outline, and on a straight piece of one."""
    full = mask.float()[:, None]
    inner = -F.max_pool2d(-F.pad(full, (1, 1, 1, 1)), 3, stride=1) > 0
    outline = mask & ~inner[:, 0]
    reach = round(BEND / voxel)
    steps = torch.arange(-reach, reach + 1, dtype=torch.float32)
    x, y = torch.meshgrid(steps, steps, indexing="ij")
    disc = (torch.hypot(x, y) <= reach + 0.5).float()
    kernels = torch.stack([disc * weight for weight in (torch.ones_like(x), x, y, x * x, y * y, x * y)])[
        :, None
    ]
    total, sx, sy, sxx, syy, sxy = F.conv2d(outline.float()[:, None], kernels, padding=reach).unbind(1)
    total = total.clamp(min=1)
    xx, yy, xy = (
        sxx / total - (sx / total) ** 2,
        syy / total - (sy / total) ** 2,
        sxy / total - sx * sy / total**2,
    )
    least = (xx + yy) / 2 - (((xx - yy) / 2) ** 2 + xy**2).clamp(min=0).sqrt()
    straight = outline & (least.clamp(min=0).sqrt() * voxel < STRAIGHT) & (total >= reach + 1)
    return outline, straight
