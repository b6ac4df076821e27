"""Boxes of road users where there are only voxels: found once, when an episode begins, and followed over the history.

Patches of columns of one class become rectangles of the same second moments; those of the newest frame are followed
back under the assumption that nobody changes speed much in a second or two. Headings come from the way, and where
somebody stands from the long side of the shape.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from occsora_sim.geometry import compose, to_frame, wrap_angle
from occsora_sim.grid import BICYCLE, CAR, DRIVEABLE, DYNAMIC, FRAME_SECONDS, PEDESTRIAN, SMALL, Grid
from occsora_sim.road_users import RoadUsers, from_tracks
from occsora_sim.voxels.frame_patches import USUAL, FramePatches, patches_of

FASTEST: dict[int, float] = {PEDESTRIAN: 3.0, BICYCLE: 10.0}
"""[m/s]; others up to _FASTEST."""

_FASTEST = 35.0

_IN_PART = (0.45, 0.7)
"""Below these shares of the usual length and width a vehicle is seen in part; below _CAR of its length a car is."""

_CAR = 0.6

_STANDS, _STOPPED = 0.4, 0.2
"""Moved less than this in the whole history [m], somebody stands: exactly; so does a vehicle in the last frame, since
earlier ones may have shown a part of it.
"""

_STEADY: dict[int, float] = {PEDESTRIAN: 1e9, BICYCLE: 5.0, CAR: 0.5}
"""How sure it is beforehand that the pace stays (`_paths`), by label; others like cars."""

_LOST, _SIDEWAYS = 3.0, 3.0
"""Error [m] in an older frame beyond which another does not match; how much worse it is to move sideways."""


def fit_road_users(labels: Tensor, poses: Tensor, grid: Grid) -> RoadUsers:
    """The road users of one world from what was seen of them.

    Args:
        labels: (h, x, y, z) uint8, the last frames, oldest first, each in its own ego frame.
        poses: (h, 3) world poses of these frames.
        grid: the voxel grid.

    Returns:
        One row with as many slots as there are road users in the newest frame.

    """
    poses = poses.double().cpu()
    frames = [patches_of(frame.cpu(), grid) for frame in labels]
    h, newest = len(frames), frames[-1]
    m = len(newest.label)
    chains = _follow(frames, poses.numpy(), grid)  # (m, h), the patch in each frame, or -1
    present = chains >= 0
    boxes = np.zeros((m, h, 5))
    for k, frame in enumerate(frames):
        boxes[present[:, k], k] = frame.box[chains[present[:, k], k]]
    cut = np.zeros((m, h), dtype=bool)
    for k, frame in enumerate(frames):
        cut[present[:, k], k] = frame.cut[chains[present[:, k], k]]
    size = _sizes(boxes, present, cut, newest.label)
    boxes = _completed(boxes, cut | _in_part(boxes, newest.label[:, None]), size, newest.label, grid)
    world = compose(poses[None].expand(m, h, 3), torch.from_numpy(boxes[..., :3])).numpy()
    small = np.isin(newest.label, SMALL)
    moves, here = _moves(world, present, small)
    # Who stands does in one place, or it would seem to creep by a tenth of a voxel.
    world[~moves, :, :2] = _mean(world[~moves, :, :2], here[~moves])[:, None]
    velocity = np.zeros((m, 2))
    steady = np.array([_STEADY.get(int(one), _STEADY[CAR]) for one in newest.label])
    world[moves, :, :2], velocity[moves] = _paths(world[moves, :, :2], present[moves], steady[moves])
    yaw = _headings(boxes[:, -1], world, velocity, newest.label, labels[-1].cpu(), grid)
    # One heading would turn a car in a bend: each pose keeps its own long side, the way round that the newest has.
    turned = wrap_angle(torch.from_numpy(world[..., 2] - yaw[:, None])).numpy()
    along = np.where(np.abs(turned) > math.pi / 2, world[..., 2] + math.pi, world[..., 2])
    turns = ~small & moves
    world[..., 2] = wrap_angle(torch.from_numpy(np.where(turns[:, None], along, yaw[:, None]))).numpy()
    world[:, -1, 2] = yaw
    return from_tracks(
        torch.from_numpy(world),
        torch.from_numpy(present),
        torch.from_numpy(velocity),
        torch.from_numpy(np.concatenate((size, newest.height[:, None]), axis=1)),
        torch.from_numpy(newest.label),
        torch.arange(m),
    )


def _follow(frames: list[FramePatches], poses: np.ndarray, grid: Grid) -> np.ndarray:
    """Which patch of each frame is each of the newest frame's: (m, h) int64, -1 where it is not found."""
    h, m = len(frames), len(frames[-1].label)
    chains = np.full((m, h), -1)
    chains[:, -1] = np.arange(m)
    if h < 2 or not m:
        return chains
    world = [_world(frame.box[:, :2], pose) for frame, pose in zip(frames, poses, strict=True)]
    label, yaw = frames[-1].label, frames[-1].box[:, 2] + poses[-1, 2]
    found = []
    for i in range(m):
        same = np.flatnonzero(frames[-2].label == label[i])
        way = world[-1][i] - world[-2][same]
        reach = FASTEST.get(int(label[i]), _FASTEST) * FRAME_SECONDS
        for j, step in zip(same, way, strict=True):
            if np.hypot(*step) < reach:
                found.append((_cost(i, step, yaw[i], frames, world, poses, grid), i, j))
    taken: set[int] = set()
    for _, i, j in sorted(found):
        if chains[i, -2] < 0 and j not in taken:
            chains[i, -2] = j
            taken.add(int(j))
    for k in range(h - 3, -1, -1):
        chains[:, k] = _matched(chains, k, frames, world)
    return chains


def _cost(
    i: int,
    step: np.ndarray,
    yaw: float,
    frames: list[FramePatches],
    world: list[np.ndarray],
    poses: np.ndarray,
    grid: Grid,
) -> float:
    """How badly it fits that patch i of the newest frame moved by `step` (2,) [m] in the last: its way, how much of it
    is sideways, and how far off somebody is where it would have been in older frames.
    """
    label, now = frames[-1].label[i], world[-1][i]
    long = label not in SMALL
    sideways = abs(math.cos(yaw) * step[1] - math.sin(yaw) * step[0]) if long else 0.0
    cost = 0.1 * float(np.hypot(*step)) + _SIDEWAYS * sideways
    for back in range(2, len(frames)):
        then = now - back * step
        local = to_frame(torch.from_numpy(then), torch.from_numpy(poses[-1 - back]))
        inside = all(low < float(at) < up for low, at, up in zip(grid.lower, local, grid.upper, strict=False))
        others = world[-1 - back][frames[-1 - back].label == label]
        if inside:
            off = np.hypot(*(others - then).T).min(initial=_LOST)
            cost += min(float(off), _LOST) / back
    return cost


def _matched(chains: np.ndarray, k: int, frames: list[FramePatches], world: list[np.ndarray]) -> np.ndarray:
    """The patches (m,) of frame k that are nearest to where the chains lead, and that these are nearest to."""
    m = len(chains)
    later = chains[:, k + 1], chains[:, k + 2]
    expected = np.full((m, 2), np.inf)
    both = (later[0] >= 0) & (later[1] >= 0)
    expected[both] = 2 * world[k + 1][later[0][both]] - world[k + 2][later[1][both]]
    out = np.full(m, -1)
    if not both.any() or not len(world[k]):
        return out
    distance = np.hypot(*(expected[:, None] - world[k][None]).transpose(2, 0, 1))
    distance = np.where(frames[-1].label[:, None] == frames[k].label[None], distance, np.inf)
    near = distance.argmin(1)
    mutual = (distance.argmin(0)[near] == np.arange(m)) & (distance[np.arange(m), near] < _LOST)
    out[mutual] = near[mutual]
    return out


def _world(place: np.ndarray, pose: np.ndarray) -> np.ndarray:
    """Places (m, 2) of an ego frame at `pose` (3,) in the world."""
    cos, sin = math.cos(pose[2]), math.sin(pose[2])
    return pose[:2] + place @ np.array([[cos, sin], [-sin, cos]])


def _in_part(boxes: np.ndarray, label: np.ndarray) -> np.ndarray:
    """Whether boxes (..., 5) are too short or narrow to be whole vehicles of their labels (...)."""
    usual = np.array([USUAL.get(one, (1.0, 1.0)) for one in range(max(DYNAMIC) + 1)])[label]
    least = usual * np.array(_IN_PART)
    least[..., 0] = np.where(label == CAR, usual[..., 0] * _CAR, least[..., 0])
    return (boxes[..., 3:] < least).any(-1) & ~np.isin(label, SMALL)


def _sizes(boxes: np.ndarray, present: np.ndarray, cut: np.ndarray, label: np.ndarray) -> np.ndarray:
    """Lengths and widths (m, 2) [m]: the mean over frames that show it whole; else the largest, and the usual one at
    least.
    """
    usual = np.array([USUAL[int(one)] for one in label]).reshape(-1, 2)
    whole = present & ~cut & ~_in_part(boxes, label[:, None])
    count = whole.sum(1)[:, None]
    mean = (boxes[..., 3:] * whole[..., None]).sum(1) / np.maximum(count, 1)
    largest = (boxes[..., 3:] * present[..., None]).max(1, initial=0.0)
    size = np.where(count > 0, mean, np.maximum(largest, usual))
    # A few columns do not tell the size of small ones.
    return np.where(np.isin(label, SMALL)[:, None], usual, size)


def _completed(
    boxes: np.ndarray, partial: np.ndarray, size: np.ndarray, label: np.ndarray, grid: Grid
) -> np.ndarray:
    """Boxes (m, h, 5) with the whole size where they are seen in part: away from the ego, over the edge of the view."""
    out = boxes.copy()
    yaw = boxes[..., 2]
    axes = np.stack((np.cos(yaw), np.sin(yaw), -np.sin(yaw), np.cos(yaw)), axis=-1).reshape(*yaw.shape, 2, 2)
    outward = np.sign(np.einsum("mhad,mhd->mha", axes, boxes[..., :2]))
    lacking = (
        np.maximum(size[:, None] - boxes[..., 3:], 0) * (partial & ~np.isin(label, SMALL)[:, None])[..., None]
    )
    out[..., :2] += np.einsum("mha,mhad->mhd", outward * lacking / 2, axes)
    return out


def _moves(world: np.ndarray, present: np.ndarray, small: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Who of those at world poses (m, h, 3) moves (m,) bool, and when each was where it is now, (m, h) bool."""
    away = np.hypot(*(world[..., :2] - world[:, -1:, :2]).transpose(2, 0, 1)) * present
    here = present & (away < _STANDS)
    if world.shape[1] < 2:
        return np.zeros(len(world), dtype=bool), here
    last = away[:, -2] > np.where(small, 0.0, _STOPPED)
    return present[:, -2] & last & ~here.all(1, where=present), here


def _mean(places: np.ndarray, present: np.ndarray) -> np.ndarray:
    """The mean (m, 2) of those of places (m, h, 2) that are `present` (m, h)."""
    return (places * present[..., None]).sum(1) / present.sum(1, keepdims=True)


def _paths(places: np.ndarray, present: np.ndarray, steady: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The places (m, h, 2) [m] on the paths of constant acceleration that fit those `present` (m, h) best, and the
    velocities (m, 2) [m/s] at their ends; by least squares, where `steady` (m,) times the square of half the
    acceleration [m / frame^2] counts like the square of a place's error. Columns tell a place to 0.1 m, half a step of
    a pedestrian in a frame.
    """
    powers = np.arange(1.0 - places.shape[1], 1.0)[:, None] ** np.arange(3)  # (h, 3)
    seen = powers * present[..., None]
    normal = seen.transpose(0, 2, 1) @ powers
    normal[:, 2, 2] += steady
    path = np.linalg.solve(normal, seen.transpose(0, 2, 1) @ places)  # (m, 3, 2)
    return powers @ path, path[:, 1] / FRAME_SECONDS


def _headings(
    boxes: np.ndarray,
    world: np.ndarray,
    velocity: np.ndarray,
    label: np.ndarray,
    labels: Tensor,
    grid: Grid,
) -> np.ndarray:
    """Headings (m,) [rad]: of vehicles along the long side, forwards; of small ones that move along their way."""
    long = world[:, -1, 2]
    speed, way = np.hypot(*velocity.T), np.arctan2(velocity[:, 1], velocity[:, 0])
    forwards = np.cos(way - long) >= 0
    # In right-hand traffic who stands has more of the road on the left; those that move, and the ego, tell which it is.
    left = _road_on_the_left(np.concatenate((boxes, [[0.0, 0.0, 0.0, 0.0, 0.0]])), labels, grid)
    drives = (speed > 1.0) & ~np.isin(label, SMALL)
    votes = float(np.sign(left[-1])) + float((np.sign(left[:-1]) * np.where(forwards, 1, -1))[drives].sum())
    on_the_left = np.where(
        left[:-1] == 0, np.cos(boxes[:, 2]) >= 0, left[:-1] * (1 if votes >= 0 else -1) > 0
    )
    forwards = np.where(speed > 0, forwards, on_the_left)
    yaw = np.where(forwards, long, long + math.pi)
    small = np.isin(label, SMALL) & (speed > 0)
    # A patch as wide as it is long, or seen in part, may have its long side across.
    astray = (speed > 2.0) & (np.abs(np.cos(way - long)) < 0.7)
    return wrap_angle(torch.from_numpy(np.where(small | astray, way, yaw))).numpy()


def _road_on_the_left(boxes: np.ndarray, labels: Tensor, grid: Grid) -> np.ndarray:
    """How much more road there is 2 to 8 m on the left of boxes (m, 5) of a frame (x, y, z) than on the right: (m,)."""
    road = (labels == DRIVEABLE).any(-1).numpy()
    aside = np.arange(2.0, 8.0, grid.voxel)

    def share(side: float) -> np.ndarray:
        x = boxes[:, :1] - side * aside * np.sin(boxes[:, 2:3])
        y = boxes[:, 1:2] + side * aside * np.cos(boxes[:, 2:3])
        i, j = (
            np.floor((at - low) / grid.voxel).astype(int) for at, low in zip((x, y), grid.lower, strict=False)
        )
        inside = (i >= 0) & (i < road.shape[0]) & (j >= 0) & (j < road.shape[1])
        return (road[i.clip(0, road.shape[0] - 1), j.clip(0, road.shape[1] - 1)] & inside).mean(1)

    return share(1.0) - share(-1.0)
