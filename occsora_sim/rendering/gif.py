"""Animated GIFs, for where a film cannot be shown."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from occsora_sim.atomic_file import atomic_path
from occsora_sim.errors import ConfigurationError
from occsora_sim.rendering.palette import HAZE, INK, KINDS, PAPER, PLAN, ROUTE, WHITE, class_colours

FASTEST = 50.0
"""Pictures a second; browsers show those that come faster ten times slower."""

WIDTH = 800
"""Of the pictures, at most [pixels]: GIF compresses badly."""


def write_gif(path: str | Path, frames: Iterable[np.ndarray], fps: float) -> None:
    """Write pictures as a GIF that plays over and over, whole or not at all.

    The format counts time in hundredths of a second: where `fps` does not divide them, neighbours differ by one, so
    that the whole plays at true speed.

    Args:
        path: of the .gif.
        frames: pictures (h, w, 3) uint8, all of one size; made smaller where wider than WIDTH.
        fps: pictures a second, at most FASTEST.

    Raises:
        ConfigurationError: no frames, an `fps` that the format cannot show, or a place that cannot be written to.

    """
    if not 0 < fps <= FASTEST:
        raise ConfigurationError(f"{path}: {fps:g} pictures a second; a GIF shows at most {FASTEST:g}")
    pictures = list(_indexed(frames))
    if not pictures:
        raise ConfigurationError(f"{path}: no frames, so no GIF")
    ends = np.rint(100 / fps * np.arange(len(pictures) + 1)).astype(int)
    durations = (10 * np.diff(ends)).tolist()  # [ms]
    with atomic_path(path) as temporary:
        pictures[0].save(
            temporary, format="GIF", save_all=True, append_images=pictures[1:], duration=durations, loop=0
        )


def _indexed(frames: Iterable[np.ndarray]) -> Iterator[Image.Image]:
    """The pictures in 256 colours, undithered: areas of one colour stay so, and compress."""
    for frame in frames:
        picture = Image.fromarray(frame)
        picture.thumbnail((WIDTH, WIDTH), Image.Resampling.LANCZOS)
        yield picture.quantize(palette=_colours(picture), dither=Image.Dither.NONE)


def _colours(picture: Image.Image) -> Image.Image:
    """256 colours: the project's own exactly, those of classes also in shade, and the rest as in `picture`."""
    shades = np.array([1.0, 0.85, 0.7, 0.55, 0.4])[:, None, None] * class_colours()
    own = [
        PLAN,
        ROUTE,
        HAZE,
        INK,
        PAPER,
        WHITE,
        *KINDS.values(),
        *(shades + 0.5).astype(int).reshape(-1, 3).tolist(),
    ]
    rest = picture.quantize(256 - len(own), dither=Image.Dither.NONE).getpalette() or []
    colours = Image.new("P", (1, 1))
    colours.putpalette([int(value) for colour in own for value in colour] + rest[: 3 * (256 - len(own))])
    return colours
