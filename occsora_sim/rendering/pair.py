"""Two rollouts side by side in step, each from behind its car, with a badge and a border that say what it is."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import zip_longest

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from occsora_sim.grid import FRAME_SECONDS
from occsora_sim.rendering.camera_view import ChaseCamera
from occsora_sim.rendering.palette import INK, KINDS, PAPER, QUIET, WHITE
from occsora_sim.rendering.pinhole import Pinhole
from occsora_sim.rendering.rollout import Rollout, kind_of, moments, speed_at

WIDTH, HEIGHT = 368, 232
"""Size of one of the two [pixels]."""

_BORDER, _DASH = 3, 12

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def pair_frames(rollouts: tuple[Rollout, Rollout], smooth: int = 4) -> Iterator[np.ndarray]:
    """Pictures of both, (HEIGHT, 2 * WIDTH, 3) uint8 each; the shorter one waits at its last frame.

    Args:
        rollouts: left and right.
        smooth: pictures per frame, as in `rollout_frames`.

    """
    sides = [_pictures(rollout, smooth) for rollout in rollouts]
    last: tuple[np.ndarray, ...] = ()
    for pictures in zip_longest(*sides):
        last = tuple(last[k] if new is None else new for k, new in enumerate(pictures))
        yield np.concatenate(last, axis=1)


def _pictures(rollout: Rollout, smooth: int) -> Iterator[np.ndarray]:
    """One side, (HEIGHT, WIDTH, 3) uint8 each."""
    kind = kind_of(rollout)
    colour = KINDS.get(kind, QUIET)
    font = ImageFont.load_default(13)
    with ChaseCamera(Pinhole(width=WIDTH, height=HEIGHT), rollout.grid) as camera:
        for at in moments(rollout, smooth):
            view = camera.render(at.occupancy, at.planned, at.route, heading=at.heading, offset=at.offset)
            picture = Image.fromarray(view)
            pen = ImageDraw.Draw(picture)
            speed = 3.6 * speed_at(rollout.ego_pose, at.frame, at.share)
            figures = f"{(at.frame + at.share) * FRAME_SECONDS:.0f} s   {speed:.0f} km/h"
            left = WIDTH - 17 - pen.textlength(figures, font=font)
            pen.rectangle((left, 6, WIDTH - 7, 24), fill=INK)
            pen.text((left + 5, 8), figures, font=font, fill=PAPER)
            badge = _cut(kind, font, left - 26)
            pen.rectangle((6, 6, 16 + pen.textlength(badge, font=font), 24), fill=colour)
            pen.text((11, 8), badge, font=font, fill=WHITE)
            _frame(pen, colour, dashed=kind == "generated")
            yield np.asarray(picture)


def _cut(text: str, font: Font, width: float) -> str:
    """The text in one line of at most `width` [pixels]; what is cut off becomes an ellipsis."""
    text = " ".join(text.split())
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1].rstrip()
    return text + "…"


def _frame(pen: ImageDraw.ImageDraw, colour: tuple[int, int, int], *, dashed: bool) -> None:
    """A border; dashed around what is generated, as on the viewer's page."""
    pen.rectangle((0, 0, WIDTH - 1, HEIGHT - 1), outline=PAPER if dashed else colour, width=_BORDER)
    if dashed:
        for x in range(0, WIDTH, 2 * _DASH):
            for y in (0, HEIGHT - _BORDER):
                pen.rectangle((x, y, x + _DASH - 1, y + _BORDER - 1), fill=colour)
        for y in range(0, HEIGHT, 2 * _DASH):
            for x in (0, WIDTH - _BORDER):
                pen.rectangle((x, y, x + _BORDER - 1, y + _DASH - 1), fill=colour)
