"""Occupancy between two frames, for a film that flows: road users are carried along, all else stays.

For pictures only. Road users are found again by class, size and place; what is not found again stands still.
"""

from __future__ import annotations

import math

import numpy as np

from occsora_sim.grid import DYNAMIC, FRAME_SECONDS, FREE, OCC3D, Grid, class_mask

_FASTEST = 17.0  # [m/s]; a match further away is another road user


class Inbetween:
    """The way from one frame to the next."""

    def __init__(self, before: np.ndarray, after: np.ndarray, motion: np.ndarray, grid: Grid = OCC3D) -> None:
        """Find each road user of `before` again in `after`.

        Args:
            before: (x, y, z) uint8 labels.
            after: (x, y, z) uint8 labels of the next frame, in its own ego frame.
            motion: (3,) the ego's pose at `after` in the frame of `before` (x [m], y [m], yaw [rad]).
            grid: where the voxels of both lie.

        """
        dynamic = class_mask(DYNAMIC).numpy()
        self._before, self._voxel = before, grid.voxel
        self._users = _road_users(before, dynamic)
        there = _road_users(after, dynamic)
        self._shifts = _shifts(self._users, there, np.asarray(motion, dtype=np.float64), grid)

    def at(self, share: float) -> np.ndarray:
        """The occupancy (x, y, z) uint8 at `share` (0 to 1) of the way, in the ego frame of `before`."""
        occupancy = self._before.copy()
        moved: list[tuple[np.ndarray, np.ndarray]] = []
        for (cells, labels), shift in zip(self._users, self._shifts, strict=True):
            step = np.rint(shift * share / self._voxel).astype(np.int64)
            if not step.any():
                continue
            occupancy[tuple(cells.T)] = FREE
            target = cells + np.array([step[0], step[1], 0])
            inside = ((target[:, :2] >= 0) & (target[:, :2] < np.array(occupancy.shape[:2]))).all(axis=1)
            moved.append((target[inside], labels[inside]))
        for cells, labels in moved:
            occupancy[tuple(cells.T)] = labels
        return occupancy


def _road_users(occupancy: np.ndarray, dynamic: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Each road user's voxels (n, 3) int64 and labels (n,): columns of one class that touch."""
    mask = dynamic[occupancy]
    columns = np.argwhere(mask.any(axis=2))
    if not len(columns):
        return []
    top = mask.shape[2] - 1 - np.argmax(mask[:, :, ::-1], axis=2)
    names = {(int(x), int(y)): int(occupancy[x, y, top[x, y]]) for x, y in columns}
    groups: list[tuple[np.ndarray, np.ndarray]] = []
    while names:
        start, label = names.popitem()
        group, frontier = [start], [start]
        while frontier:
            x, y = frontier.pop()
            for dx in (-1, 0, 1):
                for dy in (-1, 0, 1):
                    cell = (x + dx, y + dy)
                    if names.get(cell) == label:
                        del names[cell]
                        group.append(cell)
                        frontier.append(cell)
        flat = np.array(group, dtype=np.int64)
        which, z = np.nonzero(mask[flat[:, 0], flat[:, 1]])
        cells = np.concatenate((flat[which], z[:, None]), axis=1)
        groups.append((cells, occupancy[tuple(cells.T)]))
    return groups


def _shifts(
    here: list[tuple[np.ndarray, np.ndarray]],
    there: list[tuple[np.ndarray, np.ndarray]],
    motion: np.ndarray,
    grid: Grid,
) -> np.ndarray:
    """How far (n, 2) [m] each road user of `here` moves until it is found in `there`; 0 where it is not."""
    shifts = np.zeros((len(here), 2))
    if not here or not there:
        return shifts
    low = np.array(grid.lower[:2])

    def describe(users: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        centres = np.array([(cells[:, :2].mean(axis=0) + 0.5) * grid.voxel + low for cells, _ in users])
        return (
            centres,
            np.array([np.bincount(labels).argmax() for _, labels in users]),
            np.array([len(cells) for cells, _ in users]),
        )

    centre, label, size = describe(here)
    other, other_label, other_size = describe(there)
    cos, sin = math.cos(motion[2]), math.sin(motion[2])
    other = other @ np.array([[cos, sin], [-sin, cos]]) + motion[:2]
    distance = np.linalg.norm(centre[:, None] - other[None], axis=-1)
    ratio = size[:, None] / other_size[None]
    possible = (label[:, None] == other_label[None]) & (ratio > 0.5) & (ratio < 2.0)
    distance = np.where(possible & (distance < _FASTEST * FRAME_SECONDS), distance, np.inf)
    nearest, back = distance.argmin(axis=1), distance.argmin(axis=0)
    rows = np.arange(len(here))
    found = np.isfinite(distance[rows, nearest]) & (back[nearest] == rows)
    shifts[found] = other[nearest[found]] - centre[found]
    return shifts
