"""`occsora-sim evaluate agent`."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from occsora_sim.commands.driving import DrivingOptions
from occsora_sim.commands.output import output_file, write_json
from occsora_sim.errors import ConfigurationError


@dataclass(frozen=True, kw_only=True)
class Options(DrivingOptions):
    """Options of `evaluate agent`; `--seconds` is the length of an episode.

    Attributes:
        episodes: how many, each from a start of its own.
        batch: how many side by side.
        json: also write the figures to this file.

    """

    episodes: int = 8
    batch: int = 4
    json: Path | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.episodes < 1 or self.batch < 1:
            raise ConfigurationError(f"--episodes {self.episodes} and --batch {self.batch} must be 1 or more")


def run(options: Options) -> None:
    """Drive the episodes, print and write the mean of each term."""
    from rich.console import Console
    from rich.table import Table

    if options.json:
        output_file(options.json)
    figures = evaluate(options)
    table = Table(
        "term", "mean", title=f"{options.agent} in the {options.world} world, {options.episodes} episodes"
    )
    for name in ("score", "nc", "dac", "ttc", "ep", "comfort"):
        table.add_row(name, f"{figures[name]:.3f}")
    for name in ("seconds_simulated", "wall_seconds"):
        table.add_row(name, f"{figures[name]:.1f}")
    Console().print(table)
    print(", ".join(f"{count} ended by {reason}" for reason, count in figures["ended"].items()))
    if options.json:
        write_json(options.json, figures)


def evaluate(options: Options) -> dict[str, Any]:
    """The figures, as the JSON file holds them."""
    from collections import Counter

    from rich.console import Console
    from rich.progress import Progress

    from occsora_sim.agents.episode import average, run_episodes

    begin = time.perf_counter()
    simulation, agent = options.open(options.episodes)
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("episodes", total=options.episodes)
        episodes = run_episodes(
            simulation,
            agent,
            options.episodes,
            seed=options.seed,
            batch=options.batch,
            on_step=lambda done: progress.update(task, completed=done),
        )
    return {
        "agent": options.agent,
        "world": options.world,
        "episodes": len(episodes),
        **average(episodes),
        "wall_seconds": time.perf_counter() - begin,
        "ended": dict(Counter(episode.ended for episode in episodes)),
    }
