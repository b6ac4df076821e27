"""Drivers that try to be paid for not driving (`agents/cheats.py`), beside the route follower.

    python experiments/cheats.py                                       # live traffic, towns traffic:300000-300003
    python experiments/cheats.py --world replay                        # recorded: the others do not see the ego
    python experiments/cheats.py --drivers route-follower nudge --each

Prints a table of the mean reward and score of each; ends with status 1 if a cheat is above the route follower in one.
`speed` is no cheat but a driver faster than the score's reference.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np

from occsora_sim.agents.cheats import CHEATS, OBSERVED
from occsora_sim.agents.episode import SCORE_TERMS, run_episodes
from occsora_sim.agents.protocol import Agent
from occsora_sim.agents.route_follower import RouteFollower, RouteFollowerConfig
from occsora_sim.envs.config import DriveConfig
from occsora_sim.envs.simulation import DriveSimulation
from occsora_sim.envs.starts import open_starts
from occsora_sim.envs.worlds import close_world, make_world

HONEST = ("route-follower", "speed")
TIE = {"reward": 0.05, "score": 0.005}
"""Differences that are none: `nudge` and `overtake` are the route follower where nobody stands in their way."""


DRIVERS: dict[str, Callable[[], Agent]] = {
    "route-follower": RouteFollower,
    "speed": lambda: RouteFollower(config=RouteFollowerConfig(speed=15.0)),
    **CHEATS,
}


def main() -> int:
    """Drive them all, print the table, and say whether a cheat wins."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--world", default="traffic", choices=("traffic", "replay", "diffusion"))
    parser.add_argument("--scenes", default="traffic:300000-300003")
    parser.add_argument("--episodes", type=int, default=12)
    parser.add_argument("--batch", type=int, default=6)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--drivers", nargs="+", default=list(DRIVERS), choices=list(DRIVERS))
    parser.add_argument("--each", action="store_true", help="a line for each episode, too")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    options = {
        "world": given.world,
        "scenes": given.scenes,
        "starts": given.episodes,
        "seconds": given.seconds,
        "seed": 0,
    }
    config = DriveConfig(**options, observation=OBSERVED)
    world = make_world(config)
    starts = open_starts(config, world)
    rows = {}
    print("| driver | reward | score | nc | dac | ttc | ep | comfort | ended by |")
    print("| --- " * 9 + "|", flush=True)
    for name in given.drivers:
        agent = DRIVERS[name]()
        asked = DriveConfig(
            **{**vars(config), "action": getattr(agent, "action", "controls"), "scenes": given.scenes}
        )
        simulation = DriveSimulation(asked, world, starts)
        episodes = run_episodes(simulation, agent, given.episodes, batch=given.batch, seed=0)
        row = {"reward": float(np.mean([e.reward for e in episodes]))}
        row |= {term: float(np.mean([e.summary[term] for e in episodes])) for term in SCORE_TERMS}
        ended = ", ".join(f"{count} {why}" for why, count in Counter(e.ended for e in episodes).most_common())
        rows[name] = row
        figures = " | ".join(f"{value:.2f}" for value in row.values())
        print(f"| {name} | {figures} | {ended} |", flush=True)
        for e in episodes if given.each else ():
            print(
                f"    {e.start} {e.ended} reward {e.reward:.2f} "
                + " ".join(f"{k} {v:.2f}" for k, v in e.summary.items())
            )
    close_world(config, world)
    if given.json:
        given.json.write_text(json.dumps({"options": options, "drivers": rows}, indent=1))
    honest = rows.get("route-follower")
    won = [] if honest is None else [
        f"{name} in {what}" for name, row in rows.items() for what in TIE
        if name not in HONEST and row[what] > honest[what] + TIE[what]
    ]  # fmt: skip
    print("above the route follower: " + (", ".join(won) or "nobody"))
    return 1 if won else 0


if __name__ == "__main__":
    sys.exit(main())
