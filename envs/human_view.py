"""`render_mode="human"`: the window in which an episode is shown while it is driven."""

from __future__ import annotations

import importlib.util
import os
import sys
from typing import TYPE_CHECKING

import numpy as np

from occsora_sim.envs.simulation import DriveSimulation
from occsora_sim.envs.state import DriveState
from occsora_sim.grid import FRAME_SECONDS

if TYPE_CHECKING:
    from occsora_sim.viewer.drive_window import DriveWindow


class HumanView:
    """A window, opened by the first `show`; once somebody has closed it, it stays closed.

    Raises:
        MissingDependencyError: Open3D is not installed, or there is no display.

    """

    def __init__(self) -> None:
        from occsora_sim.viewer.window import check_window

        check_window()
        self._window: DriveWindow | None = None
        self._unwanted = False

    def show(self, simulation: DriveSimulation, state: DriveState, *, new: bool = False) -> None:
        """Show the newest frames of the one episode of `state`, FRAME_SECONDS apart; if it is `new`, the last alone."""
        from occsora_sim.rendering.rollout import Rollout, kind_of
        from occsora_sim.viewer.drive_window import HELP, DriveWindow

        if self._unwanted:
            return
        count = 1 if new else simulation.frames
        world = simulation.config.world
        rollout = Rollout(
            occupancy=state.frames[0, -count:].cpu().numpy(),
            ego_pose=state.poses[0, -count:].cpu().numpy(),
            actions=np.zeros((0, 2), np.float32),
            rewards=np.zeros(0, np.float32),
            planned=np.zeros((count, 0, 3), np.float32),
            route=state.episodes.routes.points[0].cpu().numpy().astype(np.float32),
            header={"world": world if isinstance(world, str) else type(world).__name__},
            grid=simulation.world.grid,
        )
        driven, speed = int(state.episodes.frames[0]), 3.6 * float(state.motion[0, 0])
        captions = [
            f"{kind_of(rollout)}   {(driven - after) * FRAME_SECONDS:.1f} s   {speed:.0f} km/h"
            for after in reversed(range(count))
        ]
        if self._window is None:
            self._window = DriveWindow()
            print(HELP, flush=True)
        if not self._window.show(rollout, captions, new=new):
            self._unwanted = True
            self.close()

    def close(self) -> None:
        """Close the window, if it is open."""
        if self._window is not None:
            self._window.close()
            self._window = None


def render_modes() -> list[str]:
    """The render modes that this machine may have, without a look at its display: Gymnasium's checker tries them."""
    desktop = not sys.platform.startswith("linux") or any(map(os.environ.get, ("DISPLAY", "WAYLAND_DISPLAY")))
    return ["human", "rgb_array"] if desktop and importlib.util.find_spec("open3d") else ["rgb_array"]
