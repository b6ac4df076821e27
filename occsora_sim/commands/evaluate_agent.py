"""`occsora-sim evaluate agent`."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from occsora_sim.cluster import Crew, Told, batches, check_ray, open_crew
from occsora_sim.commands.agent_report import print_table, record_worst, write_csv, write_page
from occsora_sim.commands.driving import DrivingOptions
from occsora_sim.commands.output import Outputs, output_file, output_folder, write_json
from occsora_sim.errors import ConfigurationError

if TYPE_CHECKING:
    from occsora_sim.agents import AnyAgent
    from occsora_sim.agents.episode import Episode
    from occsora_sim.envs.simulation import DriveSimulation

EPISODES = 8


@dataclass(frozen=True, kw_only=True)
class Options(DrivingOptions):
    """Options of `evaluate agent`; `--seconds` is the length of an episode.

    Attributes:
        episodes: how many, each from a start of its own; by default 8.
        score: pdms, or epdms, the score of NAVSIM v2, where the route stands for lanes; in a replay what the recorded
            driver cannot keep to is not asked of the agent.
        suite: a fixed set of towns, starts, seeds and length instead; "test" is for final figures alone.
        batch: how many side by side.
        ray: spread the episodes over a Ray cluster: local or local:N (Ray on this machine, with N workers), auto,
            HOST:PORT or ray://HOST:PORT; every batch of them goes to one worker.
        json: also write the figures to this file.
        csv: write a row for each episode to this file.
        report: write a page to send, one .html file: the figures, what was run, and pictures of the episodes with the
            lowest score, by kind of failure; 6 of them, or as many as --worst says.
        worst: record and film this many of the episodes with the lowest score.
        out: folder for those, worst-1.mp4 and worst-1.npz the lowest; and for those of --report, which are recorded.
        skip_video: write no mp4; needs no Open3D.

    """

    episodes: int | None = None
    score: Literal["pdms", "epdms"] = "pdms"
    suite: Literal["validation", "test"] | None = None
    batch: int = 4
    ray: str | None = None
    json: Path | None = None
    csv: Path | None = None
    report: Path | None = None
    worst: int = 0
    out: Path = Path("out/evaluate")
    skip_video: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.episodes is not None and self.episodes < 1) or self.batch < 1:
            raise ConfigurationError(f"--episodes {self.episodes} and --batch {self.batch} must be 1 or more")
        if self.worst < 0:
            raise ConfigurationError(f"--worst {self.worst}: must be 0 or more")
        if self.report is not None and self.report.suffix.lower() != ".html":
            raise ConfigurationError(f"--report {self.report}: must end in .html")
        check_ray(self.ray, self.device)
        fixed = ("episodes", "scenes", "ego", "least_future", "seconds", "seed")
        if self.suite is not None and any(getattr(self, name) != getattr(Options, name) for name in fixed):
            raise ConfigurationError(
                f"--suite {self.suite} fixes the scenes, starts, episodes, seconds and seed; leave out "
                f"{', '.join('--' + name.replace('_', '-') for name in fixed)}"
            )

    def settled(self) -> Options:
        """These options with the suite's values, or the default number of episodes, put in."""
        if self.suite is None:
            return replace(self, episodes=EPISODES if self.episodes is None else self.episodes)
        from occsora_sim.agents.suite import find_suite

        suite = find_suite(self.suite)
        return replace(
            self,
            suite=None,
            scenes=suite.scenes,
            episodes=suite.episodes,
            seconds=suite.seconds,
            seed=suite.seed,
        )


def run(options: Options) -> None:
    """Drive the episodes; print and write the mean of each term with its interval."""
    for path in (options.json, options.csv, options.report):
        if path:
            output_file(path)
    if options.worst or options.report:
        output_folder(options.out)
    if options.worst and not options.skip_video:
        from occsora_sim.rendering.pinhole import load_open3d

        load_open3d()  # what is missing is said before the driving, not after
    settled = options.settled()
    assert settled.episodes is not None
    simulation, agent = held = settled.open(settled.episodes)
    if settled.score != simulation.config.score.kind:
        simulation, agent = held = rescored(simulation, settled.score), agent
    begin = time.perf_counter()
    again = partial(settled.reopen, simulation.config, simulation.starts)
    with open_crew(settled.ray, held, again, device=settled.device) as crew:
        episodes = drive(settled, crew)
    filtered = None
    if settled.score == "epdms" and settled.world == "replay":
        episodes, filtered = as_the_human(simulation, episodes)
    figures = summarise(options, episodes, time.perf_counter() - begin)
    if settled.score == "epdms":
        from occsora_sim.scoring.extended import STAND_INS

        figures |= {"kind": "epdms", "stand_ins": STAND_INS, "human_filter": filtered}
    with Outputs() as outputs:
        if options.csv:
            outputs.write(write_csv, options.csv, episodes)
        if options.json:
            outputs.write(write_json, options.json, figures)
        print_table(figures)
        cases = record_worst(options, simulation, agent, episodes, outputs)
        if options.report:
            from occsora_sim.commands.report_page import command_line, what_was_run

            about = what_was_run(command_line("evaluate agent", options), settled, [options.agent])
            outputs.write(write_page, options.report, figures, episodes, cases, about)


def drive(options: Options, crew: Crew[tuple[DriveSimulation, AnyAgent]]) -> list[Episode]:
    """Drive the episodes, in order."""
    from rich.console import Console
    from rich.progress import Progress

    assert options.episodes is not None
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("episodes", total=options.episodes)
        driven = crew.map(
            partial(drive_batch, seed=options.seed),
            batches(options.episodes, options.batch),
            lambda: progress.advance(task),
        )
        return [episode for batch in driven for episode in batch]


def drive_batch(
    held: tuple[DriveSimulation, AnyAgent], numbers: range, told: Told, *, seed: int
) -> list[Episode]:
    """The episodes `numbers`, side by side."""
    from occsora_sim.agents.episode import run_batch

    return run_batch(*held, numbers, seed=seed, told=told)


def rescored(simulation: DriveSimulation, kind: Literal["pdms", "epdms"]) -> DriveSimulation:
    """The same simulation with another score."""
    from occsora_sim.envs.simulation import DriveSimulation

    config = replace(simulation.config, score=replace(simulation.config.score, kind=kind))
    return DriveSimulation(config, simulation.world, simulation.starts)


def as_the_human(
    simulation: DriveSimulation, episodes: list[Episode]
) -> tuple[list[Episode], dict[str, int]]:
    """Episodes of a replay of which is not asked what the recorded driver could not keep to either; and of how many
    that was so, by term.
    """
    import torch

    from occsora_sim.scoring.extended import TERMS, human_filter
    from occsora_sim.scoring.human import human_terms

    config, world = simulation.config, simulation.world
    kept, counts = [], dict.fromkeys(TERMS, 0)
    for number, episode in enumerate(episodes):
        start, seconds = simulation.starts[number % len(simulation.starts)], episode.summary["seconds"]
        human = human_terms(start, world, seconds, config.vehicle, config.score)  # type: ignore[arg-type]
        agent = {name: torch.tensor([value]) for name, value in episode.summary.items()}
        summary = {name: float(value) for name, value in human_filter(agent, human).items()}
        kept.append(replace(episode, summary=summary))
        for name in TERMS:
            counts[name] += int(human[name] == 0)
    return kept, {name: count for name, count in counts.items() if count}


def summarise(options: Options, episodes: list[Episode], wall_seconds: float) -> dict[str, Any]:
    """The figures, as the JSON file holds them; `intervals` are of 95 %, over the episodes."""
    from collections import Counter

    import numpy as np

    from occsora_sim.agents.episode import average, score_terms
    from occsora_sim.scoring.interval import mean_interval

    intervals = {
        name: mean_interval(
            np.array([episode.summary[name] for episode in episodes]), np.random.default_rng(options.seed)
        )
        for name in score_terms(episodes)
    }
    return {
        "agent": options.agent,
        "world": options.world,
        "suite": options.suite,
        "episodes": len(episodes),
        **average(episodes),
        "intervals": intervals,
        "wall_seconds": wall_seconds,
        "ended": dict(Counter(episode.ended for episode in episodes)),
    }
