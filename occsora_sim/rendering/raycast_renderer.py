"""Pictures without OpenGL: one ray per pixel on the CPU, through Open3D's ray-casting scene."""

from __future__ import annotations

from typing import Any

import numpy as np

from occsora_sim.rendering.mesh import Mesh
from occsora_sim.rendering.palette import HAZE
from occsora_sim.rendering.pinhole import Pinhole, load_open3d


class RaycastRenderer:
    """Draws meshes by casting rays; needs no display and no graphics driver."""

    def __init__(self) -> None:
        self._open3d = load_open3d()
        self._static: Mesh | None = None
        self._scene: Any = None

    def draw(self, static: Mesh, moving: Mesh, camera: Pinhole) -> np.ndarray:
        """The picture (height, width, 3) uint8 of both meshes. `static` is indexed only when it changes."""
        if static is not self._static:
            self._scene, self._static = self._index(static), static
        core = self._open3d.core
        rays = self._open3d.t.geometry.RaycastingScene.create_rays_pinhole(
            core.Tensor(camera.intrinsic()), core.Tensor(camera.extrinsic()), camera.width, camera.height
        )
        depth, colour = self._cast(self._scene, static, rays)
        near_depth, near_colour = self._cast(self._index(moving), moving, rays)
        picture = np.where((near_depth < depth)[..., None], near_colour, colour)
        return (np.clip(picture, 0.0, 1.0) * 255.0 + 0.5).astype(np.uint8)

    def _index(self, mesh: Mesh) -> Any:
        core = self._open3d.core
        scene = self._open3d.t.geometry.RaycastingScene()
        if len(mesh.triangles):
            scene.add_triangles(core.Tensor(mesh.vertices), core.Tensor(mesh.triangles.astype(np.uint32)))
        return scene

    @staticmethod
    def _cast(scene: Any, mesh: Mesh, rays: Any) -> tuple[np.ndarray, np.ndarray]:
        """Depth (h, w) and colour (h, w, 3) of what each ray meets; else infinity and haze."""
        shape = tuple(rays.shape)[:2]
        if not len(mesh.triangles):
            return np.full(shape, np.inf, np.float32), np.zeros((*shape, 3), np.float32)
        answer = scene.cast_rays(rays)
        depth = answer["t_hit"].numpy()
        hit = np.isfinite(depth)
        u, v = np.moveaxis(answer["primitive_uvs"].numpy()[hit], -1, 0)
        corners = mesh.triangles[answer["primitive_ids"].numpy()[hit]]
        weights = np.stack((1 - u - v, u, v), axis=-1)
        colour = np.empty((*shape, 3), np.float32)
        colour[:] = np.array(HAZE, dtype=np.float32) / 255.0
        colour[hit] = np.einsum("nk,nkc->nc", weights, mesh.colours[corners])
        return depth, colour
