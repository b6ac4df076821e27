"""`occsora-sim drive`."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from occsora_sim.commands.driving import DrivingOptions
from occsora_sim.commands.output import Outputs, output_file, output_folder, write_json

if TYPE_CHECKING:
    from occsora_sim.agents.episode import Episode
    from occsora_sim.rendering.rollout import Rollout

STARTS = 4
"""Beginnings drawn from the scenes; an episode that ends early is followed by one from the next."""

TERMS = ("score", "nc", "dac", "ttc", "ep", "comfort")


@dataclass(frozen=True, kw_only=True)
class Options(DrivingOptions):
    """Options of `drive`.

    Attributes:
        out: folder for rollout.mp4, rollout.npz and summary.json. An episode that ends early is followed by
            another, rollout-2 and so on, until `seconds` have been driven.
        skip_video: write no mp4; needs no Open3D.
        json: also write the summary to this file.

    """

    out: Path = Path("out/drive")
    skip_video: bool = False
    json: Path | None = None


def run(options: Options) -> None:
    """Drive, write the rollouts, print the score."""
    from occsora_sim.rendering.rollout import rollout_video, save_rollout

    folder = output_folder(options.out)
    if options.json:
        output_file(options.json)
    if not options.skip_video:
        from occsora_sim.rendering.pinhole import load_open3d

        load_open3d()  # what is missing is said before the driving, not after
    begin = time.perf_counter()
    episodes: list[Episode] = []
    films: list[tuple[Path, Rollout]] = []
    stems: list[str] = []
    with Outputs() as outputs:
        for episode, rollout in drive(options):  # each is on the disk before the next one begins
            stems.append("rollout" if not stems else f"rollout-{len(stems) + 1}")
            episodes.append(replace(episode, recording=None))
            path = folder / f"{stems[-1]}.npz"
            driven = time.perf_counter()
            outputs.write(save_rollout, rollout, path)
            begin += time.perf_counter() - driven
            if not options.skip_video:
                films.append((path, rollout))
        summary = summarise(options, episodes, stems, time.perf_counter() - begin)
        outputs.write(write_json, folder / "summary.json", summary)
        if options.json:
            outputs.write(write_json, options.json, summary)
        print_table(summary)
        for path, rollout in films:
            print(f"drawing {path.stem}.mp4 ...", flush=True)
            outputs.write(rollout_video, rollout, path.with_suffix(".mp4"))
    print(f"written to {folder}: {', '.join(stems)} and summary.json")


def drive(options: DrivingOptions) -> Iterator[tuple[Episode, Rollout]]:
    """Episodes one after another until `options.seconds` have been driven, each with its recording."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    from occsora_sim.agents.episode import run_episodes
    from occsora_sim.commands.recording import rollout_of
    from occsora_sim.envs.simulation import DriveSimulation
    from occsora_sim.grid import FRAME_SECONDS

    simulation, agent = options.open(STARTS)
    chunk = simulation.frames * FRAME_SECONDS
    left, number = options.seconds, 0
    columns = (TextColumn("driving"), BarColumn(), TextColumn("{task.completed:g} of {task.total:g} s"))
    console = Console(stderr=True)
    bar = Progress(
        *columns, TimeRemainingColumn(), console=console, transient=True, disable=not console.is_terminal
    )
    with bar as progress:
        task = progress.add_task("driving", total=options.seconds)
        while left > 1e-6:
            place = number % len(simulation.starts)
            part = DriveSimulation(
                replace(simulation.config, seconds=left), simulation.world, simulation.starts
            )
            episode = run_episodes(
                part,
                agent,
                1,
                seed=options.seed + number,
                record=1,
                starts=[place],
                on_step=lambda _: progress.advance(task, chunk),
            )[0]
            header = {
                "world": options.world,
                "agent": options.agent,
                "name": episode.start,
                "seed": episode.seed,
                "ended": episode.ended,
                "score": episode.summary,
            }
            rollout = rollout_of(episode, simulation.starts[place].route, simulation.world.grid, header)
            yield episode, rollout
            left -= episode.summary["seconds"]
            number += 1


def summarise(
    options: DrivingOptions, episodes: list[Episode], stems: list[str], wall_seconds: float
) -> dict[str, Any]:
    """What summary.json holds: the mean of the terms, and each episode."""
    from occsora_sim.agents.episode import average

    rows = [
        {
            "rollout": stem,
            "start": episode.start,
            "seed": episode.seed,
            "ended": episode.ended,
            "reward": episode.reward,
            **episode.summary,
        }
        for stem, episode in zip(stems, episodes, strict=True)
    ]
    return {
        "agent": options.agent,
        "world": options.world,
        "seed": options.seed,
        **average(episodes),
        "wall_seconds": wall_seconds,
        "episodes": rows,
    }


def print_table(summary: dict[str, Any]) -> None:
    """The score of each episode, and how fast it was driven."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    title = f"{summary['agent']} in the {summary['world']} world"
    table = Table(
        title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0)
    )
    table.add_column("episode", no_wrap=True)
    for name in (*TERMS, "metres", "seconds"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("ended by", no_wrap=True)
    for row in summary["episodes"]:
        terms = [f"{row[name]:.2f}" for name in TERMS]
        table.add_row(row["rollout"], *terms, f"{row['progress']:.1f}", f"{row['seconds']:g}", row["ended"])
    Console(markup=False, emoji=False).print(table)  # names may hold [ and :
    print(
        "score = nc x dac x (5 ttc + 5 ep + 2 comfort) / 12, as NAVSIM's PDMS.\n"
        "nc: no at-fault collision; dac: on the road; ttc: time to collision; ep: progress along the route."
    )
    print(f"{summary['seconds_simulated']:g} s driven in {summary['wall_seconds']:.1f} s")
