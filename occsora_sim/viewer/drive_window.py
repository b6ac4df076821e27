"""A window that shows a drive while somebody else's program steps it."""

from __future__ import annotations

import time
from typing import Any

from occsora_sim.grid import FRAME_SECONDS
from occsora_sim.rendering.rollout import Rollout
from occsora_sim.viewer.look import CAMERA_HELP, GROUPS, Look
from occsora_sim.viewer.window import DOWN, Window

HELP = (
    f"{CAMERA_HELP}; hide, show "
    + ", ".join(f"{key}: {name}" for key, (name, _) in GROUPS.items())
    + "; escape: close the window, and drive on without it"
)
"""The keys in one line."""


class DriveWindow(Window):
    """Shows frames FRAME_SECONDS apart, and those that come later at once.

    Raises:
        MissingDependencyError: Open3D is not installed, or there is no display.

    """

    def __init__(self) -> None:
        self._look = Look()
        self._due = time.monotonic()  # when the next frame may be shown
        self._drawn: tuple[Any, ...] = ()
        super().__init__("occsora-sim", lambda key, action: self._look.press(key) if action == DOWN else None)

    def show(self, rollout: Rollout, captions: list[str], *, new: bool = False) -> bool:
        """Show all frames of `rollout`, and return with the last one on the screen.

        Args:
            rollout: the frames.
            captions: a line of text for each.
            new: an episode begins: the time that went by before its first frame was no delay.

        Returns:
            Whether the window is still open.

        """
        if new:
            self._due = max(self._due, time.monotonic())
        for frame, caption in enumerate(captions):
            while time.monotonic() < self._due:
                if not self._turn():
                    return False
            self._due = max(self._due + FRAME_SECONDS, time.monotonic())
            self._shown, self._drawn = (rollout, frame, caption), ()
            if not self._turn():
                return False
        return True

    def _turn(self) -> bool:
        """Draw what changed, put it on the screen and read the keys. Returns False once the window is to close."""
        wanted = (self._look.camera, self._look.hidden)
        if wanted != self._drawn:
            rollout, frame, caption = self._shown
            self.draw(rollout, frame, self._look, caption)
            self._drawn = wanted
        return self.poll() and not self._look.closed
