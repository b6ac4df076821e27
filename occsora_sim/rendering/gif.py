"""Animated GIFs, for where a film cannot be shown."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from occsora_sim.atomic_file import atomic_path
from occsora_sim.errors import ConfigurationError

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
        yield picture.quantize(dither=Image.Dither.NONE)
