"""A lit triangle mesh from an occupancy frame: exposed faces only, with occlusion and sun in the colours.

Frame: the ego's (x forward, y left, z up, [m]). All is vectorised over the faces; a voxel face becomes four
vertices of its own and two triangles, so that each corner carries its own light.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from occsora_sim.errors import SceneError
from occsora_sim.grid import FREE, MANMADE, OCC3D, VEGETATION, Grid
from occsora_sim.rendering.palette import HAZE, class_colours

SUN_AZIMUTH = math.radians(-125.0)
"""Direction in which the sun stands in the world, from x counter-clockwise [rad]."""

SUN_ELEVATION = math.radians(48.0)
"""Height of the sun above the horizon [rad]."""

HAZE_START, HAZE_END = 0.68, 1.15
"""Where the haze begins and where it hides everything, in distances from the ego to the front border."""

DIRECTIONS = np.array([(1, 0, 0), (-1, 0, 0), (0, 1, 0), (0, -1, 0), (0, 0, 1), (0, 0, -1)], dtype=np.int64)
"""The outward normals of a voxel's six faces; a face's direction is its row here."""

_AMBIENT = np.array([0.60, 0.56, 0.58, 0.58, 0.63, 0.34], dtype=np.float32)
_SUN = np.float32((1.0 - _AMBIENT[4]) / math.sin(SUN_ELEVATION))
# What lies flat in the sun has exactly the palette's colour. Both lights are white: they darken, and never tint.
_OCCLUSION = np.array(
    [0.0, 0.55, 0.72, 0.87, 1.0], dtype=np.float32
)  # by the number of free cells at a corner
_CORNERS = ((-1, -1), (1, -1), (1, 1), (-1, 1))


@dataclass(frozen=True, kw_only=True)
class Mesh:
    """Triangles with a colour at each vertex.

    Attributes:
        vertices: (v, 3) float32 [m].
        triangles: (f, 3) int32, counter-clockwise seen from outside.
        colours: (v, 3) float32 in [0, 1].

    """

    vertices: np.ndarray
    triangles: np.ndarray
    colours: np.ndarray

    def moved(self, offset: tuple[float, float, float], height: float = 0.0) -> Mesh:
        """The mesh turned by offset[2] [rad] about z, then shifted by (offset[0], offset[1], height) [m]."""
        cos, sin = math.cos(offset[2]), math.sin(offset[2])
        turn = np.array([[cos, sin, 0], [-sin, cos, 0], [0, 0, 1]], dtype=np.float32)
        vertices = self.vertices @ turn + np.array([offset[0], offset[1], height], dtype=np.float32)
        return Mesh(vertices=vertices, triangles=self.triangles, colours=self.colours)


def merge_meshes(meshes: list[Mesh]) -> Mesh:
    """All `meshes` as one."""
    starts = np.cumsum([0] + [len(mesh.vertices) for mesh in meshes])
    return Mesh(
        vertices=np.concatenate([np.zeros((0, 3), np.float32)] + [mesh.vertices for mesh in meshes]),
        triangles=np.concatenate(
            [np.zeros((0, 3), np.int32)]
            + [mesh.triangles + np.int32(start) for mesh, start in zip(meshes, starts[:-1], strict=True)]
        ),
        colours=np.concatenate([np.zeros((0, 3), np.float32)] + [mesh.colours for mesh in meshes]),
    )


def sun_direction(heading: float = 0.0) -> np.ndarray:
    """Unit vector (3,) towards the sun in the frame of an ego whose yaw in the world is `heading` [rad]."""
    azimuth = SUN_AZIMUTH - heading
    flat = math.cos(SUN_ELEVATION)
    return np.array(
        [flat * math.cos(azimuth), flat * math.sin(azimuth), math.sin(SUN_ELEVATION)], dtype=np.float32
    )


def occupancy_mesh(
    occupancy: np.ndarray,
    grid: Grid = OCC3D,
    heading: float = 0.0,
    *,
    bottom: bool = False,
    haze: bool = True,
) -> Mesh:
    """The lit mesh of an occupancy frame.

    Args:
        occupancy: (x, y, z) uint8 labels; FREE is empty.
        grid: where the voxels lie.
        heading: yaw of the ego in the world [rad]; the sun stands still in the world.
        bottom: also make the faces that look down, which no camera above the ground sees.
        haze: fade into the haze towards the border of the grid.

    Raises:
        SceneError: the occupancy does not have three axes.

    """
    solid, strides = _padded_solid(occupancy)
    sun = sun_direction(heading)
    # One look-up gives both: the low half counts free cells, the high half free cells that the sun reaches.
    light = ((1 + 16 * _sunlit(solid, sun).astype(np.uint8)) * ~solid).ravel()
    flat = solid.ravel()
    inside = np.flatnonzero(flat)
    padded = np.zeros(solid.shape, np.uint8)
    padded[1:-1, 1:-1, 1:-1] = occupancy
    labels = padded.ravel()
    palette = class_colours().astype(np.float32) / 255.0

    vertices, colours, flips = [], [], []
    for index, normal in enumerate(DIRECTIONS):
        if index == 5 and not bottom:
            continue
        step = int(normal @ strides)
        faces = inside[light[inside + step] > 0]
        axis = index // 2
        # Tangents ordered so that the corners run counter-clockwise seen from outside.
        first, second = (
            ((axis + 1) % 3, (axis + 2) % 3) if index % 2 == 0 else ((axis + 2) % 3, (axis + 1) % 3)
        )
        front = faces + step
        cells = np.stack(np.unravel_index(faces, solid.shape), axis=-1).astype(np.float32) - 0.5
        centre = light[front]
        towards_sun = max(0.0, float(normal @ sun))
        base = palette[labels[faces]] * _height_shade(labels[faces], cells[:, 2], index)[:, None]
        corner_vertices, corner_colours, corner_light = [], [], []
        for i, j in _CORNERS:
            side, other = i * strides[first], j * strides[second]
            count = centre + light[front + side] + light[front + other] + light[front + side + other]
            free = count & 15
            sunny = (count >> 4) / free.astype(np.float32)
            occlusion = _OCCLUSION[free]
            shade = (_AMBIENT[index] * occlusion + _SUN * towards_sun * sunny)[:, None]
            corner = cells.copy()
            corner[:, axis] += 0.5 * normal[axis]
            corner[:, first] += 0.5 * i
            corner[:, second] += 0.5 * j
            corner_vertices.append(corner)
            corner_colours.append(base * shade)
            corner_light.append(occlusion + sunny * towards_sun)
        vertices.append(np.stack(corner_vertices, axis=1))
        colours.append(np.stack(corner_colours, axis=1))
        # Split along the brighter diagonal, else the interpolation of a dark corner shows as a crease.
        flips.append(corner_light[0] + corner_light[2] < corner_light[1] + corner_light[3])

    points = np.concatenate(vertices).reshape(-1, 3) * grid.voxel + np.array(grid.lower, dtype=np.float32)
    shades = np.concatenate(colours).reshape(-1, 3)
    flip = np.concatenate(flips)[:, None]
    quads = 4 * np.arange(len(flip), dtype=np.int32)[:, None]
    triangles = np.where(
        flip, np.array([[1, 2, 3, 1, 3, 0]], np.int32), np.array([[0, 1, 2, 0, 2, 3]], np.int32)
    )
    if haze:
        shades = hazed(points, shades, grid.upper[0])
    return Mesh(
        vertices=points.astype(np.float32),
        triangles=(triangles + quads).reshape(-1, 3).astype(np.int32),
        colours=np.clip(shades, 0.0, 1.0).astype(np.float32),
    )


def hazed(points: np.ndarray, colours: np.ndarray, border: float) -> np.ndarray:
    """`colours` (v, 3) of vertices `points` (v, 3), faded into the haze that ends beyond `border` [m]."""
    distance = np.hypot(points[:, 0], points[:, 1]) / np.float32(border)
    fade = np.clip((distance - HAZE_START) / (HAZE_END - HAZE_START), 0.0, 1.0).astype(np.float32)
    fade = (fade * fade * (3.0 - 2.0 * fade))[:, None]
    return colours * (1.0 - fade) + (np.array(HAZE, dtype=np.float32) / 255.0) * fade


def _padded_solid(occupancy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What is not free, with a free cell around it (x + 2, y + 2, z + 2), and its strides [cells] (3,)."""
    if occupancy.ndim != 3:
        raise SceneError(
            f"a picture needs one occupancy frame (x, y, z), not an array of shape {occupancy.shape}"
        )
    solid = np.zeros(tuple(n + 2 for n in occupancy.shape), dtype=bool)
    solid[1:-1, 1:-1, 1:-1] = occupancy != FREE
    return solid, np.array([solid.shape[1] * solid.shape[2], solid.shape[2], 1], dtype=np.int64)


def _sunlit(solid: np.ndarray, sun: np.ndarray) -> np.ndarray:
    """Which cells see the sun, bool of the shape of `solid`: no solid cell on the way up along `sun`.

    Layer by layer: the ray from layer z crosses layer z + k at k * sun_xy / sun_z, so that layer's shadow
    is a shifted copy of it.
    """
    layers = np.ascontiguousarray(solid.transpose(2, 0, 1))
    shadow: np.ndarray = np.zeros(layers.shape, dtype=bool)
    depth, nx, ny = layers.shape
    slope = sun[:2] / sun[2]
    filled = np.flatnonzero(layers.any(axis=(1, 2)))
    for k in range(1, depth):
        dx, dy = (round(float(k * s)) for s in slope)
        if abs(dx) >= nx or abs(dy) >= ny:
            break
        to_x, from_x = slice(max(0, -dx), nx - max(0, dx)), slice(max(0, dx), nx - max(0, -dx))
        to_y, from_y = slice(max(0, -dy), ny - max(0, dy)), slice(max(0, dy), ny - max(0, -dy))
        for z in filled[filled >= k] - k:
            shadow[z, to_x, to_y] |= layers[z + k, from_x, from_y]
    return np.logical_not(shadow).transpose(1, 2, 0)


def _height_shade(labels: np.ndarray, height: np.ndarray, direction: int) -> np.ndarray:
    """Brightness (n,) float32 of faces by height [voxels]: crowns lighten upwards, storeys band the walls."""
    shade = np.ones(len(labels), dtype=np.float32)
    crown = labels == VEGETATION
    shade[crown] = np.minimum(0.82 + 0.012 * height[crown], 1.0)
    if direction < 4:
        wall = labels == MANMADE
        shade[wall] = np.where((height[wall].astype(np.int64) % 7) >= 4, 0.87, 1.0)
    return shade
