"""What `evaluate agent` prints and writes: the table, a row for each episode, the worst ones, the page to send."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from occsora_sim.agents import AnyAgent
    from occsora_sim.agents.episode import Episode
    from occsora_sim.commands.evaluate_agent import Options
    from occsora_sim.commands.output import Outputs
    from occsora_sim.commands.report_page import Case
    from occsora_sim.envs.simulation import DriveSimulation

COLUMNS = ("episode", "start", "seed", "ended", "reward")
"""Of the CSV file, a row for each episode; then the terms of the score, progress [m] and seconds."""


def table_title(figures: dict[str, Any]) -> str:
    """Who was scored, where and how."""
    where = f"suite {figures['suite']}, " if figures["suite"] else ""
    where += "EPDMS, " if "kind" in figures else ""
    return f"{figures['agent']} in the {figures['world']} world, {where}{figures['episodes']} episodes"


def print_table(figures: dict[str, Any]) -> None:
    """The mean of each term and its interval, and how the episodes ended."""
    from rich.console import Console
    from rich.table import Table

    table = Table("term", "mean", "95 % interval", title=table_title(figures))
    for name, (low, high) in figures["intervals"].items():
        table.add_row(name, f"{figures[name]:.3f}", f"{low:.3f} to {high:.3f}")
    for name in ("seconds_simulated", "wall_seconds"):
        table.add_row(name, f"{figures[name]:.1f}", "")
    Console(markup=False, emoji=False).print(table)  # names may hold [ and :
    print(", ".join(f"{count} ended by {reason}" for reason, count in figures["ended"].items()))
    for name, what in figures.get("stand_ins", {}).items():
        print(f"{name}: {what}")


def write_csv(path: Path, episodes: list[Episode]) -> None:
    """A row for each episode under COLUMNS and the terms of the score, whole or not at all."""
    from occsora_sim.atomic_file import write_rows

    rows = []
    for number, episode in enumerate(episodes):
        about = {name: getattr(episode, name) for name in ("start", "seed", "ended", "reward")}
        rows.append({"episode": number, **about, **episode.summary})
    write_rows(path, (*COLUMNS, *episodes[0].summary), rows)


def record_worst(
    options: Options,
    simulation: DriveSimulation,
    agent: AnyAgent,
    episodes: list[Episode],
    outputs: Outputs,
) -> list[Case]:
    """Drive the episodes of the lowest score once more, recorded; write them, film those that `worst` asks for, and
    return those that the report shows.
    """
    from occsora_sim.commands.recording import recorded_again
    from occsora_sim.commands.report_page import MOST, SHOWN, case_of
    from occsora_sim.rendering.rollout import rollout_video, save_rollout

    order = sorted(range(len(episodes)), key=lambda number: episodes[number].summary["score"])
    cases = []
    for rank, number in enumerate(order[: options.worst or (SHOWN if options.report else 0)], start=1):
        header = {"world": options.world, "agent": options.agent}
        rollout = recorded_again(simulation, agent, number, episodes[number].seed, header)
        path = options.out / f"worst-{rank}.npz"
        outputs.write(save_rollout, rollout, path)
        if options.worst and not options.skip_video:
            outputs.write(rollout_video, rollout, path.with_suffix(".mp4"))
        title = f"episode {number}, {rollout.header['name']}"
        score = f"score {rollout.header['score']['score']:.3f}, ended by {rollout.header['ended']}"
        print(f"{path.with_suffix('')}: {title}, {score}")
        if options.report and rank <= MOST:
            summary = episodes[number].summary
            units = {"progress": " m", "seconds": " s"}
            terms = ", ".join(f"{name} {value:.2f}{units.get(name, '')}" for name, value in summary.items())
            cases.append(case_of(episodes[number], title, terms, rollout, path))
    return cases


def write_page(
    path: Path,
    figures: dict[str, Any],
    episodes: list[Episode],
    cases: list[Case],
    about: dict[str, str],
) -> None:
    """The page of `--report`."""
    from occsora_sim.commands.report_page import MEANINGS, interval_bar, node, table, write_report

    terms = [
        (
            name,
            f"{figures[name]:.3f}",
            f"{low:.3f} to {high:.3f}",
            interval_bar(figures[name], low, high),
            MEANINGS.get(name, ""),
        )
        for name, (low, high) in figures["intervals"].items()
    ]
    rows = [
        (str(number), episode.start, str(episode.seed), episode.ended,
         *(f"{episode.summary[name]:.2f}" for name in figures["intervals"]))
        for number, episode in enumerate(episodes)
    ]  # fmt: skip
    ends = ", ".join(f"{count} by {reason.replace('_', ' ')}" for reason, count in figures["ended"].items())
    listed = table(("", "start", "seed", "ended by", *figures["intervals"]), rows)
    parts = [
        table(("term", "mean", "95 % interval", "0 to 1", "1 means"), terms),
        node("p", f"{figures['episodes']} episodes ended: {ends}."),
        node("details", node("summary", "All episodes"), listed),
    ]
    write_report(path, table_title(figures), about, parts, cases, "The episodes of the lowest score")
