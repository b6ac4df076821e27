"""Video files, and the sheets that pictures are laid out on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from occsora_sim.atomic_file import atomic_path
from occsora_sim.errors import ConfigurationError
from occsora_sim.grid import CLASSES, FREE, OTHERS
from occsora_sim.rendering.encoder import Encoder, find_ffmpeg
from occsora_sim.rendering.palette import BAD, FAINT, FAIR, GOOD, INK, PAPER, PLAN, class_colours

FRAME_SIZE = (1280, 592)
"""Width and height of a composed frame [pixels]."""

_HEADER, _BODY = 56, 504
_SHORT = {"construction_vehicle": "constr. vehicle", "driveable_surface": "road", "other_flat": "other flat"}


def write_video(path: str | Path, frames: Iterable[np.ndarray], fps: float) -> int:
    """Write an H.264 film (yuv420p, plays everywhere).

    Args:
        path: of the .mp4; its folder is made. A film that fails, at its end too, leaves what was there.
        frames: pictures (h, w, 3) uint8, all of one size; an odd border row or column is repeated once.
        fps: pictures a second.

    Returns:
        The number of frames written.

    Raises:
        ConfigurationError: no frames, frames of several sizes, a place that cannot be written to, or an encoder that
            fails, with its reason.
        MissingDependencyError: imageio-ffmpeg is not installed.

    """
    if not fps > 0:
        raise ConfigurationError(f"{path}: {fps} pictures a second make no video; fps must be above 0")
    find_ffmpeg()
    count = 0
    with atomic_path(path) as temporary, ExitStack() as stack:
        encoder: Encoder | None = None
        size: tuple[int, ...] = ()
        try:
            for frame in frames:
                frame = _even(frame)
                if encoder is None:
                    size = frame.shape
                    encoder = stack.enter_context(Encoder(temporary, (size[1], size[0]), fps))
                if frame.shape != size:
                    raise ConfigurationError(f"frame {count} is {frame.shape}, the first one was {size}")
                encoder.write(frame.tobytes())
                count += 1
            if encoder is None:
                raise ConfigurationError("no frames, so no video")
            encoder.finish()
            if not temporary.stat().st_size:
                raise ConfigurationError("the video encoder wrote nothing")
        except ConfigurationError as error:
            raise ConfigurationError(f"{path}: {error}") from error
    return count


def compose_frame(
    chase: np.ndarray,
    birdseye: np.ndarray,
    *,
    title: str = "",
    time: float | None = None,
    speed: float | None = None,
    terms: Mapping[str, Any] | None = None,
    labels: Sequence[int] | None = None,
) -> np.ndarray:
    """One frame of the film: the camera beside the map, a line of figures above, the classes below.

    Args:
        chase: (h, w, 3) uint8.
        birdseye: (h, w, 3) uint8, square.
        title: at the left of the header.
        time: simulated time [s].
        speed: of the ego [m/s].
        terms: further figures by name; numbers of [0, 1] are coloured from red to green.
        labels: classes of the legend; all by default.

    Returns:
        (592, 1280, 3) uint8.

    """
    width = FRAME_SIZE[0]
    sheet = Image.new("RGB", FRAME_SIZE, PAPER)
    square = Image.fromarray(birdseye).resize((_BODY, _BODY), Image.Resampling.LANCZOS)
    sheet.paste(square, (width - _BODY, _HEADER))
    left = Image.fromarray(chase)
    if left.size != (width - _BODY, _BODY):
        left = left.resize((width - _BODY, _BODY), Image.Resampling.LANCZOS)
    sheet.paste(left, (0, _HEADER))
    draw = ImageDraw.Draw(sheet)
    draw.rectangle((width - _BODY - 1, _HEADER, width - _BODY + 1, _HEADER + _BODY), fill=PAPER)
    _draw_header(draw, title, time, speed, terms or {})
    _draw_legend(draw, [i for i in range(FREE) if i != OTHERS] if labels is None else labels)
    return np.asarray(sheet)


def _draw_header(
    draw: ImageDraw.ImageDraw, title: str, time: float | None, speed: float | None, terms: Mapping[str, Any]
) -> None:
    """Title and figures, light on dark, each figure under its name."""
    width = FRAME_SIZE[0]
    draw.rectangle((0, 0, width, _HEADER - 1), fill=INK)
    small, large = ImageFont.load_default(12), ImageFont.load_default(20)
    name, _, rest = title.partition("\n")
    draw.text((16, 8), name, font=ImageFont.load_default(18), fill=PAPER)
    draw.text((16, 33), rest, font=small, fill=FAINT)
    columns: list[tuple[str, str, tuple[int, int, int]]] = []
    if time is not None:
        columns.append(("time", f"{time:.1f} s", PAPER))
    if speed is not None:
        columns.append(("speed", f"{speed:.1f} m/s", PLAN))
    for key, value in terms.items():
        columns.append((str(key), _figure(value), _figure_colour(value)))
    right = width - 16.0
    for key, value, colour in reversed(columns):
        least = 78 if key in ("time", "speed") else 46
        right -= max(least, draw.textlength(key, font=small), draw.textlength(value, font=large))
        if right < 24 + draw.textlength(name, font=large):
            break
        draw.text((right, 7), key, font=small, fill=FAINT)
        draw.text((right, 24), value, font=large, fill=colour)
        right -= 20


def _draw_legend(draw: ImageDraw.ImageDraw, labels: Sequence[int]) -> None:
    """Squares of colour with their names, in one line below the pictures."""
    names = [_SHORT.get(CLASSES[i], CLASSES[i].replace("_", " ")) for i in labels]
    for points in (13, 12, 11, 10, 9, 8):
        font = ImageFont.load_default(points)
        total = sum(draw.textlength(name, font=font) + 30 for name in names)
        if total < FRAME_SIZE[0] - 20:
            break
    x, middle = (FRAME_SIZE[0] - total) / 2, _HEADER + _BODY + (FRAME_SIZE[1] - _HEADER - _BODY) / 2
    colours = class_colours()
    for label, name in zip(labels, names, strict=True):
        draw.rounded_rectangle(
            (x, middle - 6, x + 12, middle + 6), radius=3, fill=tuple(colours[label].tolist())
        )
        draw.text((x + 17, middle), name, font=font, fill=INK, anchor="lm")
        x += draw.textlength(name, font=font) + 30


def _figure(value: Any) -> str:
    return f"{float(value):.2f}" if isinstance(value, (int, float, np.number)) else str(value)


def _figure_colour(value: Any) -> tuple[int, int, int]:
    if not isinstance(value, (int, float, np.number)) or not 0.0 <= float(value) <= 1.0:
        return PAPER
    return GOOD if value >= 0.8 else FAIR if value >= 0.4 else BAD


def _even(frame: np.ndarray) -> np.ndarray:
    """The frame with even sides, as yuv420p demands."""
    if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8:
        raise ConfigurationError(f"a video needs pictures (h, w, 3) uint8, not {frame.shape} {frame.dtype}")
    down, right = frame.shape[0] % 2, frame.shape[1] % 2
    return np.pad(frame, ((0, down), (0, right), (0, 0)), mode="edge") if down or right else frame
