"""Takes the pictures of the browser's pages in docs/images anew, in a headless Chromium.

    python experiments/viewer_pictures.py [--out docs/images] [--only viewer viewer_pair play scene_editor]

Drives 20 s in the generated world and in live traffic for them; a minute or two on one core.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from chromium import chromium, errors, settled, wait
from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys

SIZE = (1400, 800)


def main() -> None:
    """Take those that are asked for."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, default=Path("docs/images"))
    parser.add_argument("--only", nargs="+", choices=PAGES, default=PAGES)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, chromium(Path(name) / "profile") as browser:
        folder = Path(name)
        size = {"width": SIZE[0], "height": SIZE[1], "deviceScaleFactor": 1, "mobile": False}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        if {"viewer", "viewer_pair"} & set(options.only):
            for world in ("diffusion", "traffic"):
                command("drive", "--world", world, "--skip-video", "--out", str(folder / world)).wait()
        for name in options.only:
            picture = PAGES[name](browser, folder)
            (options.out / f"{name}.png").write_bytes(picture)
            print(name, *errors(browser))


def viewer(browser: webdriver.Chrome, folder: Path) -> bytes:
    """A generated drive."""
    with served(browser, "view", str(folder / "diffusion"), "--no-open"):
        settled(browser, "viewer.seek(4.5)")
        return browser.get_screenshot_as_png()


def pair(browser: webdriver.Chrome, folder: Path) -> bytes:
    """The same start and agent in the generated world and in live traffic."""
    with served(browser, "view", str(folder / "diffusion"), str(folder / "traffic"), "--no-open"):
        settled(browser, "viewer.seek(4.5)")
        return browser.get_screenshot_as_png()


def play(browser: webdriver.Chrome, folder: Path) -> bytes:
    """Somebody drives in live traffic, who keeps to the road by letting the agent steer."""
    with served(browser, "play", "--world", "traffic", "--no-open", "--out", str(folder / "play")):
        ActionChains(browser).send_keys("m").perform()
        wait(browser, "viewer.clock.seconds >= 7", 120)
        ActionChains(browser).send_keys("m").key_down(Keys.ARROW_UP).perform()
        wait(browser, "document.getElementById('driver').textContent === 'you drive'", 60)
        browser.execute_script("viewer.sharpness.coarsest = 1; viewer.sharpen(1)")
        time.sleep(1.5)
        return browser.get_screenshot_as_png()


def scene_editor(browser: webdriver.Chrome, folder: Path) -> bytes:
    """A start in which a placed car cuts in and a pedestrian crosses."""
    with served(browser, "scenes", "edit", "traffic:0", "--start", "3", "--browser", "--no-open"):
        for edit in (
            {"class": "pedestrian", "x": 24, "y": 6, "yaw": -1.57, "path": [[5, 24, -6, -1.57]]},
            {"class": "car", "cut_in": "left", "seconds": 3},
        ):
            browser.execute_async_script(
                "const [edit, done] = arguments; viewer.editor.change((edits) => edits.placed(edit), true).then(done)",
                edit,
            )
        settled(browser, "viewer.paint()")
        return browser.get_screenshot_as_png()


PAGES = {"viewer": viewer, "viewer_pair": pair, "play": play, "scene_editor": scene_editor}


@contextmanager
def served(browser: webdriver.Chrome, *arguments: str) -> Iterator[None]:
    """The page of a command, as long as it is looked at."""
    program = command(*arguments)
    try:
        assert program.stdout is not None
        browser.get(program.stdout.readline().split()[0])
        wait(browser, "document.body.dataset.ready === 'yes'", 120)
        yield
    finally:
        program.terminate()
        program.wait()


def command(*arguments: str) -> subprocess.Popen[str]:
    """`occsora-sim` with these arguments."""
    words = [sys.executable, "-u", "-m", "occsora_sim.cli", *arguments]
    return subprocess.Popen(words, stdout=subprocess.PIPE, text=True)


if __name__ == "__main__":
    main()
