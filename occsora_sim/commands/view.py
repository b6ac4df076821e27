"""`occsora-sim view`."""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from occsora_sim.errors import ConfigurationError

if TYPE_CHECKING:
    from occsora_sim.rendering.rollout import Rollout

MOST = 2
"""Rollouts that are shown side by side."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of `view`.

    Attributes:
        sources: what to show: a rollout.npz, the folder that `drive --out` or `play --out` wrote, or scenes as
            --scenes takes them (`traffic:5`, a log, an Occ3D folder), of which the first is shown; two are shown side
            by side, in step.
        html: write the page into this one file, which opens without a server, instead of serving it.
        open3d: play one of them in a window of Open3D instead; needs a display and the extra `view`.
        port: of the loopback address; 0: any that is free.
        no_open: do not open the browser.
        seconds: of scenes, show so many seconds at most.

    """

    sources: tyro.conf.Positional[tuple[str, ...]]
    html: Path | None = None
    open3d: bool = False
    port: int = 0
    no_open: bool = False
    seconds: float = 20.0

    def __post_init__(self) -> None:
        if not 1 <= len(self.sources) <= MOST:
            raise ConfigurationError(
                f"{len(self.sources)} things to show: give one, or two to see side by side"
            )
        if not (math.isfinite(self.seconds) and self.seconds > 0):
            raise ConfigurationError(f"--seconds {self.seconds}: must be above 0")
        if self.open3d and (self.html or len(self.sources) > 1):
            raise ConfigurationError("--open3d: its window shows one rollout, and goes without --html")


def run(options: Options) -> None:
    """Serve the page until Ctrl-C, or write it; or play in a window until it is closed."""
    from occsora_sim.atomic_file import atomic_path
    from occsora_sim.commands.output import output_file
    from occsora_sim.viewer.encoding import encode_rollout
    from occsora_sim.viewer.page import make_page
    from occsora_sim.viewer.rollout_window import show_window
    from occsora_sim.viewer.server import PageServer, page_answer

    if options.open3d:
        show_window(read(options.sources[0], options.seconds))
        return
    if options.html:
        output_file(options.html)
    page = make_page([encode_rollout(read(source, options.seconds)) for source in options.sources])
    if options.html:
        with atomic_path(options.html) as temporary:
            temporary.write_text(page, encoding="utf-8")
        print(f"{options.html}  ({len(page) / 1e6:.1f} MB)")
        return
    with PageServer({"GET /": page_answer(page)}, options.port) as server:
        server.announce(not options.no_open)
        threading.Event().wait()


def read(source: str, seconds: float) -> Rollout:
    """A rollout, or the first of some scenes as one.

    Raises:
        SceneError: it is neither, or cannot be read.

    """
    from occsora_sim.rendering.rollout import load_rollout
    from occsora_sim.scenes.source import open_scenes
    from occsora_sim.viewer.recorded import recorded_rollout

    path = Path(source)
    if (path / "rollout.npz").is_file():
        path /= "rollout.npz"
    if path.suffix == ".npz":
        return load_rollout(path)
    return recorded_rollout(open_scenes(source)[0], seconds)
