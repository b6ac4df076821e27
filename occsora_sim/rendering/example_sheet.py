"""Examples as a picture: one after another, what was recorded above what was generated, in columns of time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from occsora_sim.atomic_file import atomic_path
from occsora_sim.rendering.birdseye import render_birdseye
from occsora_sim.rendering.palette import PAPER
from occsora_sim.scoring.examples import Example

_SCALE = 1  # pixels a voxel
_GAP = 6  # pixels


def write_example_sheet(examples: Sequence[Example], path: str | Path) -> None:
    """Draw examples into a PNG file, whole or not at all.

    Raises:
        ConfigurationError: the file cannot be written.

    """
    with atomic_path(path) as temporary:
        Image.fromarray(example_sheet(examples)).save(temporary, format="PNG")


def example_sheet(examples: Sequence[Example]) -> np.ndarray:
    """Examples, one or more and of equally many frames, from above: (height, width, 3) uint8. Each takes a row of what
    was recorded, where it is known, and below it a row of what was generated.
    """
    rows = []
    for example in examples:
        for what, frames in (("recorded", example.real), ("generated", example.frames)):
            if frames is None:
                continue
            tiles = []
            for k, (second, frame) in enumerate(zip(example.seconds, frames, strict=True)):
                text = [f"{what}, {second:g} s"] + ([example.name] if k == 0 and what == "generated" else [])
                tiles.append(render_birdseye(frame.numpy(), scale=_SCALE, text=text))
            rows.append(tiles)
    height, width = rows[0][0].shape[:2]
    shape = (len(rows) * (height + _GAP) + _GAP, len(rows[0]) * (width + _GAP) + _GAP, 3)
    sheet = np.empty(shape, dtype=np.uint8)
    sheet[:] = PAPER
    for i, tiles in enumerate(rows):
        for j, tile in enumerate(tiles):
            top, left = _GAP + i * (height + _GAP), _GAP + j * (width + _GAP)
            sheet[top : top + height, left : left + width] = tile
    return sheet
