"""Opens the window of a small rollout on the display, presses real keys, and prints what became of them as JSON.

python tests/window_driver.py FOLDER
"""

import ctypes
import json
import sys
from pathlib import Path

from PIL import Image
from small_rollout import small_rollout

from occsora_sim.viewer.window import Window


class Keyboard:
    """Keys and the pointer of the X display, through its XTest extension."""

    def __init__(self) -> None:
        self.x, self.test = ctypes.CDLL("libX11.so.6"), ctypes.CDLL("libXtst.so.6")
        self.x.XOpenDisplay.restype = ctypes.c_void_p
        self.x.XStringToKeysym.restype = ctypes.c_ulong
        self.display = ctypes.c_void_p(self.x.XOpenDisplay(None))
        # Without a window manager, keys go to the window under the pointer.
        self.test.XTestFakeMotionEvent(self.display, -1, 400, 400, ctypes.c_ulong(0))
        self.x.XSync(self.display, 0)

    def press(self, name: str) -> None:
        """Press and release the key of this X name."""
        symbol = ctypes.c_ulong(self.x.XStringToKeysym(name.encode()))
        code = self.x.XKeysymToKeycode(self.display, symbol)
        for down in (1, 0):
            self.test.XTestFakeKeyEvent(self.display, code, down, ctypes.c_ulong(0))
        self.x.XSync(self.display, 0)


def main(folder: Path) -> None:
    """Pause, look at every camera, hide the ground, scrub and close."""
    window, keyboard, found = Window(small_rollout()), Keyboard(), []
    window.step(0.0)
    for number, name in enumerate(("space", "Right", "2", "3", "g", "End", "q")):
        keyboard.press(name)
        going = [window.step(0.0) for _ in range(3)][-1]
        state = window.playback
        found.append([name, going, state.playing, state.frame, state.camera, sorted(state.hidden)])
        if going:
            Image.fromarray(window.picture()).save(folder / f"{number}.png")
    window.close()
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
