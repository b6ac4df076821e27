"""Time in a window that plays a rollout, and the keys that change it; it needs no window itself."""

from __future__ import annotations

from dataclasses import dataclass

from occsora_sim.grid import FRAME_SECONDS
from occsora_sim.viewer.look import CAMERA_HELP, GROUPS, Look

SPACE, RIGHT, LEFT, HOME, END = 32, 262, 263, 268, 269
"""Keys as GLFW numbers them."""

HELP = (
    "space: play, pause; left, right: a frame back, on; home, end: first, last frame; "
    + CAMERA_HELP
    + "; hide, show "
    + ", ".join(f"{key}: {name}" for key, (name, _) in GROUPS.items())
    + "; q, escape: close"
)
"""The keys in one line."""


@dataclass(kw_only=True)
class Playback(Look):
    """State of a window that plays `frames` frames, FRAME_SECONDS apart.

    Attributes:
        frames: how many there are, at least 1.
        seconds: time in the rollout [s]; a frame is shown until the next one's time.
        playing: the time goes on by itself.

    """

    frames: int
    seconds: float = 0.0
    playing: bool = True

    @property
    def frame(self) -> int:
        """Index of the frame that is shown."""
        return min(int(self.seconds / FRAME_SECONDS), self.frames - 1)

    def press(self, key: int) -> None:
        """Do what `key` stands for; one that stands for nothing does nothing."""
        last = self.frames - 1
        if key == SPACE:
            if not self.playing and self.frame == last:
                self.seconds = 0.0
            self.playing = not self.playing
        elif key in (LEFT, RIGHT, HOME, END):
            wanted = {LEFT: self.frame - 1, RIGHT: self.frame + 1, HOME: 0, END: last}[key]
            self.seconds = min(max(wanted, 0), last) * FRAME_SECONDS
            self.playing = False
        elif key == ord("Q"):
            self.closed = True
        else:
            super().press(key)

    def advance(self, elapsed: float) -> None:
        """Let `elapsed` [s] go by. What plays stops at the last frame."""
        if self.playing:
            end = (self.frames - 1) * FRAME_SECONDS
            self.seconds = min(self.seconds + elapsed, end)
            self.playing = self.seconds < end
