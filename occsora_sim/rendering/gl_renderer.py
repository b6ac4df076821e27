"""Pictures through OpenGL: Open3D's legacy visualiser in an invisible window (EGL without a display)."""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import os
import tempfile
from typing import Any

import numpy as np
from PIL import Image

from occsora_sim.rendering.mesh import Mesh
from occsora_sim.rendering.pinhole import Pinhole, load_open3d

_SUPERSAMPLING = 2  # the EGL surface has no multisampling, and voxel edges crawl without


class NoOpenGLError(Exception):
    """There is no usable OpenGL here; the ray caster can draw instead. Never reaches a user."""


class GLRenderer:
    """One invisible window that draws meshes. Use `shared_renderer`: a process keeps one window."""

    def __init__(self, width: int, height: int) -> None:
        """Open the window; `width` and `height` are the picture's size [pixels]."""
        self._open3d = load_open3d()
        self._process = os.getpid()
        self._static: Mesh | None = None
        self._geometry: list[Any] = []
        # Without the directory variable the EGL loader prints a line on standard error at every start.
        os.environ.setdefault("XDG_RUNTIME_DIR", tempfile.gettempdir())
        window = self._open3d.visualization.Visualizer()
        scale = _SUPERSAMPLING
        with self._open3d.utility.VerbosityContextManager(self._open3d.utility.VerbosityLevel.Error):
            opened = window.create_window(width=width * scale, height=height * scale, visible=False)
        if not opened:
            # Destroying a window that never opened ends the process; let go of it only.
            raise NoOpenGLError("no OpenGL context could be made")
        self._window = window
        options = window.get_render_option()
        options.light_on = False
        options.mesh_show_back_face = True
        options.background_color = np.ones(3)
        self._view = window.get_view_control()

    def draw(self, static: Mesh, moving: Mesh, camera: Pinhole) -> np.ndarray:
        """The picture (height, width, 3) uint8 of both meshes. `static` is uploaded only when it changes."""
        if os.getpid() != self._process:
            raise NoOpenGLError("a window does not survive a fork")
        if static is not self._static:
            self._window.clear_geometries()
            self._geometry = [self._upload(static)]
            self._static = static
        elif len(self._geometry) > 1:
            self._window.remove_geometry(self._geometry.pop(), reset_bounding_box=False)
        self._geometry.append(self._upload(moving))
        scale = _SUPERSAMPLING
        aim(self._view, dataclasses.replace(camera, width=camera.width * scale, height=camera.height * scale))
        pixels = np.asarray(self._window.capture_screen_float_buffer(do_render=True))
        picture = Image.fromarray((pixels * 255.0 + 0.5).astype(np.uint8)).reduce(scale)
        return np.asarray(picture)

    def close(self) -> None:
        """Destroy the window."""
        if self._window is not None and os.getpid() == self._process:
            self._window.destroy_window()
        self._window = None

    def _upload(self, mesh: Mesh) -> Any:
        geometry = triangle_mesh(mesh)
        # Without a bounding box the camera cannot be set: the static part gives it.
        self._window.add_geometry(geometry, reset_bounding_box=not self._geometry)
        return geometry


def triangle_mesh(mesh: Mesh) -> Any:
    """`mesh` as Open3D's TriangleMesh."""
    o3d = load_open3d()
    geometry = o3d.geometry.TriangleMesh()
    geometry.vertices = o3d.utility.Vector3dVector(mesh.vertices.astype(np.float64))
    geometry.triangles = o3d.utility.Vector3iVector(mesh.triangles)
    geometry.vertex_colors = o3d.utility.Vector3dVector(mesh.colours.astype(np.float64))
    return geometry


def aim(view: Any, camera: Pinhole) -> None:
    """Let Open3D's view control `view` see as `camera` does."""
    o3d = load_open3d()
    parameters = o3d.camera.PinholeCameraParameters()
    parameters.intrinsic = o3d.camera.PinholeCameraIntrinsic(camera.width, camera.height, camera.intrinsic())
    parameters.extrinsic = camera.extrinsic()
    view.convert_from_pinhole_camera_parameters(parameters, allow_arbitrary=True)
    view.set_constant_z_near(0.3)
    view.set_constant_z_far(1000.0)


_RENDERERS: dict[tuple[int, int], GLRenderer] = {}


def shared_renderer(width: int, height: int) -> GLRenderer:
    """The process's renderer for this picture size; one is kept at a time, another size closes it.

    Raises:
        NoOpenGLError: there is no OpenGL here, or the window was opened before a fork.

    """
    renderer = _RENDERERS.get((width, height))
    if renderer is None:
        close_renderers()
        renderer = GLRenderer(width, height)
        _RENDERERS[(width, height)] = renderer
    return renderer


def close_renderers() -> None:
    """Close the process's window, if it has one."""
    while _RENDERERS:
        _, renderer = _RENDERERS.popitem()
        with contextlib.suppress(RuntimeError):
            renderer.close()


atexit.register(close_renderers)
