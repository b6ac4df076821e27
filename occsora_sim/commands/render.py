"""`occsora-sim render`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from occsora_sim.commands.output import output_file
from occsora_sim.errors import ConfigurationError

if TYPE_CHECKING:
    from occsora_sim.rendering.rollout import Rollout

SUFFIXES = {
    ".mp4": "a video",
    ".gif": "an animation; of two rollouts, side by side",
    ".html": "the viewer's page",
    ".png": "one picture",
    ".ply": "the voxels of one frame as points",
}


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of `render`.

    Attributes:
        rollouts: a rollout.npz that `drive` wrote; two for an animation of both, side by side.
        out: what to write, by its suffix: a video (.mp4), an animation (.gif), the viewer's page as one file that opens
            without a server (.html), one picture (.png), or the voxels of one frame as coloured points with their
            class (.ply).
        frame: which frame a .png or .ply shows; frames are 0.5 s apart.
        time: the same by its time [s]; the nearest frame is taken.
        smooth: pictures per frame in a video or an animation.
        title: shown at the top left of pictures; by default what the rollout says of itself.

    """

    rollouts: tyro.conf.Positional[tuple[Path, ...]]
    out: Path = Path("out/render.mp4")
    frame: int | None = None
    time: float | None = None
    smooth: int = 4
    title: str = ""

    def __post_init__(self) -> None:
        if self.out.suffix.lower() not in SUFFIXES:
            known = ", ".join(f"{suffix} ({what})" for suffix, what in SUFFIXES.items())
            raise ConfigurationError(f"--out {self.out}: must end in one of {known}")
        if len(self.rollouts) != 1 and (len(self.rollouts) != 2 or self.out.suffix.lower() != ".gif"):
            raise ConfigurationError(
                f"{len(self.rollouts)} rollouts: give one, or two and an --out in .gif, to see them side by side"
            )
        if len(self.rollouts) == 2 and self.title:
            raise ConfigurationError("--title: of two rollouts each says what it is; leave it out")
        if self.smooth < 1:
            raise ConfigurationError(f"--smooth {self.smooth}: must be 1 or more")
        if self.time is not None and not math.isfinite(self.time):
            raise ConfigurationError(f"--time {self.time}: must be a number of seconds")
        if self.time is not None and self.frame is not None:
            raise ConfigurationError("--frame and --time say the same; give one of them")


def run(options: Options) -> None:
    """Draw the rollout."""
    from PIL import Image

    from occsora_sim.atomic_file import atomic_path
    from occsora_sim.grid import FRAME_SECONDS
    from occsora_sim.rendering.gif import write_gif
    from occsora_sim.rendering.pair import pair_frames
    from occsora_sim.rendering.points import write_points
    from occsora_sim.rendering.rollout import load_rollout, rollout_frames, rollout_video
    from occsora_sim.viewer.encoding import encode_rollout
    from occsora_sim.viewer.page import make_page

    rollout, *other = map(load_rollout, options.rollouts)
    frame = chosen_frame(options, rollout)
    out = output_file(options.out)
    match out.suffix.lower():
        case ".mp4":
            rollout_video(rollout, out, smooth=options.smooth, title=options.title)
        case ".gif":
            pictures = (
                pair_frames((rollout, other[0]), options.smooth)
                if other
                else rollout_frames(rollout, smooth=options.smooth, title=options.title)
            )
            write_gif(out, pictures, fps=options.smooth / FRAME_SECONDS)
        case ".html":
            page = make_page([encode_rollout(rollout)])
            with atomic_path(out) as temporary:
                temporary.write_text(page, encoding="utf-8")
        case ".png":
            pictures = rollout_frames(rollout, smooth=1, title=options.title)
            picture = next(islice(pictures, frame, None))
            with atomic_path(out) as temporary:
                Image.fromarray(picture).save(temporary)
        case ".ply":
            write_points(rollout.occupancy[frame], out, rollout.grid)
    print(out)


def chosen_frame(options: Options, rollout: Rollout) -> int:
    """The number of the frame that --frame or --time means.

    Raises:
        ConfigurationError: the rollout has no such frame.

    """
    from occsora_sim.grid import FRAME_SECONDS

    frame, given = options.frame or 0, f"--frame {options.frame}"
    if options.time is not None:
        frame, given = round(options.time / FRAME_SECONDS), f"--time {options.time:g}"
    if not 0 <= frame < rollout.frames:
        raise ConfigurationError(
            f"{given}: the rollout has the frames 0 to {rollout.frames - 1}, of 0 to {rollout.seconds:g} s"
        )
    return frame
