"""A window of Open3D that draws frames of rollouts and tells which keys go down and up.

Everything here belongs on the main thread: no desktop lets another one draw, and macOS lets no other read keys.
"""

from __future__ import annotations

import ctypes
import os
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from occsora_sim.errors import MissingDependencyError
from occsora_sim.geometry import to_frame
from occsora_sim.grid import OCC3D
from occsora_sim.rendering.camera_view import clear_view, moving_mesh
from occsora_sim.rendering.gl_renderer import aim, triangle_mesh
from occsora_sim.rendering.mesh import Mesh, merge_meshes, occupancy_mesh
from occsora_sim.rendering.palette import HAZE
from occsora_sim.rendering.pinhole import load_open3d
from occsora_sim.rendering.rollout import Rollout
from occsora_sim.viewer.caption import caption_mesh
from occsora_sim.viewer.look import Look

WIDTH, HEIGHT = 1280, 720
"""Size of the window as it opens [pixels]."""

NO_DISPLAY = (
    "there is no display to open a window on: leave --open3d out and use the page in the browser, "
    "or write it with `view --html FILE.html`; an environment gives pictures with render_mode='rgb_array'"
)
"""What asks for a window ends with where nobody would see it."""

UP, DOWN, AGAIN = 0, 1, 2
"""What a key does: it goes up, goes down, or is held down for so long that it repeats."""

_KEYS = (*range(32, 97), *range(256, 270))  # all that GLFW numbers before the function keys
_PAUSE = 1 / 60  # between two looks at the keys [s]


class Window:
    """A window, empty until `draw`.

    Args:
        title: in its bar.
        pressed: told the key, as GLFW numbers it, and UP, DOWN or AGAIN.

    Raises:
        MissingDependencyError: Open3D is not installed, or there is no display.

    """

    def __init__(self, title: str, pressed: Callable[[int, int], None]) -> None:
        check_window()
        self._window = load_open3d().visualization.VisualizerWithKeyCallback()
        if not self._window.create_window(title[:80], WIDTH, HEIGHT):
            raise MissingDependencyError(NO_DISPLAY)
        options = self._window.get_render_option()
        options.light_on = False
        options.mesh_show_back_face = True
        options.background_color = np.array(HAZE) / 255.0
        for key in _KEYS:  # also those that mean nothing here: to Open3D they would mean something
            self._window.register_key_action_callback(key, _callback(pressed, key))
        self._mesh: Any = None
        self._camera = ""

    def poll(self) -> bool:
        """Read the keys and the mouse, a sixtieth of a second later. Returns False once somebody has closed it."""
        time.sleep(_PAUSE)
        return bool(self._window.poll_events())

    def draw(self, rollout: Rollout | None, frame: int, look: Look, caption: str) -> None:
        """Show a frame of `rollout` in its own ego frame, its lines, and a line of text; or this alone."""
        scene = [] if rollout is None else [_scene(rollout, frame, look)]
        view = self._window.get_view_control()
        size = view.convert_to_pinhole_camera_parameters().intrinsic
        camera = look.pinhole(rollout.grid if rollout else OCC3D, size.width, size.height)
        turned = look.camera == self._camera == "orbit"  # by the mouse: it stays
        seen_from = view.convert_to_pinhole_camera_parameters().extrinsic if turned else camera.extrinsic()
        text = caption_mesh(caption, camera.intrinsic(), seen_from)
        if self._mesh is not None:
            self._window.remove_geometry(self._mesh, reset_bounding_box=False)
        mesh = triangle_mesh(merge_meshes([*scene, text]))
        # The first mesh says how far a turn of the wheel goes.
        self._window.add_geometry(mesh, reset_bounding_box=self._mesh is None)
        self._mesh, self._camera = mesh, look.camera
        if not turned:
            aim(view, camera)
        self._window.update_renderer()  # what the mouse turns is drawn without

    def picture(self) -> np.ndarray:
        """What the window shows, (height, width, 3) uint8."""
        pixels = np.asarray(self._window.capture_screen_float_buffer(do_render=True))
        return (pixels * 255.0 + 0.5).astype(np.uint8)

    def close(self) -> None:
        """Destroy the window."""
        self._window.destroy_window()


def check_window() -> None:
    """See that a window can open.

    Raises:
        MissingDependencyError: Open3D is not installed, or there is no display.

    """
    if not has_display():
        raise MissingDependencyError(NO_DISPLAY)
    load_open3d()


def _callback(pressed: Callable[[int, int], None], key: int) -> Callable[[Any, int, int], bool]:
    def told(_: Any, action: int, modifiers: int) -> bool:
        pressed(key, action)
        return False  # who polls draws what changed

    return told


def _scene(rollout: Rollout, frame: int, look: Look) -> Mesh:
    """A frame with the ego and its lines on the ground."""
    occupancy = rollout.occupancy[frame]
    pose = torch.from_numpy(rollout.ego_pose[frame].astype(np.float32))
    route = to_frame(torch.from_numpy(rollout.route.astype(np.float32)), pose).numpy()
    planned = rollout.planned[frame]
    moving = moving_mesh(occupancy, planned[planned[:, 0] > 0.5], route, rollout.grid)
    shown, chase = look.shown(occupancy), look.camera == "chase"
    if chase:
        shown = clear_view(shown, look.pinhole(rollout.grid, WIDTH, HEIGHT), rollout.grid)
    world = occupancy_mesh(shown, rollout.grid, float(pose[2]), bottom=not chase, haze=chase)
    return merge_meshes([world, moving])


def has_display() -> bool:
    """Whether a window can open here. Open3D cannot say: without a display it draws into one that nobody sees."""
    if not sys.platform.startswith("linux"):
        return True
    # Without this one the Wayland library prints a line on standard error.
    os.environ.setdefault("XDG_RUNTIME_DIR", tempfile.gettempdir())
    for library, connect in (
        ("libX11.so.6", "XOpenDisplay"),
        ("libwayland-client.so.0", "wl_display_connect"),
    ):
        try:
            open_display = ctypes.CDLL(library)[connect]
        except OSError:
            continue
        open_display.restype = ctypes.c_void_p
        # Never closed: an X server resets when its last client leaves, and meanwhile refuses the next.
        if open_display(None):
            return True
    return False
