"""What a window that plays a rollout shows, and what its keys do; it needs no window itself."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from occsora_sim.grid import (
    BARRIER,
    DYNAMIC,
    FLAT,
    FRAME_SECONDS,
    FREE,
    MANMADE,
    OTHERS,
    TRAFFIC_CONE,
    VEGETATION,
    Grid,
)
from occsora_sim.rendering.pinhole import Pinhole

SPACE, ESCAPE, RIGHT, LEFT, HOME, END = 32, 256, 262, 263, 268, 269
"""Keys as GLFW numbers them; those of letters and digits are their ASCII codes."""

CAMERAS = {"1": "chase", "2": "orbit", "3": "top"}
"""By key, as on the viewer's page."""

GROUPS: dict[str, tuple[str, tuple[int, ...]]] = {
    "R": ("road users", DYNAMIC),
    "G": ("ground", FLAT),
    "B": ("buildings", (MANMADE,)),
    "V": ("vegetation", (VEGETATION,)),
    "O": ("other objects", (OTHERS, BARRIER, TRAFFIC_CONE)),
}
"""Name and labels of the classes that a key hides and shows; every class but free is in one of them."""

KEYS = (SPACE, LEFT, RIGHT, HOME, END, ESCAPE, *map(ord, ("Q", *CAMERAS, *GROUPS)))
"""All keys that `Playback.press` knows."""

HELP = (
    "space: play, pause; left, right: a frame back, on; home, end: first, last frame; "
    + ", ".join(f"{key}: {camera}" for key, camera in CAMERAS.items())
    + "; hide, show "
    + ", ".join(f"{key}: {name}" for key, (name, _) in GROUPS.items())
    + "; q, escape: close"
)
"""The keys in one line."""


@dataclass(kw_only=True)
class Playback:
    """State of a window that plays `frames` frames, FRAME_SECONDS apart.

    Attributes:
        frames: how many there are, at least 1.
        seconds: time in the rollout [s]; a frame is shown until the next one's time.
        playing: the time goes on by itself.
        camera: one of CAMERAS.
        hidden: keys of the GROUPS that are not shown.
        closed: the window is to close.

    """

    frames: int
    seconds: float = 0.0
    playing: bool = True
    camera: str = "chase"
    hidden: frozenset[str] = frozenset()
    closed: bool = False

    @property
    def frame(self) -> int:
        """Index of the frame that is shown."""
        return min(int(self.seconds / FRAME_SECONDS), self.frames - 1)

    def press(self, key: int) -> None:
        """Do what `key` stands for; a key that is not one of KEYS does nothing."""
        letter = chr(key) if key < 128 else ""
        last = self.frames - 1
        if key == SPACE:
            if not self.playing and self.frame == last:
                self.seconds = 0.0
            self.playing = not self.playing
        elif key in (LEFT, RIGHT, HOME, END):
            wanted = {LEFT: self.frame - 1, RIGHT: self.frame + 1, HOME: 0, END: last}[key]
            self.seconds = min(max(wanted, 0), last) * FRAME_SECONDS
            self.playing = False
        elif letter in CAMERAS:
            self.camera = CAMERAS[letter]
        elif letter in GROUPS:
            self.hidden ^= {letter}
        elif key == ESCAPE or letter == "Q":
            self.closed = True

    def advance(self, elapsed: float) -> None:
        """Let `elapsed` [s] go by. What plays stops at the last frame."""
        if self.playing:
            end = (self.frames - 1) * FRAME_SECONDS
            self.seconds = min(self.seconds + elapsed, end)
            self.playing = self.seconds < end

    def shown(self, occupancy: np.ndarray) -> np.ndarray:
        """A copy of `occupancy` (x, y, z) uint8 in which the hidden classes are free."""
        labels = [label for key in self.hidden for label in GROUPS[key][1]]
        return np.where(np.isin(occupancy, labels), np.uint8(FREE), occupancy)

    def pinhole(self, grid: Grid, width: int, height: int) -> Pinhole:
        """The camera in the ego frame, for a picture of `width` x `height` [pixels]."""
        camera = Pinhole(width=width, height=height)
        if self.camera == "chase":
            return camera
        reach = max(-grid.lower[0], grid.upper[0], -grid.lower[1], grid.upper[1])
        if self.camera == "orbit":  # from behind, the left and above
            eye = (-0.8 * reach, 0.5 * reach, 0.7 * reach)
        else:  # all of the grid at its ground; not quite straight down, so that ahead is up
            distance = reach / math.tan(camera.field_of_view / 2) / min(1.0, width / height)
            eye = (-1e-3 * distance, 0.0, distance)
        return Pinhole(eye=eye, target=(0.0, 0.0, 0.0), width=width, height=height)
