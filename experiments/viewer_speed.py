"""How fast the viewer's page plays a rollout in a headless Chromium without a GPU, and what the time goes to.

    python experiments/viewer_speed.py ROLLOUT [ROLLOUT] [--size 1400 800] [--ratio 1] [--picture FILE.png]

Prints the pictures a second, and for each picture the CPU time of the page's own process (JavaScript: frames unpacked
and meshed, three.js) and of Chromium's GPU process, which here is SwiftShader: the software that stands in for a GPU.
On a busy machine the CPU times say more than the pictures a second, though they grow too where threads share a core.
`--ratio` pins the pixels drawn for each pixel of the page; by default the page chooses.
"""

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from chromium import chromium, errors, wait

from occsora_sim.rendering.rollout import load_rollout
from occsora_sim.viewer.encoding import encode_rollout
from occsora_sim.viewer.page import make_page

PROCESSES = {"page": "--type=renderer", "drawing": "--type=gpu-process", "browser": ""}
"""Parts of Chromium, by what their command line holds."""


def main() -> None:
    """Play, and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("rollouts", nargs="+", type=Path)
    parser.add_argument("--size", type=int, nargs=2, default=(1400, 800))
    parser.add_argument("--ratio", type=float)
    parser.add_argument("--picture", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, chromium(Path(folder) / "profile") as browser:
        page = Path(folder) / "page.html"
        page.write_text(make_page([encode_rollout(load_rollout(path)) for path in options.rollouts]))
        size = {"width": options.size[0], "height": options.size[1], "deviceScaleFactor": 1, "mobile": False}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        begin = time.monotonic()
        browser.get(page.as_uri())
        wait(browser, "document.body.dataset.ready === 'yes'", 120)
        print(f"first picture after {time.monotonic() - begin:.1f} s")
        if options.ratio:
            browser.execute_script(f"viewer.sharpness.finest = viewer.sharpness.coarsest = {options.ratio}")
        used, before = cpu_seconds(), drawn(browser)
        begin = time.monotonic()
        browser.execute_script("viewer.play(true)")
        across = width(browser)
        while time.monotonic() < begin + 60 and browser.execute_script("return viewer.clock.playing"):
            across = width(browser)
            time.sleep(0.25)
        took, pictures = time.monotonic() - begin, (drawn(browser) - before) / len(options.rollouts)
        spent = {name: 1000 * (now - used[name]) / pictures for name, now in cpu_seconds().items()}
        print(f"{pictures / took:.1f} pictures a second for {took:.0f} s, at last {across} pixels across")
        print(f"{os.cpu_count()} processors, {os.getloadavg()[0]:.1f} processes wanted them")
        print("CPU time a picture: " + ", ".join(f"{name} {ms:.0f} ms" for name, ms in spent.items()))
        if options.picture:
            options.picture.write_bytes(browser.get_screenshot_as_png())
        print(*errors(browser), sep="\n", end="")


def drawn(browser) -> int:
    """Pictures drawn so far, in all views."""
    return int(browser.execute_script("return viewer.renderer.info.render.frame"))


def width(browser) -> int:
    """Of the canvas [pixels]."""
    return int(browser.execute_script("return document.getElementById('scene').width"))


def cpu_seconds() -> dict[str, float]:
    """CPU time that the parts of Chromium have used until now [s]."""
    used = dict.fromkeys(PROCESSES, 0.0)
    for process in psutil.Process().children(recursive=True):
        words = " ".join(process.cmdline())
        if "chromium" in words:
            part = next(name for name, mark in PROCESSES.items() if mark in words)
            used[part] += sum(process.cpu_times()[:2])
    return used


if __name__ == "__main__":
    main()
