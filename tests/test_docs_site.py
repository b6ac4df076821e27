"""The pages that `make docs` builds: no warning, no dead link, nothing from a network, no error in a browser."""

import functools
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest

pytest.importorskip("mkdocs", reason="the extra `docs`")
pytest.importorskip("material", reason="the extra `docs`")
pytest.importorskip("mkdocstrings", reason="the extra `docs`")

ROOT = Path(__file__).parent.parent

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The pages, built with every warning an error and without a network."""
    out = tmp_path_factory.mktemp("site")
    dead = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(out)],
        cwd=ROOT, capture_output=True, text=True, env={**os.environ, **dead, "NO_MKDOCS_2_WARNING": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return out


class Reader(HTMLParser):
    """What a page refers to, and the places in it that can be referred to."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.anchors: set[str] = set()

    def handle_starttag(self, tag, attrs):
        named = dict(attrs)
        self.anchors |= {named[key] for key in ("id", "name") if named.get(key)}
        if tag == "a" and named.get("href"):
            self.links.append(named["href"])
        elif named.get("src") or (tag == "link" and named.get("href")):
            self.loaded.append(named.get("src") or named["href"])


@functools.cache
def read(path: Path) -> Reader:
    reader = Reader()
    reader.feed(path.read_text(encoding="utf-8"))
    return reader


def is_elsewhere(link: str) -> bool:
    return bool(re.match(r"[a-z]+:|//", link))


def pages(site: Path) -> list[Path]:
    return sorted(path for path in site.rglob("*.html") if path.name != "404.html")


def test_every_user_finds_a_page(site):
    names = {str(path.relative_to(site).with_suffix("")) for path in pages(site)}
    assert names >= {
        "index", "overview", "environment", "train-planner", "evaluate-planner", "own-logs", "training", "how-it-works",
        "architecture", "occsora", "glossary", "faq", "results", "cli", "options", "limits", "pictures", "lab_book",
        "changes", "cards/weights", "api/environment", "api/agents", "api/worlds", "api/scenes", "api/models",
    }  # fmt: skip


def test_every_link_and_anchor_leads_somewhere(site):
    dead = []
    for page in pages(site):
        for link in read(page).links:
            if is_elsewhere(link):
                continue
            place, _, anchor = link.partition("#")
            target = (page.parent / unquote(place)).resolve() if place else page
            if not target.is_file() or (anchor and unquote(anchor) not in read(target).anchors):
                dead.append(f"{page.relative_to(site)}: {link}")
    assert not dead


def test_pages_load_nothing_from_elsewhere_and_all_that_they_load_is_there(site):
    for page in pages(site):
        for loaded in read(page).loaded:
            assert not is_elsewhere(loaded), f"{page.relative_to(site)} fetches {loaded}"
            assert (page.parent / unquote(loaded)).is_file(), f"{page.relative_to(site)}: no {loaded}"
    for style in site.rglob("*.css"):
        assert not re.search(r"(?:@import|url\()\s*[\"']?(?:https?:)?//", style.read_text()), style


def test_limits_are_those_of_readme_and_card(site):
    page = " ".join((site / "limits.html").read_text().split())
    assert "Limits" in page and page.count("<h2") == 3
    for source in ("README.md", "assets/weights/README.md"):
        limits = (ROOT / source).read_text().split("## Limits\n")[1].split("\n#")[0]
        starts = re.findall(r"^- ([^`*\[\n]{20,60})", limits, re.M)
        assert len(starts) >= 3 and [start for start in starts if start not in page] == [], source


def test_options_lists_every_option_of_every_command(site):
    from test_documents import all_options

    from occsora_sim.cli import VERBS

    text = (site / "options.html").read_text()
    assert not [verb for verb in VERBS if f">{verb}<" not in text]
    shown = set(re.findall(r"--[a-z][\w-]*", text))
    hidden = {name for name in all_options() - shown if name.replace("--", "--no-", 1) not in shown}
    hidden = {name for name in hidden if not name.startswith("--no-")}
    assert hidden == {"--loop", "--learner", "--path", "--rollouts", "--sources"}, (
        "groups, and arguments without a name"
    )


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium")
def test_a_browser_opens_every_page_as_a_file_without_an_error(site, tmp_path):
    webdriver = pytest.importorskip("selenium.webdriver")
    wait = pytest.importorskip("selenium.webdriver.support.wait").WebDriverWait
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = shutil.which("chromedriver")
    if driver is None:
        pytest.skip("needs chromedriver: apt-get install chromium-driver")
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    try:
        errors = []
        for page in pages(site):
            browser.get(page.as_uri())
            errors += [(page.name, entry["message"]) for entry in browser.get_log("browser")]
            assert browser.title
        assert not errors
        browser.get((site / "index.html").as_uri())
        field = browser.find_element("css selector", "input.md-search__input")
        browser.execute_script("arguments[0].focus()", field)
        field.send_keys("jaywalker")
        found = "return document.querySelectorAll('.md-search-result__link').length"
        wait(browser, 20).until(lambda _: browser.execute_script(found) > 0)
    finally:
        browser.quit()
