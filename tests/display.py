"""A virtual display for tests of windows, and a keyboard for it."""

import ctypes
import importlib.util
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
from PIL import ImageGrab

from occsora_sim.rendering.palette import INK


@contextmanager
def virtual_display() -> Iterator[str]:
    """The name of a display that nobody sees; skips the test where no window can open."""
    if not importlib.util.find_spec("open3d"):
        pytest.skip("the window needs the extra view")
    if not shutil.which("Xvfb"):
        pytest.skip("a window needs a display: apt-get install -y xvfb gives a virtual one")
    command = ["Xvfb", "-displayfd", "1", "-screen", "0", "1280x800x24", "-nolisten", "tcp"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        assert server.stdout is not None
        yield f":{server.stdout.readline().strip()}"
        server.terminate()


class XKeyboard:
    """Keys and the pointer of an X display, through its XTest extension."""

    def __init__(self, display: str) -> None:
        self.x, self.test = ctypes.CDLL("libX11.so.6"), ctypes.CDLL("libXtst.so.6")
        self.x.XOpenDisplay.restype = ctypes.c_void_p
        self.x.XStringToKeysym.restype = ctypes.c_ulong
        self.display = ctypes.c_void_p(self.x.XOpenDisplay(display.encode()))
        # Without a window manager, keys go to the window under the pointer.
        self.test.XTestFakeMotionEvent(self.display, -1, 400, 400, ctypes.c_ulong(0))
        self.x.XSync(self.display, 0)

    def press(self, name: str) -> None:
        """Press and release the key of this X name."""
        self.hold(name, True)
        self.hold(name, False)

    def hold(self, name: str, down: bool) -> None:
        """Press the key of this X name, or release it."""
        symbol = ctypes.c_ulong(self.x.XStringToKeysym(name.encode()))
        code = self.x.XKeysymToKeycode(self.display, symbol)
        self.test.XTestFakeKeyEvent(self.display, code, down, ctypes.c_ulong(0))
        self.x.XSync(self.display, 0)


def caption_width(display: str) -> int:
    """Width of the plate of the window's line of text [pixels]; 0 where there is none."""
    top = np.asarray(ImageGrab.grab(xdisplay=display))[:120]
    return int((np.abs(top.astype(int) - INK).max(axis=-1) < 8).any(axis=0).sum())
