"""What a camera sees besides the voxels: sky, the haze beyond the grid, and lines painted on the ground."""

from __future__ import annotations

import math

import numpy as np

from occsora_sim.grid import DRIVEABLE, FLAT, OCC3D, Grid, class_mask
from occsora_sim.rendering.mesh import Mesh
from occsora_sim.rendering.palette import HAZE, SKY_ZENITH

_DOME_RADIUS = 400.0


def sky_mesh() -> Mesh:
    """A dome of 400 m with the sky's gradient, closed below by the haze, in which the grid's ground fades."""
    # Elevation [rad] of each ring and how much of the zenith's colour it has.
    rings = [(-0.6, 0.0), (0.0, 0.0), (0.05, 0.18), (0.15, 0.5), (0.4, 0.85), (math.pi / 2, 1.0)]
    steps = 32
    angles = np.linspace(0.0, 2.0 * math.pi, steps, endpoint=False)
    haze, zenith = (np.array(colour, dtype=np.float32) / 255.0 for colour in (HAZE, SKY_ZENITH))
    vertices, colours = [], []
    for elevation, blue in rings:
        flat, up = math.cos(elevation), math.sin(elevation)
        ring = np.stack((flat * np.cos(angles), flat * np.sin(angles), np.full(steps, up)), axis=1)
        vertices.append(ring * _DOME_RADIUS)
        colours.append(np.tile(haze + (zenith - haze) * blue, (steps, 1)))
    ring_index = np.arange(len(rings) - 1)[:, None] * steps
    here, after = np.arange(steps)[None], (np.arange(steps)[None] + 1) % steps
    quads = [ring_index + here, ring_index + steps + here, ring_index + steps + after, ring_index + after]
    a, b, c, d = (q.ravel() for q in quads)
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * _DOME_RADIUS
    ground = np.concatenate((corners, np.full((4, 1), -3.0)), axis=1)
    start = len(rings) * steps
    floor = np.array([[start, start + 1, start + 2], [start, start + 2, start + 3]])
    return Mesh(
        vertices=np.concatenate((*vertices, ground)).astype(np.float32),
        triangles=np.concatenate((np.stack((a, b, c), 1), np.stack((a, c, d), 1), floor)).astype(np.int32),
        colours=np.concatenate((*colours, np.tile(haze, (4, 1)))).astype(np.float32),
    )


def ground_height(occupancy: np.ndarray, points: np.ndarray, grid: Grid = OCC3D) -> np.ndarray:
    """Height [m] of the ground's upper surface under `points` (n, 2) [m] of the ego frame, (n,) float32.

    Where a column holds no ground, it is the commonest height of the road, or the nominal one.
    """
    flat = class_mask(FLAT).numpy()[occupancy]
    index = np.floor((np.asarray(points)[:, :2] - np.array(grid.lower[:2])) / grid.voxel).astype(np.int64)
    inside = ((index >= 0) & (index < np.array(grid.shape[:2]))).all(axis=1)
    index = np.clip(index, 0, np.array(grid.shape[:2]) - 1)
    columns = flat[index[:, 0], index[:, 1]]
    top = grid.shape[2] - np.argmax(columns[:, ::-1], axis=1)
    road = (occupancy == DRIVEABLE).sum(axis=(0, 1))
    usual = int(np.argmax(road)) + 1 if road.any() else grid.ground + 1
    top = np.where(inside & columns.any(axis=1), top, usual)
    return (top * grid.voxel + grid.lower[2]).astype(np.float32)


def ribbon_mesh(
    points: np.ndarray, height: np.ndarray, width: float, colour: tuple[int, int, int], fade: float = 0.35
) -> Mesh:
    """A flat band along a polyline.

    Args:
        points: (n, 2) [m], n >= 2.
        height: (n,) [m] of the surface; the band floats 5 cm above it.
        width: of the band [m].
        colour: red, green, blue in 0 to 255.
        fade: how much of the colour is lost to white at the far end.

    """
    points = np.asarray(points, dtype=np.float32)
    along = np.gradient(points, axis=0)
    along /= np.linalg.norm(along, axis=1, keepdims=True) + 1e-6
    across = np.stack((-along[:, 1], along[:, 0]), axis=1) * (width / 2)
    z = (np.asarray(height, dtype=np.float32) + 0.05)[:, None]
    left, right = np.concatenate((points + across, z), axis=1), np.concatenate((points - across, z), axis=1)
    n = len(points)
    i = np.arange(n - 1)
    triangles = np.concatenate((np.stack((i, i + n, i + n + 1), 1), np.stack((i, i + n + 1, i + 1), 1)))
    blend = np.linspace(0.0, fade, n, dtype=np.float32)[:, None]
    colours = np.array(colour, dtype=np.float32) / 255.0 * (1 - blend) + blend
    return Mesh(
        vertices=np.concatenate((left, right)).astype(np.float32),
        triangles=triangles.astype(np.int32),
        colours=np.concatenate((colours, colours)).astype(np.float32),
    )
