"""A rollout in a window; `playback` says what its keys do."""

from __future__ import annotations

import time
from typing import Any

from occsora_sim.grid import FRAME_SECONDS
from occsora_sim.rendering.rollout import Rollout, kind_of
from occsora_sim.viewer.playback import HELP, Playback
from occsora_sim.viewer.window import UP, Window


def show_window(rollout: Rollout) -> None:
    """Play `rollout` in a window until it is closed.

    Raises:
        MissingDependencyError: Open3D is not installed, or there is no display.

    """
    window = RolloutWindow(rollout)
    print(HELP, flush=True)
    try:
        before = time.monotonic()
        while window.step((now := time.monotonic()) - before):
            before = now
    finally:
        window.close()


class RolloutWindow(Window):
    """The window of one rollout.

    Attributes:
        playback: what is shown.

    """

    def __init__(self, rollout: Rollout) -> None:
        """Open the window. Raises as `show_window`."""
        self.playback = Playback(frames=rollout.frames)
        self._rollout = rollout
        self._kind = kind_of(rollout)
        self._drawn: tuple[Any, ...] = ()
        super().__init__(
            f"occsora-sim  {self._kind}",
            lambda key, action: self.playback.press(key) if action != UP else None,
        )

    def step(self, elapsed: float) -> bool:
        """Read the keys, let `elapsed` [s] go by and draw. Returns False once the window is to close."""
        state = self.playback
        if not self.poll() or state.closed:
            return False
        state.advance(elapsed)
        wanted = (state.frame, state.camera, state.hidden)
        if wanted != self._drawn:
            time_words = f"{state.frame * FRAME_SECONDS:.1f} / {self._rollout.seconds:.1f} s"
            self.draw(self._rollout, state.frame, state, f"{self._kind}   {time_words}")
            self._drawn = wanted
        return True
