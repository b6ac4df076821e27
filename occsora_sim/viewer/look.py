"""How a window looks at a frame: its camera, the classes that it hides, and the keys that change both."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from occsora_sim.grid import BARRIER, DYNAMIC, FLAT, FREE, MANMADE, OTHERS, TRAFFIC_CONE, VEGETATION, Grid
from occsora_sim.rendering.pinhole import Pinhole

ESCAPE = 256
"""As GLFW numbers it; the codes of letters and digits are those of ASCII."""

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

CAMERA_HELP = ", ".join(f"{key}: {camera}" for key, camera in CAMERAS.items())


@dataclass(kw_only=True)
class Look:
    """What of a frame a window shows.

    Attributes:
        camera: one of CAMERAS.
        hidden: keys of the GROUPS that are not shown.
        closed: the window is to close.

    """

    camera: str = "chase"
    hidden: frozenset[str] = frozenset()
    closed: bool = False

    def press(self, key: int) -> None:
        """Do what `key` stands for; one that stands for nothing does nothing."""
        letter = chr(key) if key < 128 else ""
        if letter in CAMERAS:
            self.camera = CAMERAS[letter]
        elif letter in GROUPS:
            self.hidden ^= {letter}
        elif key == ESCAPE:
            self.closed = True

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
