"""`occsora-sim render`."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import tyro

from occsora_sim.commands.output import output_file
from occsora_sim.errors import ConfigurationError


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of `render`.

    Attributes:
        rollout: a rollout.npz that `drive` wrote.
        out: the video (.mp4) or, with a name in .png, one picture.
        frame: which frame the picture shows; frames are 0.5 s apart.
        smooth: pictures per frame in the video.
        title: shown at the top left; by default what the rollout says of itself.

    """

    rollout: tyro.conf.Positional[Path]
    out: Path = Path("out/render.mp4")
    frame: int = 0
    smooth: int = 4
    title: str = ""

    def __post_init__(self) -> None:
        if self.out.suffix.lower() not in (".mp4", ".png"):
            raise ConfigurationError(f"--out {self.out}: must end in .mp4 (a video) or .png (one picture)")
        if self.smooth < 1:
            raise ConfigurationError(f"--smooth {self.smooth}: must be 1 or more")


def run(options: Options) -> None:
    """Draw the rollout."""
    from PIL import Image

    from occsora_sim.atomic_file import atomic_path
    from occsora_sim.rendering.rollout import load_rollout, rollout_frames, rollout_video

    rollout = load_rollout(options.rollout)
    if not 0 <= options.frame < rollout.frames:
        raise ConfigurationError(
            f"--frame {options.frame}: the rollout has the frames 0 to {rollout.frames - 1}"
        )
    out = output_file(options.out)
    if out.suffix.lower() == ".png":
        frames = rollout_frames(rollout, smooth=1, title=options.title)
        picture = next(islice(frames, options.frame, None))
        with atomic_path(out) as temporary:
            Image.fromarray(picture).save(temporary)
    else:
        rollout_video(rollout, out, smooth=options.smooth, title=options.title)
    print(out)
