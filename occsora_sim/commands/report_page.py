"""The report of an evaluation as one HTML file to send: figures, what was run, and pictures of the worst episodes.

The page is built as a tree and never from text, so whatever a name holds is shown as it is. Its policy allows pictures
that stand in it and its own style, and nothing else: no scripts, no network.
"""

from __future__ import annotations

import base64
import hashlib
import io
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree.ElementTree import Element, tostring

import numpy as np

from occsora_sim.atomic_file import atomic_path
from occsora_sim.recipe import mark_of, option_name

if TYPE_CHECKING:
    from occsora_sim.agents.episode import Episode
    from occsora_sim.rendering.rollout import Rollout

SHOWN = 6
"""Episodes that a report shows unless told otherwise."""

MOST = 24
"""Episodes that a report shows at most: it stays small enough to be sent."""

KINDS = {
    "collision": "Collision",
    "off_road": "Off the road",
    "slow": "Slow: less than half as far as the reference",
    "ended": "Otherwise",
}
"""Kinds of failure, in the order of the page."""

MEANINGS = {
    "score": "all of the terms are 1",
    "nc": "no collision at fault",
    "dac": "all of the car on the road",
    "ddc": "along the route's direction",
    "tlc": "lights (not judged)",
    "ttc": "never about to hit anybody",
    "ep": "as far as a reference that drives freely",
    "comfort": "within limits of acceleration, jerk and yaw",
    "lk": "keeps to the route's lane",
    "ec": "no jump between plans",
}
"""What 1 means of each term."""

PICTURES = 5
"""Of each episode."""

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #22272e; background: #f7f8fa; max-width: 1080px;
  margin: 2em auto; padding: 0 1em }
h1 { font-size: 1.6em; margin: 0 } h2 { font-size: 1.2em; margin: 2em 0 .5em }
h3 { font-size: 1em; margin: 1.5em 0 .5em }
table { border-collapse: collapse; font-variant-numeric: tabular-nums }
th, td { text-align: left; padding: .25em 1.2em .25em 0; border-bottom: 1px solid #d6dbe1; vertical-align: middle }
th { color: #6e7680; font-weight: 600 }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .2em 1.2em; margin: 0 }
dt { color: #6e7680 } dd { margin: 0; overflow-wrap: anywhere }
code { font: 13px/1.5 ui-monospace, monospace; background: #e8ecf0; border-radius: 4px; padding: .15em .4em;
  overflow-wrap: anywhere; user-select: all }
article { background: #fff; border: 1px solid #d6dbe1; border-radius: 8px; padding: .8em 1em; margin: .8em 0;
  break-inside: avoid }
article p { margin: 0 0 .5em } .quiet { color: #6e7680 }
.strip { display: grid; grid-template-columns: repeat(5, 1fr); gap: .5em; margin: .5em 0 }
figure { margin: 0 } figure img { width: 100%; display: block; border-radius: 4px }
figcaption { color: #6e7680; font-size: 13px; text-align: center } .scatter { max-width: 720px }
svg { width: 160px; height: 14px; display: block }
.track { fill: #e3e7ec } .bar { fill: #a0bee4 } .dot { fill: #2670d6 }
summary { cursor: pointer; margin: 1em 0 .5em }
"""


@dataclass(frozen=True, kw_only=True)
class Case:
    """An episode that is shown.

    Attributes:
        kind: of KINDS.
        title: which episode it is.
        figures: how it went, in words.
        pictures: PNG files, each with what stands below it.
        rollout: the file to look at.

    """

    kind: str
    title: str
    figures: str
    pictures: tuple[tuple[bytes, str], ...]
    rollout: Path


def kind_of(episode: Episode) -> str:
    """What went wrong, of KINDS: the first that applies."""
    if episode.ended == "collision" or episode.summary["nc"] < 1:
        return "collision"
    if episode.ended == "off_road" or episode.summary["dac"] < 1:
        return "off_road"
    return "slow" if episode.summary["ep"] < 0.5 else "ended"


def case_of(episode: Episode, title: str, figures: str, rollout: Rollout, path: Path) -> Case:
    """An episode as the report shows it: before a failure its last seconds, else all of it.

    Args:
        episode: as it counted.
        title: which one it is.
        figures: what to say of it.
        rollout: the same episode, recorded when it was driven once more.
        path: where that is kept.

    """
    from occsora_sim.grid import FRAME_SECONDS
    from occsora_sim.rendering.strip import picture_strip

    kind, last = kind_of(episode), rollout.frames - 1
    seconds = 4.0 if kind in ("collision", "off_road") else rollout.seconds
    first = max(0.0, last - seconds / FRAME_SECONDS)
    frames = np.unique(np.linspace(first, last, PICTURES).round().astype(int)).tolist()
    steps = np.linalg.norm(np.diff(rollout.ego_pose[:, :2], axis=0), axis=1)
    speeds = [*(steps / FRAME_SECONDS), *(steps[-1:] / FRAME_SECONDS), 0.0]
    words = [f"{frame * FRAME_SECONDS:.1f} s, {speeds[frame]:.1f} m/s" for frame in frames]
    if rollout.header.get("ended") != episode.ended:
        figures += f"; when driven again for the pictures it ended by {rollout.header.get('ended')}"
    pictures = zip(map(png, picture_strip(rollout, frames)), words, strict=True)
    return Case(kind=kind, title=title, figures=figures, pictures=tuple(pictures), rollout=path)


def what_was_run(command: str, options: Any, agents: Sequence[str]) -> dict[str, str]:
    """What somebody needs in order to run it again.

    Args:
        command: as it was given.
        options: of `evaluate agent` or `evaluate transfer`, with a suite's values put in.
        agents: who drove, as the command names them.

    """
    from occsora_sim import __version__
    from occsora_sim.worlds.diffusion import default_weights

    world = getattr(options, "world", None) or f"diffusion and {options.against}"
    files = [Path(name.split(":")[0]) for name in agents]
    about = {
        "command": command,
        "world": world,
        "weights": mark_of(options.weights or default_weights()) if "diffusion" in world else "",
        "agents' files": ", ".join(mark_of(path) for path in files if path.is_file()),
        "scenes": options.scenes or "shipped",
        "episodes": f"{options.episodes} of {options.seconds:g} s",
        "seeds": f"{options.seed} to {options.seed + options.episodes - 1}",
        "program": f"occsora-sim {__version__}",
        "date": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
    }
    return {name: value for name, value in about.items() if value}


def command_line(verb: str, options: Any) -> str:
    """The command that gives these options, without those that are as by default."""
    words = ["occsora-sim", *verb.split()]
    for field in fields(options):
        value = getattr(options, field.name)
        if value != field.default:
            words.append(option_name(field.name))
            words += map(str, value) if isinstance(value, tuple) else [] if value is True else [str(value)]
    return shlex.join(words)


def write_report(
    path: Path,
    title: str,
    about: Mapping[str, str],
    figures: Sequence[Element],
    cases: Sequence[Case],
    cases_title: str,
) -> None:
    """Write the page, whole or not at all.

    Args:
        path: of the .html.
        title: its headline.
        about: what was run, by name.
        figures: parts that hold the figures, as `table` and `picture` make them.
        cases: episodes to show; they are sorted by kind, and stay in their order within one.
        cases_title: what they are.

    Raises:
        ConfigurationError: the file cannot be written.

    """
    shown = []
    for kind, words in KINDS.items():
        alike = [case for case in cases if case.kind == kind]
        shown += [node("h3", f"{words} ({len(alike)})"), *map(_article, alike)] if alike else []
    digest = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    )
    facts = [
        node(*entry)
        for name, value in about.items()
        for entry in (("dt", name), ("dd", node("code", value) if name == "command" else value))
    ]
    head = node(
        "head",
        node("meta", charset="utf-8"),
        node("meta", **{"http-equiv": "Content-Security-Policy", "content": policy}),
        node("meta", name="viewport", content="width=device-width"),
        node("title", title),
        node("style", STYLE),
    )
    body = node("body", node("h1", title), node("h2", "Figures"), *figures)
    body.extend(
        [
            node("h2", cases_title),
            *(shown or [node("p", "None.")]),
            node("h2", "What was run"),
            node("dl", *facts),
        ]
    )
    page = tostring(node("html", head, body, lang="en"), encoding="unicode", method="html")
    with atomic_path(path) as temporary:
        temporary.write_text(f"<!doctype html>\n{page}\n", encoding="utf-8", errors="xmlcharrefreplace")


def node(tag: str, *content: Element | str, **attributes: str) -> Element:
    """An element of the page that holds a text or others; `css` stands for its class."""
    if "css" in attributes:
        attributes["class"] = attributes.pop("css")
    made = Element(tag, attributes)
    for part in content:
        if isinstance(part, str):
            made.text = part
        else:
            made.append(part)
    return made


def table(columns: Sequence[str], rows: Sequence[Sequence[Element | str]]) -> Element:
    """A table of texts or elements under the names of its columns."""
    lines = [node("tr", *(node("td", cell) for cell in row)) for row in rows]
    return node("table", node("tr", *(node("th", name) for name in columns)), *lines)


def picture(data: bytes, below: str, css: str = "") -> Element:
    """A PNG file within the page, with a line below."""
    source = f"data:image/png;base64,{base64.b64encode(data).decode()}"
    return node("figure", node("img", src=source, alt=below), node("figcaption", below), css=css)


def interval_bar(value: float, low: float, high: float) -> Element:
    """A value of [0, 1] and its interval as a small drawing."""
    rects = ((0.0, 100.0, "track"), (100 * low, 100 * (high - low), "bar"), (100 * value - 1, 2.0, "dot"))
    shapes = [
        node("rect", x=f"{x:.1f}", y="0", width=f"{width:.1f}", height="10", css=css)
        for x, width, css in rects
    ]
    return node("svg", *shapes, viewBox="-1 0 102 10", preserveAspectRatio="none")


def png(pixels: np.ndarray) -> bytes:
    """A picture (h, w, 3) uint8 as a PNG file of few colours, small enough for a page of many."""
    from PIL import Image

    out = io.BytesIO()
    Image.fromarray(pixels).quantize(dither=Image.Dither.NONE).save(out, format="PNG", optimize=True)
    return out.getvalue()


def _article(case: Case) -> Element:
    """An episode: which, how it went, its pictures, and how to look at it."""
    strip = [picture(data, words) for data, words in case.pictures]
    return node(
        "article",
        node("p", node("b", case.title)),
        node("p", case.figures, css="quiet"),
        node("div", *strip, css="strip"),
        node("code", shlex.join(("occsora-sim", "view", str(case.rollout)))),
    )
