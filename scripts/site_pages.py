"""What MkDocs is told beyond mkdocs.yml: pages that are made of files outside docs/, so that nothing stands twice."""

from __future__ import annotations

import contextlib
import io
import os
import posixpath
import re
import shutil
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parent.parent
SOURCES = ROOT / "out" / "site-sources" / "occsora_sim"
"""The package as it is when installed; the API is read there."""

COPIED = {
    "README.md": "overview.md",
    "assets/weights/README.md": "cards/weights.md",
    "assets/policies/README.md": "cards/policies.md",
    "assets/encoder/README.md": "cards/encoder.md",
    "CHANGELOG.md": "changes.md",
}
"""Files outside docs/ that are pages, and where."""

LIMITS = (
    ("README.md", "Limits", "The simulator"),
    ("assets/weights/README.md", "Limits", "The shipped weights"),
    ("docs/scenes.md", "What to know before trusting them", "Scenes and worlds"),
)
"""The sections that make the page of limits: file, heading, heading there."""

LINK = re.compile(r"\]\((?![a-z]+:|#)([^)\s#]+)(#[^)\s]+)?\)")


def on_startup(command: str, dirty: bool) -> None:
    """Lay the package out as it is when installed: envs and agents are parts of it in other folders. It must be there
    before the API's reader looks for folders to read, which it does while the configuration is made.
    """
    shutil.rmtree(SOURCES, ignore_errors=True)
    for part, place in (("occsora_sim", SOURCES), ("envs", SOURCES / "envs"), ("agents", SOURCES / "agents")):
        shutil.copytree(ROOT / part, place, ignore=shutil.ignore_patterns("__pycache__"))


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made of other files, and of the commands' own help."""
    pages = {
        page: rebased((ROOT / source).read_text(encoding="utf-8"), source, page)
        for source, page in COPIED.items()
    }
    pages["limits.md"] = "# Limits\n\n" + "\n".join(
        f"## {title}\n\n{rebased(section(source, heading), source, 'limits.md')}"
        for source, heading, title in LIMITS
    )
    pages["options.md"] = "# Options of every command\n\n" + "\n".join(helps())
    for page, text in pages.items():
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Let links out of docs/ lead to the pages that are made of those files."""
    source = f"docs/{page.file.src_uri}"
    return markdown if page.file.generated_by else rebased(markdown, source, page.file.src_uri)


def rebased(text: str, source: str, page: str) -> str:
    """`text` of the file `source` with its links as they are on `page`; of links to code the words alone."""

    def moved(link: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(source), link[1]))
        if target in COPIED:
            place = COPIED[target]
        elif target.startswith("docs/"):
            place = target.removeprefix("docs/")
        else:
            return "]()"
        return f"]({posixpath.relpath(place, posixpath.dirname(page) or '.')}{link[2] or ''})"

    return re.sub(r"\[([^]]*)\]\(\)", r"\1", LINK.sub(moved, text))


def section(source: str, heading: str) -> str:
    """What stands below a heading of the second level in a file."""
    text = (ROOT / source).read_text(encoding="utf-8")
    return text.split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0].strip() + "\n"


def helps() -> list[str]:
    """A section for each command, with what its --help prints."""
    from occsora_sim.cli import VERBS, main

    os.environ.update(COLUMNS="100", NO_COLOR="1")
    texts = []
    for verb, (_, what) in VERBS.items():
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            main([*verb.split(), "--help"])
        lines = [
            re.sub("\x1b\\[[0-9;]*m|^[│╭╰][ ─]?|[ ─]*[│╮╯]$", "", line)
            for line in printed.getvalue().splitlines()
        ]
        options = "\n".join(line.rstrip("─ ") for line in lines).split("\n", 3)[3].strip("\n")
        texts.append(f"## {verb}\n\n{what[:1].upper()}{what[1:]}.\n\n```text\n{options}\n```\n")
    return texts
