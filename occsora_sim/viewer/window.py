"""A window of Open3D that plays a rollout; `playback` says what it shows and what its keys do."""

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
from occsora_sim.rendering.camera_view import clear_view, moving_mesh
from occsora_sim.rendering.gl_renderer import aim, triangle_mesh
from occsora_sim.rendering.mesh import Mesh, merge_meshes, occupancy_mesh
from occsora_sim.rendering.palette import HAZE
from occsora_sim.rendering.pinhole import load_open3d
from occsora_sim.rendering.rollout import Rollout
from occsora_sim.viewer.playback import HELP, KEYS, Playback

WIDTH, HEIGHT = 1280, 720
"""Size of the window as it opens [pixels]."""

NO_DISPLAY = (
    "there is no display to open a window on: use the browser viewer (`view` without --open3d), "
    "or write its page with --html FILE.html"
)
"""What `view --open3d` ends with where nobody would see the window."""

_PAUSE = 1 / 60  # between two looks at the keys [s]


def show_window(rollout: Rollout) -> None:
    """Play `rollout` in a window until it is closed.

    Raises:
        MissingDependencyError: Open3D is not installed, or there is no display.

    """
    window = Window(rollout)
    print(HELP, flush=True)
    try:
        before = time.monotonic()
        while window.step((now := time.monotonic()) - before):
            before = now
            time.sleep(_PAUSE)
    finally:
        window.close()


class Window:
    """The window of one rollout, each frame in its own ego frame.

    Attributes:
        playback: what is shown.

    """

    def __init__(self, rollout: Rollout) -> None:
        """Open the window. Raises as `show_window`."""
        if not has_display():
            raise MissingDependencyError(NO_DISPLAY)
        o3d = load_open3d()
        self.playback = Playback(frames=rollout.frames)
        self._rollout = rollout
        self._drawn: tuple[Any, ...] = ()
        self._mesh: Any = None
        self._window = o3d.visualization.VisualizerWithKeyCallback()
        title = f"occsora-sim  {rollout.header.get('world', '')}"[:80]
        if not self._window.create_window(title, WIDTH, HEIGHT):
            raise MissingDependencyError(NO_DISPLAY)
        options = self._window.get_render_option()
        options.light_on = False
        options.mesh_show_back_face = True
        options.background_color = np.array(HAZE) / 255.0
        for key in KEYS:
            self._window.register_key_callback(key, self._press(key))

    def step(self, elapsed: float) -> bool:
        """Read the keys, let `elapsed` [s] go by and draw. Returns False once the window is to close."""
        if not self._window.poll_events() or self.playback.closed:
            return False
        self.playback.advance(elapsed)
        self._draw()
        return True

    def picture(self) -> np.ndarray:
        """What the window shows, (height, width, 3) uint8."""
        pixels = np.asarray(self._window.capture_screen_float_buffer(do_render=True))
        return (pixels * 255.0 + 0.5).astype(np.uint8)

    def close(self) -> None:
        """Destroy the window."""
        self._window.destroy_window()

    def _press(self, key: int) -> Callable[[Any], bool]:
        def pressed(_: Any) -> bool:
            self.playback.press(key)
            return False  # `step` draws what changed

        return pressed

    def _draw(self) -> None:
        state = self.playback
        wanted = (state.frame, state.camera, state.hidden)
        if wanted == self._drawn:
            return
        if self._mesh is not None:
            self._window.remove_geometry(self._mesh, reset_bounding_box=False)
        mesh = triangle_mesh(self._scene())
        # The first mesh says how far a turn of the wheel goes.
        self._window.add_geometry(mesh, reset_bounding_box=self._mesh is None)
        self._mesh = mesh
        if state.camera != "orbit" or self._drawn[1:2] != ("orbit",):  # the mouse has turned it since
            view = self._window.get_view_control()
            size = view.convert_to_pinhole_camera_parameters().intrinsic
            aim(view, state.pinhole(self._rollout.grid, size.width, size.height))
        self._window.update_renderer()  # what the mouse turns is drawn without
        self._drawn = wanted

    def _scene(self) -> Mesh:
        """The frame that is shown, with the ego and its lines on the ground."""
        state, rollout = self.playback, self._rollout
        occupancy = rollout.occupancy[state.frame]
        pose = torch.from_numpy(rollout.ego_pose[state.frame].astype(np.float32))
        route = to_frame(torch.from_numpy(rollout.route.astype(np.float32)), pose).numpy()
        planned = rollout.planned[state.frame]
        moving = moving_mesh(occupancy, planned[planned[:, 0] > 0.5], route, rollout.grid)
        shown, chase = state.shown(occupancy), state.camera == "chase"
        if chase:
            shown = clear_view(shown, state.pinhole(rollout.grid, WIDTH, HEIGHT), rollout.grid)
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
