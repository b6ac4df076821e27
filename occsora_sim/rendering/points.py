"""Voxels as a cloud of points in a PLY file, which MeshLab, CloudCompare, Blender and Open3D read."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from occsora_sim.atomic_file import atomic_path
from occsora_sim.grid import CLASSES, FREE, OCC3D, Grid
from occsora_sim.rendering.palette import class_colours

POINT = np.dtype(
    [
        ("x", "<f4"),
        ("y", "<f4"),
        ("z", "<f4"),
        ("red", "u1"),
        ("green", "u1"),
        ("blue", "u1"),
        ("class", "u1"),
    ]
)
"""A point of the file: the centre of its voxel in the ego frame [m], its colour, its label."""


def write_points(occupancy: np.ndarray, path: str | Path, grid: Grid = OCC3D) -> int:
    """Write a point for each occupied voxel of a frame as binary PLY, whole or not at all; returns how many.

    Args:
        occupancy: (x, y, z) uint8 labels. The names of the classes stand in the file's comments.
        path: of the .ply.
        grid: where the voxels lie.

    Raises:
        ConfigurationError: the place cannot be written to.

    """
    cells = np.argwhere(occupancy != FREE)
    labels = occupancy[tuple(cells.T)]
    points = np.empty(len(cells), POINT)
    points["x"], points["y"], points["z"] = ((cells + 0.5) * grid.voxel + np.array(grid.lower)).T
    points["red"], points["green"], points["blue"] = class_colours()[labels].T
    points["class"] = labels
    kinds = {"<f4": "float", "|u1": "uchar"}
    header = [
        "ply",
        "format binary_little_endian 1.0",
        "comment occsora-sim; x ahead, y to the left, z up, from the ego [m]",
        *(f"comment class {label} {CLASSES[label]}" for label in np.unique(labels)),
        f"element vertex {len(points)}",
        *(f"property {kinds[POINT[name].str]} {name}" for name in POINT.names or ()),
        "end_header\n",
    ]
    with atomic_path(path) as temporary:
        temporary.write_bytes("\n".join(header).encode("ascii") + points.tobytes())
    return len(points)
