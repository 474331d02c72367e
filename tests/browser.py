"""Pages in a headless Chromium, where there is one with its driver (Debian: chromium, chromium-driver)."""

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

# Width in pixels and colour scheme.
SCREENS = [(1280, "light"), (390, "dark")]
_READY = "return [...document.querySelectorAll('figure.slices')].every(figure => figure.dataset.ready)"


@contextmanager
def chromium() -> Iterator[Any]:
    """The driver of a browser; skips where there is none."""
    browser, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not browser or not driver:
        pytest.skip("no Chromium with chromedriver on this machine (Debian: apt-get install chromium chromium-driver)")
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = browser
    # Root has no sandbox, and containers little shared memory.
    for switch in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--hide-scrollbars"):
        options.add_argument(switch)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    made = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    try:
        yield made
    finally:
        made.quit()


def open_page(browser: Any, page: Path, *, width: int, scheme: str) -> None:
    """Shows a page of this machine, and waits until its slices are drawn."""
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    feature = {"name": "prefers-color-scheme", "value": scheme}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
    browser.get(page.absolute().as_uri())
    end = time.monotonic() + 30
    while not browser.execute_script(_READY):
        assert time.monotonic() < end, browser.get_log("browser")
        time.sleep(0.02)


def check_page(browser: Any, page: Path) -> None:
    """Opened at both widths and in both schemes: nothing beyond the right edge, no complaint, nothing fetched."""
    for width, scheme in SCREENS:
        open_page(browser, page, width=width, scheme=scheme)
        needed, shown = browser.execute_script("return [document.documentElement.scrollWidth, window.innerWidth]")
        assert needed <= shown, f"{page.name} is {needed} pixels wide on a screen of {shown}"
        assert not browser.get_log("browser")
    requests = [entry["message"] for entry in browser.get_log("performance") if "requestWillBeSent" in entry["message"]]
    assert not [text for text in requests if '"url":"http' in text]
