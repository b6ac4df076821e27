"""`evaluate transfer`: the same episodes in two worlds, their correlation, the picture of it."""

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from occsora_sim.agents.episode import Episode
from occsora_sim.agents.ladder import LADDER
from occsora_sim.cli import main
from occsora_sim.commands import evaluate_transfer
from occsora_sim.commands.evaluate_transfer import Options, open_worlds, summarise
from occsora_sim.commands.transfer_report import draw, print_table
from occsora_sim.envs.config import DriveConfig
from occsora_sim.envs.simulation import DriveSimulation
from occsora_sim.errors import ConfigurationError
from occsora_sim.rendering.scatter import DOT, Point, scatter_plot
from occsora_sim.scenes.file import save_scene
from occsora_sim.scenes.recorded import recorded_words
from occsora_sim.scenes.start import make_start
from occsora_sim.worlds.diffusion import default_weights
from occsora_sim.worlds.replay import ReplayWorld

WORDS = {"diffusion": "generated", "traffic": "live traffic"}
FOUR = ("full-throttle", "standstill", "crawling-follower", "route-follower")


@pytest.fixture
def worlds(straight_road, monkeypatch):
    """Two fast worlds in place of the real ones: a road with a slow leader, and one with a slower leader."""

    def simulation(options, leader):
        scene = straight_road(cars=[(60.0, 0.0, leader)], steps=61)
        starts = [make_start(scene, 0, step) for step in (3, 5)]
        config = DriveConfig(world="replay", seconds=options.seconds)
        return DriveSimulation(config, ReplayWorld(), starts)

    def opened(options):
        return {"diffusion": simulation(options, 3.0), options.against: simulation(options, 2.0)}

    monkeypatch.setattr(evaluate_transfer, "open_worlds", opened)


def test_transfer_writes_the_scores_their_correlation_and_a_picture(worlds, tmp_path, capsys):
    report, table = tmp_path / "transfer.json", tmp_path / "episodes.csv"
    options = ["--seconds", "8", "--episodes", "2", "--agents", *FOUR]
    assert main(["evaluate", "transfer", *options, "--json", str(report), "--csv", str(table)]) == 0
    figures = json.loads(report.read_text())
    assert {"policies", "spearman", "pearson"} <= figures.keys()
    assert [row["agent"] for row in figures["policies"]] == list(FOUR)
    by_agent = {row["agent"]: row for row in figures["policies"]}
    assert by_agent["full-throttle"]["diffusion"] == by_agent["full-throttle"]["traffic"] == 0
    assert by_agent["route-follower"]["traffic"] > by_agent["standstill"]["traffic"] > 0
    assert figures["spearman"] == pytest.approx(1.0), "four clearly different skills on nearly the same road"
    assert 0.9 < figures["pearson"] <= 1
    for row in figures["policies"]:
        for where in ("diffusion", "traffic"):
            low, high = row["intervals"][where]
            assert low <= row[where] <= high and row["terms"][where]["score"] == row[where]
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 4 * 2 * 2
    paired: dict = {(row["agent"], row["world"]): [] for row in rows}
    for row in rows:
        paired[row["agent"], row["world"]].append((row["start"], row["seed"]))
    assert len(set(map(tuple, paired.values()))) == 1, "every agent drives the same episodes in both worlds"
    with Image.open(tmp_path / "transfer.png") as picture:
        assert picture.format == "PNG"
    said = capsys.readouterr().out
    assert "spearman: 1.000" in said and "transfer.png" in said.replace("\n", "")


def test_against_a_recording_everything_says_recorded_and_nothing_says_traffic(worlds, tmp_path, capsys):
    report, table = tmp_path / "transfer.json", tmp_path / "episodes.csv"
    options = ["--against", "replay", "--seconds", "2", "--episodes", "1", "--agents", "standstill", "idm"]
    assert main(["evaluate", "transfer", *options, "--json", str(report), "--csv", str(table)]) == 0
    figures = json.loads(report.read_text())
    for row in figures["policies"]:
        assert {"agent", "diffusion", "replay"} <= row.keys() and "traffic" not in row
        assert set(row["intervals"]) == set(row["terms"]) == {"diffusion", "replay"}
    assert figures["worlds"] == {"diffusion": "generated", "replay": "recorded street"}
    captured = capsys.readouterr()
    assert "recorded street" in captured.out and "generated" in captured.out
    for said in (captured.out, captured.err, table.read_text(), report.read_text()):
        assert "traffic" not in said


def test_a_recording_is_called_by_what_was_recorded(straight_road):
    street = straight_road()
    town = replace(street, attributes={"source": "traffic"})
    assert recorded_words([street, street]) == "recorded street"
    assert recorded_words([town]) == "recorded town"
    assert recorded_words([street, town]) == "recorded town and recorded street"


def test_names_with_brackets_and_colons_are_shown_as_they_are(capsys):
    names = ("own[/x].py:car:f", "[red]a")
    driven = {name: {"diffusion": episodes([0.5]), "traffic": episodes([0.5])} for name in names}
    print_table(summarise(Options(agents=names, episodes=1), driven, 1.0, WORDS))
    said = capsys.readouterr().out
    assert all(name in said for name in names)


def episodes(scores):
    """Episodes of these scores, otherwise alike."""
    rest = dict.fromkeys(("nc", "dac", "ttc", "ep", "comfort", "progress", "seconds"), 1.0)
    return [
        Episode(start="s", seed=seed, summary={"score": score, **rest}, reward=0.0, ended="time")
        for seed, score in enumerate(scores)
    ]


def test_correlations_are_those_of_the_means():
    means = {"a": (0.0, 0.1), "b": (0.5, 0.4), "c": (0.3, 0.9)}
    driven = {
        name: {"diffusion": episodes([x, x]), "traffic": episodes([y, y])} for name, (x, y) in means.items()
    }
    figures = summarise(Options(agents=("a", "b", "c"), episodes=2), driven, 1.0, WORDS)
    assert figures["spearman"] == pytest.approx(0.5)
    x, y = np.array(list(means.values())).T
    assert figures["pearson"] == pytest.approx(np.corrcoef(x, y)[0, 1])


def test_without_any_difference_there_is_no_correlation_and_the_file_says_null(tmp_path, capsys):
    same = {
        name: {"diffusion": episodes([0.5]), "traffic": episodes([y])} for name, y in (("a", 0.1), ("b", 0.2))
    }
    figures = summarise(Options(agents=("a", "b"), episodes=1), same, 1.0, WORDS)
    assert figures["spearman"] is None and figures["intervals"]["pearson"] is None
    print_table(figures)
    assert "spearman: not defined" in capsys.readouterr().out
    draw(figures, tmp_path / "plot.png")
    assert '"spearman": null' in json.dumps(figures, allow_nan=False)


def test_bad_options_end_in_one_line(tmp_path, capsys):
    for options, said in (
        (["--agents", "idm"], "two or more"),
        (["--agents", "idm", "idm"], "each once"),
        (["--agents", "idm", "pilot"], "unknown agent 'pilot'"),
        (["--agents", "idm", "gone.safetensors"], "no such weights file"),
        (["--episodes", "0"], "--episodes 0"),
        (["--steps", "0"], "--steps 0"),
        (["--seconds", "nan"], "--seconds nan"),
        (["--plot", "plot.jpg"], "must end in .png"),
    ):
        assert main(["evaluate", "transfer", "--json", str(tmp_path / "t.json"), *options]) == 2
        captured = capsys.readouterr()
        assert captured.err.count("\n") == 1 and said in captured.err
    assert not (tmp_path / "t.json").exists()


def test_by_default_eight_policies_or_more_drive():
    assert Options().names == LADDER and len(Options(also=("learned",)).names) == len(LADDER) + 1


@pytest.mark.slow
@pytest.mark.skipif(not default_weights().exists(), reason="the shipped weights are not in this checkout")
def test_the_generated_world_is_held_against_a_recording(straight_road, tmp_path):
    save_scene(straight_road(), tmp_path / "straight.safetensors")
    opened = open_worlds(Options(against="replay", scenes=str(tmp_path), episodes=1, seconds=2.0, steps=1))
    assert opened["diffusion"].starts == opened["replay"].starts
    assert opened["diffusion"].world.steps == 1 and isinstance(opened["replay"].world, ReplayWorld)
    report = tmp_path / "out" / "transfer.json"
    options = [
        "--against",
        "replay",
        "--scenes",
        str(tmp_path),
        "--episodes",
        "1",
        "--seconds",
        "1",
        "--steps",
        "1",
    ]
    agents = ["--agents", "standstill", "route-follower"]
    assert main(["evaluate", "transfer", *options, *agents, "--json", str(report)]) == 0
    assert len(json.loads(report.read_text())["policies"]) == 2


# --------------------------------------------------------------------------- the picture
def test_every_point_of_the_plot_is_where_its_numbers_say():
    points = [Point(name="low", x=0.25, y=0.5), Point(name="high", x=0.75, y=1.0)]
    plot = scatter_plot(points, title="t", x_label="x", y_label="y")
    blue = (np.abs(plot.astype(int) - DOT).sum(axis=-1) < 12).nonzero()
    left = blue[1] < blue[1].mean()
    middle = [np.array([blue[1][side].mean(), blue[0][side].mean()]) for side in (left, ~left)]
    np.testing.assert_allclose(middle[1] - middle[0], (0.5 * 640, -0.5 * 640), atol=1.0)


def test_names_of_points_in_one_place_do_not_cover_each_other():
    def ink(count):
        points = [Point(name=f"policy {k}", x=0.5, y=0.5) for k in range(count)]
        plot = scatter_plot(points, title="", x_label="", y_label="").astype(int)
        return (plot.sum(axis=-1) < 250).sum()

    one = ink(2) - ink(1)
    assert ink(6) - ink(1) > 4.5 * one * 0.9


def test_a_plot_without_points_or_with_points_beside_it_is_refused():
    for points in ([], [Point(name="a", x=1.2, y=0.0)], [Point(name="a", x=0.0, y=float("nan"))]):
        with pytest.raises(ConfigurationError, match=r"^[^\n]+$"):
            scatter_plot(points, title="", x_label="", y_label="")
