"""A scatter plot of named points with their intervals, drawn with Pillow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from occsora_sim.errors import ConfigurationError
from occsora_sim.rendering.palette import BAR, DOT, INK, PAPER, QUIET, RASTER

SIDE = 640
"""Edge of the square that the points lie in, pixels."""

_LEFT, _RIGHT, _TOP, _BOTTOM = 92, 160, 70, 84  # margins, pixels; names of points to the right run over
_TEXT, _SMALL, _TITLE = 17, 15, 20
_RADIUS = 6
_SCALE = 2  # drawn larger and reduced: Pillow's own lines are jagged

Box = tuple[float, float, float, float]


@dataclass(frozen=True, kw_only=True)
class Point:
    """A named point in [0, 1] x [0, 1] with the intervals of its two numbers."""

    name: str
    x: float
    y: float
    x_interval: tuple[float, float] | None = None
    y_interval: tuple[float, float] | None = None


def scatter_plot(points: Sequence[Point], *, title: str, x_label: str, y_label: str) -> np.ndarray:
    """Draw points over axes from 0 to 1, with the diagonal on which the two numbers are equal.

    Names are put where they cover neither a point nor another name; one that finds no place beside its point is put
    further away, with a line to it.

    Args:
        points: one or more.
        title: above the plot.
        x_label: below the horizontal axis.
        y_label: beside the vertical axis.

    Returns:
        (height, width, 3) uint8.

    Raises:
        ConfigurationError: no points, or one that does not lie in [0, 1] x [0, 1].

    """
    if not points or not all(0 <= point.x <= 1 and 0 <= point.y <= 1 for point in points):
        raise ConfigurationError("scatter plot: needs one point or more, each within 0 to 1 on both axes")
    k = _SCALE
    picture = Image.new("RGB", ((_LEFT + SIDE + _RIGHT) * k, (_TOP + SIDE + _BOTTOM) * k), PAPER)
    draw = ImageDraw.Draw(picture)

    def at(x: float, y: float) -> tuple[float, float]:
        return (_LEFT + x * SIDE) * k, (_TOP + (1 - y) * SIDE) * k

    _axes(picture, draw, at, title, x_label, y_label)
    for point in points:
        low, high = point.x_interval or (point.x, point.x)
        draw.line((*at(low, point.y), *at(high, point.y)), fill=BAR, width=2 * k)
        low, high = point.y_interval or (point.y, point.y)
        draw.line((*at(point.x, low), *at(point.x, high)), fill=BAR, width=2 * k)
    taken: list[Box] = []
    for point in points:
        u, v = at(point.x, point.y)
        r = _RADIUS * k
        taken.append((u - r, v - r, u + r, v + r))
    font = ImageFont.load_default(_TEXT * k)
    for point in points:
        box = _place(at(point.x, point.y), draw.textlength(point.name, font=font), taken, picture.size)
        taken.append(box)
        _leader(draw, at(point.x, point.y), box)
        middle = (box[0], (box[1] + box[3]) / 2)
        halo = 3 * k  # keeps a name legible on lines
        draw.text(middle, point.name, font=font, fill=INK, anchor="lm", stroke_width=halo, stroke_fill=PAPER)
    for point in points:
        u, v = at(point.x, point.y)
        r = _RADIUS * k
        draw.ellipse((u - r, v - r, u + r, v + r), fill=DOT, outline=PAPER, width=k)
    return np.asarray(picture.reduce(k))


def _axes(picture, draw, at, title: str, x_label: str, y_label: str) -> None:  # type: ignore[no-untyped-def]
    k = _SCALE
    small = ImageFont.load_default(_SMALL * k)
    for tick in range(6):
        value = tick / 5
        draw.line((*at(value, 0), *at(value, 1)), fill=RASTER, width=k)
        draw.line((*at(0, value), *at(1, value)), fill=RASTER, width=k)
        u, v = at(value, 0)
        draw.text((u, v + 16 * k), f"{value:.1f}", font=small, fill=QUIET, anchor="mt")
        u, v = at(0, value)
        draw.text((u - 14 * k, v), f"{value:.1f}", font=small, fill=QUIET, anchor="rm")
    draw.line((*at(0, 0), *at(1, 1)), fill=QUIET, width=k)
    text = ImageFont.load_default(_TEXT * k)
    draw.text(at(0.5, -0.085), x_label, font=text, fill=INK, anchor="mt")
    draw.text((_LEFT * k, 20 * k), title, font=ImageFont.load_default(_TITLE * k), fill=INK, anchor="lt")
    strip = Image.new("RGB", (SIDE * k, 30 * k), PAPER)
    ImageDraw.Draw(strip).text((SIDE * k / 2, 15 * k), y_label, font=text, fill=INK, anchor="mm")
    picture.paste(strip.rotate(90, expand=True), (8 * k, _TOP * k))


def _place(point: tuple[float, float], width: float, taken: Sequence[Box], size: tuple[int, int]) -> Box:
    """A box for a name of this width near `point` that covers least of what is taken; the nearer the better."""
    k, half = _SCALE, _TEXT * _SCALE * 0.62
    best, least = None, np.inf
    for ring, reach in enumerate((12, 26, 44, 66, 92, 122)):
        for step in range(16):
            angle = 2 * np.pi * (step + 2) / 16  # up to the right first: beside the bars, not on them
            across, down = np.cos(angle), -np.sin(angle)
            left = point[0] + reach * k * across - width * (1 - across) / 2
            middle = point[1] + reach * k * down
            box = (left, middle - half, left + width, middle + half)
            inside = (
                box[0] > _LEFT * k
                and box[1] > 0
                and box[2] < size[0]
                and box[3] < size[1] - (_BOTTOM - 6) * k
            )
            cost = sum(_overlap(box, other) for other in taken) + ring * 1e-3 + (0 if inside else 1e9)
            cost += 1e-4 * step
            if cost < least - 1e-12:
                best, least = box, cost
    assert best is not None
    return best


def _overlap(a: Box, b: Box) -> float:
    """The area that two boxes share."""
    wide = min(a[2], b[2]) - max(a[0], b[0])
    high = min(a[3], b[3]) - max(a[1], b[1])
    return max(wide, 0.0) * max(high, 0.0)


def _leader(draw: ImageDraw.ImageDraw, point: tuple[float, float], box: Box) -> None:
    """A thin line from the point to a name that is not beside it."""
    u = min(max(point[0], box[0]), box[2])
    v = min(max(point[1], box[1]), box[3])
    if np.hypot(u - point[0], v - point[1]) > 16 * _SCALE:
        draw.line((*point, u, v), fill=QUIET, width=_SCALE)
