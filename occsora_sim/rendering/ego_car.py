"""The ego vehicle as a small mesh: body, cabin, wheels and lights: a person sees a car and its heading."""

from __future__ import annotations

import functools
import math

import numpy as np

from occsora_sim.rendering.mesh import Mesh, merge_meshes
from occsora_sim.rendering.palette import EGO, GLASS, HEADLAMP, REAR_LAMP, SHADOW, TYRE

EGO_LENGTH, EGO_WIDTH, EGO_HEIGHT = 4.084, 1.73, 1.56
"""Size of the nuScenes recording car, a Renault Zoe [m]."""

EGO_CENTRE = 1.3
"""How far the body's centre lies ahead of the rear axle [m]."""

_WHEELBASE = 2.588
_LIGHT = np.array([-0.35, 0.45, 0.82], dtype=np.float32)


@functools.cache
def ego_car_mesh() -> Mesh:
    """The car in its own frame (origin on the ground under the rear axle), lit from behind and above."""
    rear, front = EGO_CENTRE - EGO_LENGTH / 2, EGO_CENTRE + EGO_LENGTH / 2
    half = EGO_WIDTH / 2
    sill, belt, roof = 0.62, 0.95, EGO_HEIGHT
    skirt = [(rear, 0.28), (rear, sill), (front, sill), (front, 0.28)]
    body = [(rear, sill), (rear + 0.1, belt), (front - 0.95, belt), (front - 0.05, sill)]
    cabin = [(rear + 0.1, belt), (rear + 0.55, 1.5), (front - 1.95, 1.5), (front - 1.0, belt)]
    lid = [(rear + 0.5, 1.48), (rear + 0.56, roof), (front - 2.0, roof), (front - 1.9, 1.48)]
    shadow = [(rear - 0.06, 0.02), (rear - 0.06, 0.04), (front + 0.06, 0.04), (front + 0.06, 0.02)]
    parts = [
        _slab(shadow, half + 0.07, half + 0.07, SHADOW),
        _slab(skirt, half, half, EGO),
        _slab(body, half, half - 0.07, EGO),
        _slab(cabin, half - 0.1, 0.6, GLASS),
        _slab(lid, 0.62, 0.58, EGO),
    ]
    for side in (-1, 1):
        lamp = [(rear - 0.02, 0.66), (rear + 0.02, 0.84), (rear + 0.1, 0.84), (rear + 0.1, 0.66)]
        parts.append(_slab(lamp, 0.17, 0.17, REAR_LAMP).moved((0.0, side * (half - 0.2), 0.0)))
        head = [(front - 0.2, 0.6), (front - 0.2, 0.72), (front - 0.06, 0.66), (front + 0.01, 0.55)]
        parts.append(_slab(head, 0.18, 0.18, HEADLAMP).moved((0.0, side * (half - 0.24), 0.0)))
        for axle in (0.0, _WHEELBASE):
            angles = np.linspace(0.0, -2.0 * math.pi, 14, endpoint=False)
            tyre = [(axle + 0.33 * math.cos(a), 0.33 + 0.33 * math.sin(a)) for a in angles]
            parts.append(_slab(tyre, 0.12, 0.12, TYRE).moved((0.0, side * (half - 0.1), 0.0)))
    return merge_meshes(parts)


def _slab(profile: list[tuple[float, float]], low: float, high: float, colour: tuple[int, int, int]) -> Mesh:
    """A convex side profile (n, 2) of x and z [m], pulled to both sides.

    The half width is `low` at the profile's lowest and `high` at its highest point.
    """
    outline = np.array(profile, dtype=np.float32)
    bottom, top = outline[:, 1].min(), outline[:, 1].max()
    width = low + (high - low) * (outline[:, 1] - bottom) / (top - bottom)
    left = np.stack((outline[:, 0], width, outline[:, 1]), axis=1)
    right = left * np.array([1, -1, 1], dtype=np.float32)
    centre = np.concatenate((left, right)).mean(axis=0)
    n = len(outline)
    polygons = [left, right] + [
        np.stack((left[i], right[i], right[(i + 1) % n], left[(i + 1) % n])) for i in range(n)
    ]
    vertices, triangles, colours, start = [], [], [], 0
    for polygon in polygons:
        normal = np.cross(polygon[1] - polygon[0], polygon[2] - polygon[0])
        normal /= np.linalg.norm(normal) + 1e-9
        corners = polygon
        if normal @ (polygon.mean(axis=0) - centre) < 0:
            corners, normal = polygon[::-1], -normal
        shade = 0.62 + 0.4 * max(0.0, float(normal @ _LIGHT))
        fan = [(start, start + i, start + i + 1) for i in range(1, len(corners) - 1)]
        vertices.append(corners)
        triangles.extend(fan)
        colours.append(np.tile(np.array(colour, dtype=np.float32) / 255.0 * shade, (len(corners), 1)))
        start += len(corners)
    return Mesh(
        vertices=np.concatenate(vertices).astype(np.float32),
        triangles=np.array(triangles, dtype=np.int32),
        colours=np.clip(np.concatenate(colours), 0, 1).astype(np.float32),
    )
