"""The colours of all pictures: one calm, readable colour per class, and those of what is drawn on top.

A class has one colour everywhere. Light may darken it, never tint or brighten it beyond what is said here, so that the
map, the camera and the legend show the same.
"""

from __future__ import annotations

import numpy as np

from occsora_sim.grid import CLASSES

COLOURS: dict[str, tuple[int, int, int]] = {
    "others": (151, 143, 160),
    "barrier": (206, 112, 78),
    "bicycle": (226, 64, 140),
    "bus": (243, 156, 18),
    "car": (38, 112, 214),
    "construction_vehicle": (236, 199, 32),
    "motorcycle": (158, 62, 190),
    "pedestrian": (224, 36, 48),
    "traffic_cone": (255, 108, 16),
    "trailer": (96, 84, 196),
    "truck": (0, 150, 158),
    "driveable_surface": (98, 103, 112),
    "other_flat": (140, 133, 124),
    "sidewalk": (188, 186, 181),
    "terrain": (150, 178, 112),
    "manmade": (212, 178, 128),
    "vegetation": (76, 132, 70),
    "free": (232, 237, 241),
}
"""Red, green and blue in 0 to 255 of each class of `grid.CLASSES`."""

SKY_ZENITH = (146, 184, 220)
"""The sky overhead."""

HAZE = (222, 230, 236)
"""The horizon, and what lies beyond the grid."""

EGO = (250, 250, 252)
"""The ego vehicle's paint."""

PLAN = (18, 214, 178)
"""The planned trajectory."""

ROUTE = (255, 236, 130)
"""The route to follow."""

HISTORY = (238, 240, 244)
"""Where the ego has driven."""

GLASS, TYRE, REAR_LAMP, HEADLAMP = (44, 54, 66), (30, 32, 36), (214, 30, 34), (255, 246, 214)
"""Parts of the ego vehicle."""

SHADOW = (52, 55, 60)
"""The ground under the ego vehicle."""

WHITE = (255, 255, 255)
"""Text and dots on dark."""

GOOD, FAIR, BAD, FAINT = (120, 214, 150), (250, 200, 90), (255, 118, 108), (160, 170, 182)
"""Figures on dark: high, middling, low, and the names above them."""

DOT, BAR, RASTER, QUIET = (38, 112, 214), (160, 190, 228), (214, 219, 225), (110, 118, 128)
"""Of a plot: points, their intervals, the grid, the writing on the axes."""

INK = (34, 39, 46)
"""Text on light paper; panels behind light text."""

PAPER = (247, 248, 250)
"""The sheet that the pictures lie on."""


KINDS = {"generated": (138, 63, 209), "live traffic": (31, 122, 140), "recorded": (60, 125, 63)}
"""Borders and badges, by what a picture shows; the same in `viewer.css`."""


def class_colours() -> np.ndarray:
    """Colours of all labels, shape (NUM_CLASSES, 3), uint8. Index it with an occupancy array."""
    return np.array([COLOURS[name] for name in CLASSES], dtype=np.uint8)
