"""`occsora-sim evaluate transfer`."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from occsora_sim.cluster import Crew, Told, batches, check_ray, open_crew
from occsora_sim.commands.driving import check_least_future
from occsora_sim.commands.output import Outputs, output_file, output_folder, write_json
from occsora_sim.commands.transfer_report import (
    Driven,
    draw,
    print_table,
    record_differing,
    write_csv,
    write_page,
)
from occsora_sim.commands.transfer_worlds import agents_of, open_worlds, reopen, simulation_of
from occsora_sim.device import check_device
from occsora_sim.errors import ConfigurationError

if TYPE_CHECKING:
    from occsora_sim.agents.episode import Episode
    from occsora_sim.commands.transfer_worlds import Held
    from occsora_sim.envs.simulation import DriveSimulation


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of `evaluate transfer`.

    Attributes:
        agents: who drives, by name, by the path of a policy, or as FILE.py:NAME or MODULE:NAME, as for `drive`; by
            default twelve of clearly different skill.
        also: who drives in addition to the twelve.
        trust: read a .zip of Stable-Baselines3, whose pickles can run any code.
        against: the world that the generated one is held against: live traffic ("traffic"), or the recorded town or
            street ("replay"), whose road users do not react but which every kind of scene has.
        weights: weights of the generated world; by default the shipped ones.
        steps: calls of the network for a tile of new ground in the generated world, by default 4.
        scenes: where episodes begin: a file, a folder or `traffic:A-B`; by default the shipped scenes.
        ego: in logs any vehicle that drives long enough, or the one that recorded them (recorder) alone.
        least_future: how long the recorded motion goes on after a beginning, at least [s]; by default 10 s, against a
            replay as long as an episode, and in a shorter log half of what it has.
        episodes: how many for each agent and world; the same starts and seeds for all.
        seconds: length of an episode [s]; against a replay at most as long as every start's recording goes on.
        seed: of the starts and episodes.
        batch: episodes side by side.
        ray: spread the episodes over a Ray cluster: local or local:N (Ray on this machine, with N workers), auto,
            HOST:PORT or ray://HOST:PORT; every batch of them goes to one worker.
        device: cpu, cuda, cuda:1...
        json: write the figures to this file, and the scatter plot beside it.
        plot: write the scatter plot to this PNG file; by default beside the JSON file, or out/transfer.png.
        csv: write a row for each episode to this file.
        report: write a page to send, one .html file: the figures, the scatter plot, what was run, and pictures of the
            six episodes that the worlds score most differently, by kind of failure.
        out: folder for the recordings of those, differs-1.npz the most.

    """

    agents: tuple[str, ...] | None = None
    also: tuple[str, ...] = ()
    trust: bool = False
    against: Literal["traffic", "replay"] = "traffic"
    weights: Path | None = None
    steps: int | None = None
    scenes: str | None = None
    ego: Literal["any", "recorder"] = "any"
    least_future: float | None = None
    episodes: int = 8
    seconds: float = 20.0
    seed: int = 0
    batch: int = 4
    ray: str | None = None
    device: str = "cpu"
    json: Path | None = None
    plot: Path | None = None
    csv: Path | None = None
    report: Path | None = None
    out: Path = Path("out/transfer")

    def __post_init__(self) -> None:
        if self.episodes < 1 or self.batch < 1:
            raise ConfigurationError(f"--episodes {self.episodes} and --batch {self.batch} must be 1 or more")
        if not (math.isfinite(self.seconds) and self.seconds > 0):
            raise ConfigurationError(f"--seconds {self.seconds}: must be above 0")
        check_least_future(self.least_future)
        check_ray(self.ray, self.device)
        if self.seed < 0:
            raise ConfigurationError(f"--seed {self.seed}: must be 0 or more")
        if self.steps is not None and self.steps < 1:
            raise ConfigurationError(f"--steps {self.steps}: must be 1 or more")
        if len(set(self.names)) < max(2, len(self.names)):
            raise ConfigurationError(f"--agents {' '.join(self.names)}: give two or more, each once")
        if self.picture.suffix != ".png":
            raise ConfigurationError(f"--plot {self.picture}: must end in .png")
        if self.report is not None and self.report.suffix.lower() != ".html":
            raise ConfigurationError(f"--report {self.report}: must end in .html")

    @property
    def names(self) -> tuple[str, ...]:
        """Who drives."""
        from occsora_sim.agents.ladder import LADDER

        return (*(LADDER if self.agents is None else self.agents), *self.also)

    @property
    def picture(self) -> Path:
        """Where the scatter plot goes."""
        if self.plot is not None:
            return self.plot
        return Path("out/transfer.png") if self.json is None else self.json.with_suffix(".png")


def run(options: Options) -> None:
    """Drive all agents in both worlds; print the table, write the figures and the plot."""
    check_device(options.device)
    for path in (options.json, options.csv, options.picture, options.report):
        if path:
            output_file(path)
    if options.report:
        output_folder(options.out)
    agents = agents_of(options)
    begin = time.perf_counter()
    worlds = open_worlds(options)
    held: Held = (agents, worlds)
    settled = worlds["diffusion"]
    again = partial(reopen, options, replace(settled.config, imagination=None), settled.starts)
    with open_crew(options.ray, held, again, device=options.device) as crew:
        driven = drive(options, list(agents), list(worlds), crew)
    words = words_of(options, worlds)
    figures = summarise(options, driven, time.perf_counter() - begin, words)
    with Outputs() as outputs:
        if options.csv:
            outputs.write(write_csv, options.csv, driven)
        if options.json:
            outputs.write(write_json, options.json, figures)
        outputs.write(draw, figures, options.picture)
        print_table(figures)
        if options.report:
            from occsora_sim.commands.report_page import command_line, what_was_run

            simulations = {
                name: {where: simulation_of(agent, simulation) for where, simulation in worlds.items()}
                for name, agent in agents.items()
            }
            cases = record_differing(driven, agents, simulations, words, options.out, outputs)
            about = what_was_run(command_line("evaluate transfer", options), options, options.names)
            outputs.write(write_page, options.report, figures, cases, about)
    print(f"scatter plot: {options.picture}")


def words_of(options: Options, worlds: Mapping[str, DriveSimulation]) -> dict[str, str]:
    """What each of the worlds is called."""
    from occsora_sim.scenes.recorded import GENERATED, LIVE_TRAFFIC, recorded_words

    if options.against == "traffic":
        return {"diffusion": GENERATED, "traffic": LIVE_TRAFFIC}
    starts = worlds[options.against].starts
    return {
        "diffusion": GENERATED,
        "replay": recorded_words(start.source[0] for start in starts if start.source is not None),
    }


def drive(options: Options, agents: Sequence[str], worlds: Sequence[str], crew: Crew[Held]) -> Driven:
    """Every agent's episodes in each of the worlds; episode i has the same start and seed for all."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from occsora_sim.agents.episode import average

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    driven: Driven = {name: {where: [] for where in worlds} for name in agents}
    parts = batches(options.episodes, options.batch)
    units = [(name, where, numbers) for name in agents for where in worlds for numbers in parts]
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("episodes", total=len(agents) * len(worlds) * options.episodes)
        work = partial(drive_batch, seed=options.seed)
        results = iter(crew.map(work, units, lambda: progress.advance(task)))
        for name, where, numbers in units:
            progress.update(task, description=f"{name}, {where}")
            driven[name][where] += next(results)
            if (where, numbers) == (worlds[-1], parts[-1]) and not sys.stderr.isatty():
                means = [f"{world} {average(driven[name][world])['score']:.3f}" for world in worlds]
                print(f"{name}: {', '.join(means)}", file=sys.stderr, flush=True)
    return driven


def drive_batch(held: Held, unit: tuple[str, str, range], told: Told, *, seed: int) -> list[Episode]:
    """The episodes of some numbers, side by side, of one agent in one world."""
    from occsora_sim.agents.episode import run_batch

    (agents, worlds), (name, where, numbers) = held, unit
    return run_batch(simulation_of(agents[name], worlds[where]), agents[name], numbers, seed=seed, told=told)


def summarise(
    options: Options, driven: Driven, wall_seconds: float, words: Mapping[str, str]
) -> dict[str, Any]:
    """The figures, as the JSON file holds them; intervals are of 95 %, over the episodes. A policy's scores stand under
    "diffusion" and under the name of the other world, "traffic" or "replay"; `words` say what each is.

    A correlation is null where one of the worlds gives all agents the same score.
    """
    import numpy as np

    from occsora_sim.agents.episode import SCORE_TERMS, average
    from occsora_sim.scoring.correlation import correlation_interval, pearson, spearman
    from occsora_sim.scoring.interval import mean_interval

    policies, table = [], []
    for name, by_world in driven.items():
        scores = {
            where: np.array([episode.summary["score"] for episode in episodes])
            for where, episodes in by_world.items()
        }
        table.append(scores)
        policies.append(
            {
                "agent": name,
                **{where: float(values.mean()) for where, values in scores.items()},
                "intervals": {
                    where: mean_interval(values, np.random.default_rng(options.seed))
                    for where, values in scores.items()
                },
                "terms": {
                    where: {term: average(episodes)[term] for term in SCORE_TERMS}
                    for where, episodes in by_world.items()
                },
            }
        )
    one, two = (np.stack([scores[where] for scores in table]) for where in ("diffusion", options.against))
    figures: dict[str, Any] = {"policies": policies}
    measures = {"spearman": spearman, "pearson": pearson}
    figures |= {name: measure(one.mean(axis=1), two.mean(axis=1)) for name, measure in measures.items()}
    figures["intervals"] = {
        name: correlation_interval(measure, one, two, np.random.default_rng(options.seed))
        for name, measure in measures.items()
    }
    return figures | {
        "against": options.against,
        "worlds": dict(words),
        "scenes": options.scenes or "shipped",
        "steps": options.steps,
        "episodes": options.episodes,
        "seconds": options.seconds,
        "seed": options.seed,
        "wall_seconds": wall_seconds,
    }
