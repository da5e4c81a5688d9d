"""A real browser for tests of pages: headless Chromium through its driver.

Absent, the tests are skipped by name: Debian's packages chromium and chromium-driver, and selenium.
"""

import json
import shutil
import time
from contextlib import contextmanager

import pytest

WAIT_SECONDS = 30
POLL_SECONDS = 0.05
CHROMIUM = ("chromium", "chromium-browser", "google-chrome")


@contextmanager
def chromium(downloads):
    """Yield a driver that saves what is downloaded to a folder; skip where there is no browser."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    browser = next(filter(None, map(shutil.which, CHROMIUM)), None)
    driver = shutil.which("chromedriver")
    if browser is None or driver is None:
        pytest.skip("Chromium and its driver are not installed (apt: chromium chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for argument in (
        "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
        "--disable-background-networking", "--no-first-run",
    ):  # fmt: skip
        options.add_argument(argument)
    options.add_experimental_option(
        "prefs",
        {"download.default_directory": str(downloads), "download.prompt_for_download": False},
    )
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    opened = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    try:
        opened.execute_cdp_cmd(
            "Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(downloads)}
        )
        yield opened
    finally:
        opened.quit()


def until(found, what):
    """Return the first true answer of a function; fail where none comes."""
    end = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < end:
        if answer := found():
            return answer
        time.sleep(POLL_SECONDS)
    pytest.fail(f"waited {WAIT_SECONDS} s in vain for {what}")


def screen(driver, width, height, *, dark=False):
    """Set the size of the screen, and whether its reader prefers dark colours."""
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})


def find(driver, selector):
    return driver.find_element("css selector", selector)


def texts(driver, selector):
    """Return what the nodes of a selector say, in order."""
    return driver.execute_script(
        "return [...document.querySelectorAll(arguments[0])].map(node => node.textContent.trim())",
        selector,
    )


def console(driver):
    """Return what the page complained of since the last call."""
    return [entry["message"] for entry in driver.get_log("browser")]


def requested(driver):
    """Return every address that was asked for since the last call, data in the page left out."""
    events = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    urls = [
        event["params"]["request"]["url"]
        for event in events
        if event["method"] == "Network.requestWillBeSent"
    ]
    return [url for url in urls if not url.startswith(("data:", "blob:"))]


@pytest.fixture(scope="module")
def downloads(tmp_path_factory):
    """The folder that the browser saves to."""
    return tmp_path_factory.mktemp("downloads")


@pytest.fixture(scope="module")
def browser(downloads):
    with chromium(downloads) as driver:
        yield driver
