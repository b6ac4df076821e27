"""`--report`: one page that holds the figures and the worst episodes, and runs nothing that a name brings along."""

import shlex
import weakref
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from small_rollout import small_rollout

from occsora_sim.agents.episode import Episode
from occsora_sim.cli import main
from occsora_sim.commands import evaluate_agent, evaluate_transfer, recording, transfer_report
from occsora_sim.commands.agent_report import write_page
from occsora_sim.commands.parsing import parse
from occsora_sim.commands.report_page import KINDS, case_of, command_line, kind_of, what_was_run
from occsora_sim.rendering.palette import COLOURS, HAZE
from occsora_sim.rendering.rollout import load_rollout
from occsora_sim.rendering.strip import SIDE, picture_strip
from occsora_sim.scenes.file import save_scene

NASTY = "<img src=x onerror=\"alert('&')\">"


class Page(HTMLParser):
    """What a browser would make of a page: its elements, and its text."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.size = path.stat().st_size
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.texts.append(data)

    def attributes(self, tag: str, name: str) -> list[str | None]:
        return [attributes.get(name) for found, attributes in self.elements if found == tag]


def episode(start="s", ended="time", **terms) -> Episode:
    summary = {
        "score": 0.5, "nc": 1.0, "dac": 1.0, "ttc": 1.0, "ep": 0.75, "comfort": 1.0, "progress": 9.0, "seconds": 3.0,
    }  # fmt: skip
    return Episode(start=start, seed=0, summary=summary | terms, reward=0.0, ended=ended)


def test_the_page_holds_the_figures_escapes_names_and_sorts_by_failure(tmp_path):
    episodes = [episode(ended="time", ep=0.2), episode(NASTY, ended="collision", nc=0.0, score=0.0)]
    options = evaluate_agent.Options(agent=NASTY, world="replay", episodes=2)
    figures = evaluate_agent.summarise(options, episodes, 1.0)
    cases = [
        case_of(found, found.start, "how", small_rollout({"ended": found.ended}), Path("a b.npz"))
        for found in episodes
    ]
    about = what_was_run(command_line("evaluate agent", options), options, [NASTY])
    write_page(tmp_path / "a.html", figures, episodes, cases, about)
    page = Page(tmp_path / "a.html")
    low, high = figures["intervals"]["nc"]
    nc = page.texts.index("nc")
    assert page.texts[nc : nc + 3] == ["nc", "0.500", f"{low:.3f} to {high:.3f}"]
    assert NASTY in page.texts and "1 by time, 1 by collision" in " ".join(page.texts)
    assert shlex.join(("occsora-sim", "evaluate", "agent", "--agent", NASTY)) in " ".join(page.texts)
    assert "occsora-sim view 'a b.npz'" in page.texts and "0 to 1" in page.texts
    assert page.texts.index(f"{KINDS['collision']} (1)") < page.texts.index(f"{KINDS['slow']} (1)")
    sources = page.attributes("img", "src")
    assert len(sources) == 2 * 5 and all(
        (source or "").startswith("data:image/png;base64,") for source in sources
    )
    assert page.size < 1_000_000


def test_the_page_fetches_and_runs_nothing(tmp_path):
    write_page(
        tmp_path / "a.html",
        evaluate_agent.summarise(evaluate_agent.Options(), [episode()], 1.0),
        [episode()],
        [],
        {},
    )
    page = Page(tmp_path / "a.html")
    (policy,) = [
        content for content in page.attributes("meta", "content") if content and "default" in content
    ]
    assert (
        policy.startswith("default-src 'none'; img-src data:; style-src 'sha256-") and "script" not in policy
    )
    assert {tag for tag, _ in page.elements}.isdisjoint({"script", "a", "link", "iframe", "form"})
    assert not any(
        name in attributes for _, attributes in page.elements for name in ("style", "onerror", "href")
    )
    assert "None." in page.texts


@pytest.mark.parametrize(
    ("found", "kind"),
    [
        (episode(ended="collision", nc=0.0, dac=0.0), "collision"), (episode(ended="off_road"), "off_road"),
        (episode(dac=0.0, ep=0.1), "off_road"), (episode(ep=0.1), "slow"), (episode(ended="goal"), "ended"),
    ],
)  # fmt: skip
def test_the_first_failure_that_applies_names_the_kind(found, kind):
    assert kind_of(found) == kind


def test_before_a_failure_the_pictures_show_the_last_four_seconds_and_else_all():
    rollout = small_rollout({"ended": "collision"}, frames=13)
    last = case_of(episode(ended="collision"), "", "", rollout, Path("a"))
    assert [words.split(",")[0] for _, words in last.pictures] == [
        "2.0 s",
        "3.0 s",
        "4.0 s",
        "5.0 s",
        "6.0 s",
    ]
    assert {words.split(", ")[1] for _, words in last.pictures} == {"2.0 m/s"} and last.figures == ""
    whole = case_of(episode(), "", "", rollout, Path("a"))
    assert [words.split(",")[0] for _, words in whole.pictures] == [
        "0.0 s",
        "1.5 s",
        "3.0 s",
        "4.5 s",
        "6.0 s",
    ]
    assert "driven again" in whole.figures and "by collision" in whole.figures  # it had ended by time


def test_a_picture_shows_what_is_around_the_ego_forward_up():
    rollout = small_rollout()
    (picture,) = picture_strip(rollout, [0])
    assert picture.shape == (SIDE, SIDE, 3)
    metre = SIDE / 40
    row, column = round((20 + 6 - 4) * metre), round((20 - 2) * metre)  # the car: 4 m ahead, 2 m to the left
    assert np.abs(picture[row, column].astype(int) - COLOURS["car"]).max() <= 2
    assert tuple(picture[0, 0]) == HAZE  # beyond the grid


def test_the_command_that_is_told_gives_the_same_options():
    for verb, options in (
        (
            "evaluate agent",
            evaluate_agent.Options(agent="a b.py:C", trust=True, suite="test", report=Path("r.html")),
        ),
        (
            "evaluate transfer",
            evaluate_transfer.Options(agents=("idm", "a'b.py:C"), seconds=3.0, against="replay"),
        ),
    ):
        program, *words = shlex.split(command_line(verb, options))
        assert program == "occsora-sim" and " ".join(words[:2]) == verb
        assert parse(type(options), verb, "", words[2:]) == options


def test_evaluate_agent_shows_the_worst_and_keeps_one_recording_at_a_time(
    straight_road, tmp_path, monkeypatch
):
    folder, out = tmp_path / "scenes", tmp_path / "out"
    folder.mkdir()
    save_scene(straight_road(cars=[(60.0, 0.0, 0.0)], steps=61), folder / "a.safetensors")
    recorded = recording.recorded_again
    alive: list[weakref.ref] = []

    def counted(*arguments):
        assert sum(found() is not None for found in alive) <= 1
        rollout = recorded(*arguments)
        alive.append(weakref.ref(rollout))
        return rollout

    monkeypatch.setattr(recording, "recorded_again", counted)
    options = [
        "--world",
        "replay",
        "--scenes",
        str(folder),
        "--seconds",
        "2",
        "--episodes",
        "3",
        "--worst",
        "3",
    ]
    more = [
        "--agent",
        "constant-velocity",
        "--skip-video",
        "--report",
        str(tmp_path / "a.html"),
        "--out",
        str(out),
    ]
    assert main(["evaluate", "agent", *options, *more]) == 0
    page = Page(tmp_path / "a.html")
    assert len(alive) == 3 and "seeds" in page.texts and "0 to 2" in page.texts
    for rank in (1, 2, 3):
        assert f"occsora-sim view {out / f'worst-{rank}.npz'}" in page.texts
    assert load_rollout(out / "worst-1.npz").seconds == 2.0


def test_a_transfer_page_shows_the_scatter_plot_and_where_the_worlds_differ_most(tmp_path, monkeypatch):
    words = {"diffusion": "generated", "traffic": "live traffic"}
    driven = {
        "a": {
            "diffusion": [episode("even"), episode("odd")],
            "traffic": [episode("even"), episode("odd", score=0.25)],
        },
        "b": {"diffusion": [episode("x", score=0.0)] * 2, "traffic": [episode("x"), episode("x", score=0.0)]},
    }
    options = evaluate_transfer.Options(agents=("a", "b"), episodes=2)
    figures = evaluate_transfer.summarise(options, driven, 1.0, words)
    again = lambda simulation, agent, number, seed, header: small_rollout({**header, "ended": "time"})  # noqa: E731
    monkeypatch.setattr(recording, "recorded_again", again)
    simulations = {name: {"diffusion": None, "traffic": None} for name in driven}
    cases = transfer_report.record_differing(
        driven,
        dict.fromkeys(driven),
        simulations,
        words,
        tmp_path,
        evaluate_transfer.Outputs(),  # type: ignore[arg-type]
    )
    assert [case.title for case in cases] == ["b, generated: episode 0, x", "a, live traffic: episode 1, odd"]
    assert cases[1].figures == "score: generated 0.50, live traffic 0.25"
    assert load_rollout(tmp_path / "differs-2.npz").header["world"] == "traffic"
    transfer_report.write_page(tmp_path / "t.html", figures, cases, {"command": "c"})
    page = Page(tmp_path / "t.html")
    assert page.attributes("figure", "class").count("scatter") == 1
    assert "0.375 (0.25 to 0.50)" in page.texts
    assert any(text.startswith("spearman: ") for text in page.texts)


def test_a_report_that_is_no_html_is_refused_in_one_line(capsys):
    for verb in ("agent", "transfer"):
        assert main(["evaluate", verb, "--report", "a.pdf"]) == 2
        line = capsys.readouterr().err
        assert "--report a.pdf: must end in .html" in line and line.count("\n") == 1
