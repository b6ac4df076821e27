"""Episodes side by side whose rows draw their next beginnings themselves, on the host: for every world there is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from occsora_sim.envs.beginnings import Beginnings
from occsora_sim.envs.infos import Infos, array_infos, tell
from occsora_sim.envs.road_user_edit import RoadUserEdit
from occsora_sim.envs.simulation import DriveSimulation
from occsora_sim.envs.state import DriveState

Step = tuple[dict[str, torch.Tensor], np.ndarray, np.ndarray, np.ndarray, Infos]


class DrawnEpisodes:
    """The rows of a vector environment.

    An episode that has ended begins anew in the next step, whose action it ignores (reward 0), or at once.

    Args:
        simulation: that is driven.
        beginnings: of all rows.
        at_once: whether it is at once.

    """

    def __init__(self, simulation: DriveSimulation, beginnings: Beginnings, at_once: bool) -> None:
        self.simulation, self.beginnings, self.at_once = simulation, beginnings, at_once
        self.state: DriveState | None = None
        self._ended = np.zeros(beginnings.count, dtype=bool)

    def reset(
        self, rows: Sequence[int], chosen: Sequence[int | str] | None, edits: Sequence[RoadUserEdit] = ()
    ) -> tuple[dict[str, torch.Tensor], Infos]:
        """Begin `rows`, with the road users at their starts edited; the others go on."""
        count = self.beginnings.count
        begun = self.simulation.begin(*self.beginnings.draw(rows, chosen, edits))
        everyone = self.state is None or len(rows) == count
        self.state = begun if everyone else self.simulation.replace(self.state, rows, begun)  # type: ignore[arg-type]
        self._ended[list(rows)] = False
        told = tell(begun, self.simulation.config)
        return self.simulation.look(self.state)[0], array_infos(count, [(rows, told)])

    def step(self, actions: Any) -> Step:
        """Drive on.

        Raises:
            ActionError: wrong shape, not finite, or outside the space.

        """
        assert self.state is not None
        simulation, count = self.simulation, self.beginnings.count
        over, live = (np.flatnonzero(which).tolist() for which in (self._ended, ~self._ended))
        values = simulation.check(actions, count, ignore=over)
        reward = np.zeros(count)
        ended = np.zeros((2, count), dtype=bool)  # terminated, truncated
        told: list[tuple[list[int], Infos]] = []
        begun = simulation.begin(*self.beginnings.draw(over)) if over else None
        if begun is not None:
            told.append((over, tell(begun, simulation.config)))
        if live:
            before = self.state if begun is None else simulation.select(self.state, live)
            after, outcome = simulation.step(before, values[live])
            reward[live] = outcome.reward.double().cpu().numpy()
            ended[:, live] = torch.stack((outcome.terminated, outcome.truncated)).cpu().numpy()
            told.append((live, tell(after, simulation.config, outcome)))
            if begun is None:
                self.state = after
            else:  # rows that begin anew hold a copy of another until they are put in
                spread = [live.index(row) if row in live else 0 for row in range(count)]
                self.state = simulation.replace(simulation.select(after, spread), over, begun)
        else:
            self.state = begun
        assert self.state is not None
        self._ended = np.asarray(ended.any(axis=0))
        if self.at_once and self._ended.any():
            told = self._begin_at_once(told)
        return simulation.look(self.state)[0], reward, ended[0], ended[1], array_infos(count, told)

    def _begin_at_once(self, told: list[tuple[list[int], Infos]]) -> list[tuple[list[int], Infos]]:
        """Put new episodes in the place of those that have ended; what is told then, last observation and info too."""
        simulation, state = self.simulation, self.state
        assert state is not None
        rows, others = (np.flatnonzero(which).tolist() for which in (self._ended, ~self._ended))
        ((live, all_told),) = told  # with autoreset at once all rows are live
        assert len(live) == self.beginnings.count
        last, _ = simulation.look(simulation.select(state, rows))
        begun = simulation.begin(*self.beginnings.draw(rows))
        fresh = {**tell(begun, simulation.config), "final_obs": last, "final_info": _pick(all_told, rows)}
        self.state = simulation.replace(state, rows, begun)
        self._ended[:] = False
        return [(others, _pick(all_told, others)), (rows, fresh)]


def _pick(told: Infos, rows: list[int]) -> Infos:
    """What is told of some of the rows."""
    return {
        name: _pick(value, rows) if isinstance(value, dict) else value[rows] for name, value in told.items()
    }
