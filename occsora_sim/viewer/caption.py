"""A line of text in a window of Open3D, which has none of its own: a small mesh before the camera."""

from __future__ import annotations

import numpy as np

from occsora_sim.rendering.mesh import Mesh, merge_meshes
from occsora_sim.rendering.palette import INK, PAPER
from occsora_sim.rendering.pinhole import load_open3d

_DISTANCE = 1.0  # from the camera [m], behind its near plane and before all else
_PIXEL, _MARGIN = (
    1.25,
    14.0,
)  # of the picture: a unit of the font, whose capitals are 12 high; from the corner


def caption_mesh(text: str, intrinsic: np.ndarray, extrinsic: np.ndarray) -> Mesh:
    """`text`, light on dark, at the top left of the picture of a camera.

    Args:
        text: one line of ASCII.
        intrinsic: (3, 3), camera matrix [pixels].
        extrinsic: (4, 4), world to camera.

    """
    made = load_open3d().t.geometry.TriangleMesh.create_text(text, depth=0.0)
    points = made.vertex.positions.numpy()[:, :2]
    low, high = points.min(axis=0) - 5.0, points.max(axis=0) + 5.0
    back = np.array([low, (high[0], low[1]), high, (low[0], high[1])])
    letters = _mesh(points, made.triangle.indices.numpy(), PAPER)
    plate = _mesh(back, np.array([[0, 1, 2], [0, 2, 3]]), INK)
    focal, turn, shift = intrinsic[0, 0], extrinsic[:3, :3], extrinsic[:3, 3]
    placed = []
    for mesh, distance in ((letters, _DISTANCE), (plate, 1.01 * _DISTANCE)):
        x = _MARGIN + _PIXEL * (mesh.vertices[:, 0] - low[0]) - intrinsic[0, 2]
        y = _MARGIN + _PIXEL * (high[1] - mesh.vertices[:, 1]) - intrinsic[1, 2]
        seen = np.stack((x / focal, y / focal, np.ones_like(x)), axis=1) * distance
        vertices = ((seen - shift) @ turn).astype(np.float32)
        placed.append(Mesh(vertices=vertices, triangles=mesh.triangles, colours=mesh.colours))
    return merge_meshes(placed)


def _mesh(points: np.ndarray, triangles: np.ndarray, colour: tuple[int, int, int]) -> Mesh:
    """Flat triangles (f, 3) of one colour over points (n, 2)."""
    return Mesh(
        vertices=np.pad(points, ((0, 0), (0, 1))).astype(np.float32),
        triangles=triangles.astype(np.int32),
        colours=np.tile(np.array(colour, np.float32) / 255.0, (len(points), 1)),
    )
