"""Pedestrians walk on, and small road users keep their place between the voxels.

A pedestrian fills a column or two and takes a step of one to two columns a frame: the nearest column is too coarse a
memory for where he is, and too coarse a measure of his speed. So each frame's small road users have an `offset`: how
far off the middle of its column each really is. A pedestrian's velocity is the line through his places in the last
frames (least squares); his way is traced back from frame to frame by the nearest pedestrian to where that leads. Nobody
of them walks or rides into the ego, which no frame shows.
"""

from __future__ import annotations

import torch
from torch import Tensor

from occsora_sim.geometry import relative, to_frame, to_world
from occsora_sim.grid import FRAME_SECONDS, PEDESTRIAN, Grid
from occsora_sim.models.motion import small_labels
from occsora_sim.models.patches import connected
from occsora_sim.models.vehicle_motion import ego_clearance, with_halfway
from occsora_sim.vehicle import Vehicle

_FIRST, _NEXT = 1.6, 1.0
"""How far from where he is expected a pedestrian is looked for a frame earlier [m]: at first, and with a speed."""

_WITHIN = 0.2
"""How far the line through a pedestrian's places moves him from the middle of his columns [m]: half a voxel, as far as
these leave open where he is."""

_NEARER = 0.05
"""What counts as nearer to the ego, in parts of the clearance that it is left."""


def walk_on(
    displacement: Tensor, images: Tensor, offsets: Tensor, poses: Tensor, grid: Grid
) -> tuple[Tensor, Tensor]:
    """Displacements of road users with those of pedestrians who are found in earlier frames by their own velocity; and
    where these really are: on the line through their places, as far as their columns allow.

    Args:
        displacement: (b, f, x, y, 2) [m] until each instant, in the newest frame's axes.
        images: (b, h, x, y, 2) uint8, `road_user_image` of the last frames, oldest first, each in its own ego frame.
        offsets: (b, h, x, y, 2) [m] of the road users in them.
        poses: (b, h, 3) their world poses.
        grid: the voxel grid.

    Returns:
        displacements (b, f, x, y, 2) and offsets (b, x, y, 2) [m] of the newest frame; all others keep theirs.

    """
    newest = offsets[:, -1].to(torch.float32, copy=True)
    h, f = images.shape[1], displacement.shape[1]
    cells, patch, place, row = _pedestrians(images[:, -1], offsets[:, -1], grid)
    if not len(cells) or h < 2:
        return displacement, newest
    places, found = [place], [torch.ones(len(place), dtype=torch.bool, device=place.device)]
    step = torch.zeros_like(place)  # a frame's way
    for k in reversed(range(h - 1)):
        _, _, earlier, at = _pedestrians(images[:, k], offsets[:, k], grid)
        expected = places[-1] - step
        if not len(earlier):
            places.append(expected)
            found.append(torch.zeros_like(found[0]))
            continue
        earlier = to_frame(to_world(earlier, poses[at, k]), poses[at, -1])
        far = torch.cdist(expected, earlier)
        far = far.masked_fill(row[:, None] != at, torch.inf)
        nearest, whose = far.min(dim=1)
        mutual = far.argmin(dim=0)[whose] == torch.arange(len(place), device=place.device)
        seen = found[-1] & mutual & (nearest < (_FIRST if k == h - 2 else _NEXT))
        here = torch.where(seen[:, None], earlier[whose], expected)
        step = torch.where(seen[:, None], places[-1] - here, step)
        places.append(here)
        found.append(seen)
    velocity, there = _line(torch.stack(places, dim=1), torch.stack(found, dim=1))
    off = (there - place).clamp(-_WITHIN, _WITHIN)
    known = found[1][patch]
    i, j = cells[known, 1], cells[known, 2]
    seconds = FRAME_SECONDS * torch.arange(1, f + 1, device=velocity.device)
    out = displacement.clone()
    out[cells[known, 0], :, i, j] = velocity[patch[known]][:, None] * seconds[:, None]
    newest[cells[known, 0], i, j] += off[patch[known]]
    return out, newest


def stop_before(
    displacement: Tensor, image: Tensor, ego: Tensor, grid: Grid, car: Vehicle | None = None
) -> Tensor:
    """Displacements with those of small road users cut to nothing who would walk or ride into the ego.

    Who would be run over standing too is left alone: that is the ego's doing. Who is near the ego already may go on
    along it, and away: one who had to stand before a car that waits for him would stand for ever.

    Args:
        displacement: (b, f, x, y, 2) [m] until each instant, in the frame's axes.
        image: (b, x, y, 2) uint8, `road_user_image` of that frame.
        ego: (b, f, 3) where the ego will be at each instant, in the frame's axes.
        grid: the voxel grid.
        car: the ego's size; None: the recording car.

    Returns:
        (b, f, x, y, 2) [m]; all others keep theirs.

    """
    small = (image[..., :1] == small_labels(image.device)).any(-1)
    cells, last, _ = connected(image[..., 0] * small)
    if not len(cells):
        return displacement
    row, i, j = cells.unbind(1)
    place, way = grid.centres_xy(displacement.device)[i, j], displacement[row, :, i, j]
    halfway, ego = with_halfway(way), with_halfway(ego)[row]  # (m, 2 f, ...)
    standing, going = (
        ego_clearance(place[:, None].expand_as(halfway), ego, car=car),
        ego_clearance(place[:, None] + halfway, ego, car=car),
    )
    walks = (going < torch.clamp(standing, max=1.0) - _NEARER).any(dim=1)
    stands = (standing < 0).any(dim=1)
    some = torch.zeros(
        2, len(cells), dtype=torch.bool, device=cells.device
    )  # of whose columns some do, by their last
    some[0, last[walks]], some[1, last[stands]] = True, True
    stops = (some[0] & ~some[1])[last]  # he stops whole, or his columns' mean would still come nearer
    out = displacement.clone()
    out[row[stops], :, i[stops], j[stops]] = 0.0
    return out


def landed(image: Tensor, way: Tensor, pose: Tensor, target_pose: Tensor, grid: Grid) -> Tensor:
    """Offsets of the small road users where `advect` puts them.

    Args:
        image: (b, x, y, 2) uint8, `road_user_image` of the newest frame.
        way: (b, f, x, y, 2) [m] from each column's middle, in its axes.
        pose: (b, 3) its world pose.
        target_pose: (b, f, 3) world poses at the instants ahead.
        grid: the voxel grid.

    Returns:
        (b, f, x, y, 2) float32 [m] in the axes of each target frame; zero elsewhere.

    """
    b, f = target_pose.shape[:2]
    nx, ny = grid.shape[:2]
    out = torch.zeros(b, f, nx, ny, 2, device=way.device)
    small = (image[..., :1] == small_labels(image.device)).any(-1)
    row, i, j = small.nonzero().unbind(1)
    points = grid.centres_xy(way.device)[i, j][:, None] + way[row, :, i, j]  # (m, f, 2)
    points = to_world(points, relative(target_pose, pose[:, None])[row])
    voxel = torch.floor((points - points.new_tensor(grid.lower[:2])) / grid.voxel).long()
    inside = (voxel >= 0).all(-1) & (voxel[..., 0] < nx) & (voxel[..., 1] < ny)
    at = (row[:, None].expand(-1, f)[inside], torch.arange(f, device=row.device).expand(len(row), f)[inside])
    x, y = voxel[inside].unbind(1)
    out[(*at, x, y)] = points[inside] - grid.centres_xy(way.device)[x, y]
    return out


def _pedestrians(image: Tensor, offset: Tensor, grid: Grid) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Pedestrians, patches of columns, of frames (b, x, y, 2) with offsets (b, x, y, 2): the columns (k, 3), the number
    of each one's pedestrian (k,), the pedestrians' places (m, 2) [m] and the rows that they are in (m,).
    """
    cells, last, _ = connected((image[..., 0] == PEDESTRIAN).byte())
    roots, patch = last.unique(return_inverse=True)
    row, i, j = cells.unbind(1)
    points = grid.centres_xy(image.device)[i, j] + offset[row, i, j].float()
    total = points.new_zeros(len(roots), 2).index_add_(0, patch, points)
    count = torch.bincount(patch, minlength=len(roots))
    return cells, patch, total / count.clamp(min=1)[:, None], cells[roots, 0]


def _line(places: Tensor, found: Tensor) -> tuple[Tensor, Tensor]:
    """Velocity [m/s] of the line through places (m, h, 2) [m], newest first, that are `found` (m, h), and its newest
    place: (m, 2) each.
    """
    time = -FRAME_SECONDS * torch.arange(places.shape[1], device=places.device)
    weight = found.to(places.dtype)
    total = weight.sum(dim=1, keepdim=True)
    mean = (weight * time).sum(dim=1, keepdim=True) / total
    late = time - mean
    middle = (weight[..., None] * places).sum(dim=1) / total
    spread = (weight * late**2).sum(dim=1, keepdim=True)
    slope = ((weight * late)[..., None] * (places - middle[:, None])).sum(dim=1) / spread.clamp(min=1e-6)
    return slope, middle - slope * mean
