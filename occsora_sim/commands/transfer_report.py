"""What `evaluate transfer` prints and writes: the table, the scatter plot, a row for each episode."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from occsora_sim.agents.episode import Episode

Driven = dict[str, dict[str, "list[Episode]"]]
"""Agent -> world ("diffusion", and "traffic" or "replay") -> its episodes."""

COLUMNS = ("agent", "world", "start", "seed", "ended", "reward")


def print_table(figures: dict[str, Any]) -> None:
    """Every agent's score in both worlds, best in the second first, and the correlations."""
    from rich.console import Console
    from rich.table import Table

    other = figures["against"]
    title = f"score over {figures['episodes']} episodes of {figures['seconds']:g} s, 95 % interval"
    table = Table("agent", *figures["worlds"].values(), title=title)
    for row in sorted(figures["policies"], key=lambda row: -row[other]):
        cells = []
        for where in ("diffusion", other):
            low, high = row["intervals"][where]
            cells.append(f"{row[where]:.3f} ({low:.2f} to {high:.2f})")
        table.add_row(row["agent"], *cells)
    Console(markup=False, emoji=False).print(table)  # names may hold [ and :
    for name in ("spearman", "pearson"):
        value, interval = figures[name], figures["intervals"][name]
        if value is None:
            print(f"{name}: not defined, one of the worlds gives all agents the same score")
        else:
            print(f"{name}: {value:.3f}" + (f" ({interval[0]:.2f} to {interval[1]:.2f})" if interval else ""))


def draw(figures: dict[str, Any], path: Path) -> None:
    """The scatter plot as a PNG file, whole or not at all."""
    from PIL import Image

    from occsora_sim.agents.loader import agent_title
    from occsora_sim.atomic_file import atomic_path
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
    picture = scatter_plot(
        points,
        title=": ".join((f"{len(points)} policies, {figures['episodes']} episodes", ", ".join(found))),
        x_label=f"score, {figures['worlds']['diffusion']}",
        y_label=f"score, {figures['worlds'][other]}",
    )
    with atomic_path(path) as temporary:
        Image.fromarray(picture).save(temporary, format="PNG")


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
