"""The occupancy seen from straight above: forward is up in the picture, left is left."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from occsora_sim.grid import DYNAMIC, FLAT, FREE, OCC3D, Grid, class_mask
from occsora_sim.rendering.ego_car import EGO_CENTRE, EGO_LENGTH, EGO_WIDTH
from occsora_sim.rendering.palette import EGO, HAZE, HISTORY, INK, PLAN, ROUTE, WHITE, class_colours


def render_birdseye(
    occupancy: np.ndarray,
    *,
    trajectory: np.ndarray | None = None,
    route: np.ndarray | None = None,
    history: np.ndarray | None = None,
    scale: int = 3,
    text: Sequence[str] = (),
    grid: Grid = OCC3D,
    offset: tuple[float, float, float] = (0.0, 0.0, 0.0),
    ego: bool = True,
) -> np.ndarray:
    """A picture of an occupancy frame from above.

    Args:
        occupancy: (x, y, z) uint8 labels, in the ego frame.
        trajectory: (f, 2 or 3) planned poses [m] in the ego's present frame.
        route: (r, 2) route to follow [m] in the ego's present frame.
        history: (h, 2 or 3) where the ego has been [m] in its present frame.
        scale: pixels a voxel.
        text: lines to write in the upper left corner.
        grid: where the voxels lie.
        offset: the ego's present pose (x [m], y [m], yaw [rad]) in the frame of the occupancy, if it has
            moved since; the picture keeps the ego at the same place and turns the map.
        ego: draw the ego vehicle.

    Returns:
        (x * scale, y * scale, 3) uint8; the first row is furthest ahead, the first column furthest left.

    """
    picture = Image.fromarray(np.ascontiguousarray(shaded_map(occupancy)[::-1, ::-1]))
    size = (occupancy.shape[1] * scale, occupancy.shape[0] * scale)
    pixel = grid.voxel / scale
    top, left = grid.upper[0], grid.upper[1]
    if offset == (0.0, 0.0, 0.0):
        picture = picture.resize(size, Image.Resampling.NEAREST)
    else:
        # Column u and row v lie at x = top - v * pixel, y = left - u * pixel of the present ego frame.
        cos, sin = math.cos(offset[2]), math.sin(offset[2])
        source = np.array([[cos, -sin, offset[0]], [sin, cos, offset[1]]])
        from_pixel = np.array([[0.0, -pixel, top], [-pixel, 0.0, left], [0.0, 0.0, 1.0]])
        x, y = source @ from_pixel
        column, row = -y / grid.voxel, -x / grid.voxel
        column[2] += left / grid.voxel
        row[2] += top / grid.voxel
        picture = picture.transform(
            size, Image.Transform.AFFINE, (*column, *row), Image.Resampling.NEAREST, fillcolor=HAZE
        )

    # Lines are drawn at twice the size and reduced: Pillow's own are jagged.
    layer = Image.new("RGBA", (2 * size[0], 2 * size[1]), (0, 0, 0, 0))
    draw = ImageDraw.Draw(layer)

    def pixels(points: np.ndarray) -> list[tuple[float, float]]:
        points = np.asarray(points, dtype=np.float64)[:, :2]
        points = points[np.isfinite(points).all(axis=1)]
        return [(2 * (left - y) / pixel, 2 * (top - x) / pixel) for x, y in points]

    width = max(2, round(1.3 * scale))
    if history is not None and len(history) > 1:
        draw.line(pixels(history), fill=(*HISTORY, 190), width=width, joint="curve")
    if route is not None and len(route) > 1:
        draw.line(pixels(route), fill=(*ROUTE, 200), width=width + 1, joint="curve")
    if trajectory is not None and len(trajectory):
        line = pixels(np.concatenate((np.zeros((1, 2)), np.asarray(trajectory, dtype=np.float64)[:, :2])))
        draw.line(line, fill=(*PLAN, 255), width=2 * width, joint="curve")
        radius = 1.1 * scale
        for u, v in line[1:]:
            draw.ellipse((u - radius, v - radius, u + radius, v + radius), fill=(*WHITE, 255), outline=PLAN)
    if ego:
        _draw_ego(draw, pixels, scale)
    picture = picture.convert("RGBA")
    picture.alpha_composite(layer.reduce(2))
    picture = picture.convert("RGB")
    if text:
        _write(picture, text, scale)
    return np.asarray(picture)


render = render_birdseye
"""The same function under the name that an environment's rgb_array mode uses."""


def shaded_map(occupancy: np.ndarray) -> np.ndarray:
    """Colour (x, y, 3) uint8 of each column's uppermost voxel, darker the lower, edges in relief; flat ground and what
    is tall have the palette's own.
    """
    solid = occupancy != FREE
    depth = occupancy.shape[2]
    top = depth - 1 - np.argmax(solid[:, :, ::-1], axis=2)
    empty = ~solid.any(axis=2)
    label = np.take_along_axis(occupancy, top[..., None], axis=2)[..., 0]
    label = np.where(empty, FREE, label)
    colours = class_colours()[label].astype(np.float32)
    colours[empty] = HAZE
    height = np.where(empty, 0, top).astype(np.float32)
    shade = 0.85 + 0.0125 * np.clip(height - 2, 0, 12)
    flat = class_mask(FLAT).numpy()[label] | empty
    shade[flat] = 1.0
    # Light comes from behind and left: a drop towards the far right throws a soft shadow there.
    padded = np.pad(height, 1, mode="edge")
    rise = np.clip(padded[:-2, 2:] - height, -3, 3)
    shade *= np.where(rise > 0, 1.0 - 0.07 * rise, 1.0 - 0.025 * rise)
    shade[class_mask(DYNAMIC).numpy()[label]] = 1.0  # small: they must be told apart by their colour
    return np.rint(colours * np.minimum(shade, 1.0)[..., None]).astype(np.uint8)


def _draw_ego(draw: ImageDraw.ImageDraw, pixels, scale: int) -> None:  # type: ignore[no-untyped-def]
    """The ego as a rectangle with a dark windscreen at its front, so that its heading shows."""
    rear, front, half = EGO_CENTRE - EGO_LENGTH / 2, EGO_CENTRE + EGO_LENGTH / 2, EGO_WIDTH / 2
    body = np.array([(rear, half), (front, half * 0.8), (front, -half * 0.8), (rear, -half)])
    draw.polygon(pixels(body), fill=(*EGO, 255), outline=(*INK, 255), width=max(2, scale // 2 + 1))
    glass = np.array([(1.25, half * 0.66), (2.1, half * 0.72), (2.1, -half * 0.72), (1.25, -half * 0.66)])
    draw.polygon(pixels(glass), fill=(*INK, 255))


def _write(picture: Image.Image, lines: Sequence[str], scale: int) -> None:
    """Lines of text on a translucent dark panel in the upper left corner."""
    font = ImageFont.load_default(max(10, 5 * scale))
    step = max(13, round(6.4 * scale))
    draw = ImageDraw.Draw(picture, "RGBA")
    wide = max(draw.textlength(line, font=font) for line in lines)
    draw.rounded_rectangle((6, 6, 18 + wide, 14 + step * len(lines)), radius=5, fill=(*INK, 190))
    for index, line in enumerate(lines):
        draw.text((12, 9 + step * index), line, font=font, fill=(*WHITE, 255))
