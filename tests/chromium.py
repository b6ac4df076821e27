"""A headless Chromium for tests of pages, drawn without a GPU."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from selenium import webdriver
from selenium.webdriver.support.ui import WebDriverWait

SIZE = (900, 560)
FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu-sandbox", "--use-gl=angle", "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--hide-scrollbars",
)  # fmt: skip


@contextmanager
def chromium(profile: Path) -> Iterator[webdriver.Chrome]:
    """A browser with a profile of its own; skips the test where none is installed."""
    program, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not program or not driver:
        pytest.skip("Chromium is not installed: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = program
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    try:
        size = dict(zip(("width", "height"), SIZE, strict=True))
        browser.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride", {**size, "deviceScaleFactor": 1, "mobile": False}
        )
        yield browser
    finally:
        browser.quit()


def wait(browser: webdriver.Chrome, script: str, seconds: float = 30.0) -> Any:
    """What `script` returns as soon as it is true."""
    return WebDriverWait(browser, seconds, 0.05).until(lambda _: browser.execute_script(f"return {script}"))


def settled(browser: webdriver.Chrome, script: str) -> None:
    """Run `script`, and wait until two more pictures were drawn."""
    browser.execute_async_script(
        f"const done = arguments[0]; {script}; let left = 3;"
        "const step = () => left-- ? requestAnimationFrame(step) : done(); step()"
    )


def picture(browser: webdriver.Chrome) -> np.ndarray:
    """What the page shows, (h, w, 3) uint8."""
    return np.asarray(Image.open(BytesIO(browser.get_screenshot_as_png())).convert("RGB"))


def errors(browser: webdriver.Chrome) -> list[str]:
    """What the page has complained of since this was last asked."""
    return [entry["message"] for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]


Show = Callable[..., webdriver.Chrome]
