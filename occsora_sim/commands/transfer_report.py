"""What `evaluate transfer` prints and writes: the table, the scatter plot, a row for each episode, the page to send."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    from occsora_sim.agents import AnyAgent
    from occsora_sim.agents.episode import Episode
    from occsora_sim.commands.output import Outputs
    from occsora_sim.commands.report_page import Case
    from occsora_sim.envs.simulation import DriveSimulation

Driven = dict[str, dict[str, "list[Episode]"]]
"""Agent -> world ("diffusion", and "traffic" or "replay") -> its episodes."""

COLUMNS = ("agent", "world", "start", "seed", "ended", "reward")


def print_table(figures: dict[str, Any]) -> None:
    """Every agent's score in both worlds, best in the second first, and the correlations."""
    from rich.console import Console
    from rich.table import Table

    table = Table("agent", *figures["worlds"].values(), title=table_title(figures))
    for row in table_rows(figures):
        table.add_row(*row)
    Console(markup=False, emoji=False).print(table)  # names may hold [ and :
    print("\n".join(correlations(figures)))


def table_title(figures: dict[str, Any]) -> str:
    """What the table holds."""
    return f"score over {figures['episodes']} episodes of {figures['seconds']:g} s, 95 % interval"


def table_rows(figures: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Agent and its score in both worlds with the intervals, best in the second first."""
    other = figures["against"]

    def cell(row: dict[str, Any], where: str) -> str:
        low, high = row["intervals"][where]
        return f"{row[where]:.3f} ({low:.2f} to {high:.2f})"

    order = sorted(figures["policies"], key=lambda row: -row[other])
    return [(row["agent"], cell(row, "diffusion"), cell(row, other)) for row in order]


def correlations(figures: dict[str, Any]) -> list[str]:
    """A line for each correlation."""
    lines = []
    for name in ("spearman", "pearson"):
        value, interval = figures[name], figures["intervals"][name]
        if value is None:
            lines.append(f"{name}: not defined, one of the worlds gives all agents the same score")
        else:
            around = f" ({interval[0]:.2f} to {interval[1]:.2f})" if interval else ""
            lines.append(f"{name}: {value:.3f}{around}")
    return lines


def draw(figures: dict[str, Any], path: Path) -> None:
    """The scatter plot as a PNG file, whole or not at all."""
    from PIL import Image

    from occsora_sim.atomic_file import atomic_path

    with atomic_path(path) as temporary:
        Image.fromarray(scatter(figures)).save(temporary, format="PNG")


def scatter(figures: dict[str, Any]) -> np.ndarray:
    """The scatter plot, (h, w, 3) uint8."""
    from occsora_sim.agents.loader import agent_title
    from occsora_sim.rendering.scatter import Point, scatter_plot

    other = figures["against"]
    points = [
        Point(
            name=agent_title(row["agent"]),
            x=row["diffusion"],
            y=row[other],
            x_interval=row["intervals"]["diffusion"],
            y_interval=row["intervals"][other],
        )
        for row in figures["policies"]
    ]
    found = [
        f"{label} {figures[key]:.2f}"
        for label, key in (("Spearman", "spearman"), ("Pearson", "pearson"))
        if figures[key] is not None
    ]
    return scatter_plot(
        points,
        title=": ".join((f"{len(points)} policies, {figures['episodes']} episodes", ", ".join(found))),
        x_label=f"score, {figures['worlds']['diffusion']}",
        y_label=f"score, {figures['worlds'][other]}",
    )


def write_csv(path: Path, driven: Driven) -> None:
    """A row for each episode, whole or not at all: COLUMNS and the terms of the score."""
    from occsora_sim.atomic_file import write_rows

    rows = [
        {
            "agent": name,
            "world": where,
            **{column: getattr(episode, column) for column in COLUMNS[2:]},
            **episode.summary,
        }
        for name, by_world in driven.items()
        for where, episodes in by_world.items()
        for episode in episodes
    ]
    write_rows(path, list(rows[0]), rows)


def record_differing(
    driven: Driven,
    agents: Mapping[str, AnyAgent],
    simulations: Mapping[str, Mapping[str, DriveSimulation]],
    words: Mapping[str, str],
    out: Path,
    outputs: Outputs,
) -> list[Case]:
    """Drive the episodes that the worlds score most differently once more, each in the world where it went worse; write
    and return them.
    """
    from occsora_sim.commands.recording import recorded_again
    from occsora_sim.commands.report_page import SHOWN, case_of
    from occsora_sim.rendering.rollout import save_rollout

    differing = []
    for name, by_world in driven.items():
        for number, pair in enumerate(zip(*by_world.values(), strict=True)):
            scores = {where: episode.summary["score"] for where, episode in zip(by_world, pair, strict=True)}
            worse = min(scores, key=scores.__getitem__)
            gap = max(scores.values()) - scores[worse]
            if gap > 0:
                said = ", ".join(f"{words[where]} {score:.2f}" for where, score in scores.items())
                differing.append((gap, name, number, worse, said))
    differing.sort(key=lambda found: -found[0])
    cases = []
    for rank, (_, name, number, where, said) in enumerate(differing[:SHOWN], start=1):
        episode = driven[name][where][number]
        header = {"world": where, "agent": name}
        rollout = recorded_again(simulations[name][where], agents[name], number, episode.seed, header)
        path = out / f"differs-{rank}.npz"
        outputs.write(save_rollout, rollout, path)
        title = f"{name}, {words[where]}: episode {number}, {episode.start}"
        cases.append(case_of(episode, title, f"score: {said}", rollout, path))
    return cases


def write_page(path: Path, figures: dict[str, Any], cases: list[Case], about: dict[str, str]) -> None:
    """The page of `--report`."""
    from occsora_sim.commands.report_page import node, picture, png, table, write_report

    title = " and ".join(figures["worlds"].values())
    parts = [
        node("p", table_title(figures)),
        table(("agent", *figures["worlds"].values()), table_rows(figures)),
        *(node("p", line) for line in correlations(figures)),
        picture(png(scatter(figures)), "A point for each agent, with its intervals", css="scatter"),
    ]
    heading = "Where the worlds differ most, each in the world where it went worse"
    write_report(path, f"{len(figures['policies'])} agents: {title}", about, parts, cases, heading)
