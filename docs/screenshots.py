"""Take the screenshot of README: the trials of a study in the MLflow UI.

python docs/screenshots.py STUDY writes trials.png into docs/. It needs selenium (the test extra),
and Chromium with its driver (Debian: chromium and chromium-driver).
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from makemore.errors import UserError
from studies.harness.cli.script import run_script
from studies.harness.report.results import read_results
from studies.harness.store.study import load_study
from studies.harness.tracking.connection.connect import connect, default_tracking_uri
from studies.harness.tracking.server import HOST, free_port, serve
from studies.harness.tracking.views import TRIALS, experiment_tags, view_link

HERE = Path(__file__).parent
HEIGHT = 1000  # of the screenshots, in pixels
SETTLE = 8.0  # seconds until the MLflow UI has drawn its charts
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run "
    "--disable-background-networking"
).split()
CLOSE_PANELS = "document.querySelectorAll('button[aria-label=\"Close\"]').forEach(b => b.click())"


@dataclass
class Args:
    """Take the screenshot of README from a study in mlruns/."""

    study: str = "mlp"
    """Name of the study."""
    width: int = 1400
    """Width of the screenshots in pixels."""


def main(args: Args) -> int:
    """Take the screenshot. Return the exit code."""
    experiment_id = _add_views(args.study)
    port = free_port(None)
    with _browser(args.width) as browser, serve(default_tracking_uri(), port):
        base = f"http://{HOST}:{port}"
        _open(browser, view_link(base, experiment_id, TRIALS))
        _save(browser, HERE / f"{TRIALS}.png")
    return 0


def _add_views(study: str) -> str:
    """Add this version's saved views to the study's experiment; return the experiment's id."""
    client = connect(None)
    results = read_results(load_study(study, None))
    experiment = client.get_experiment_by_name(study)
    if experiment is None:
        raise UserError(f"No experiment {study!r} in MLflow; run the study first.")
    now = int(time.time() * 1000)
    for key, value in experiment_tags(list(results.space), now).items():
        client.set_experiment_tag(experiment.experiment_id, key, value)
    return str(experiment.experiment_id)


@contextmanager
def _browser(width: int) -> Iterator[Any]:
    from selenium import webdriver

    binary = next(filter(None, map(shutil.which, BROWSERS)), None)
    driver = shutil.which("chromedriver")
    if binary is None or driver is None:
        raise UserError("Chromium or its driver is missing: install chromium and chromium-driver.")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    with tempfile.TemporaryDirectory() as profile:
        for flag in (*FLAGS, f"--user-data-dir={profile}", f"--window-size={width},{HEIGHT}"):
            options.add_argument(flag)
        browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
        size = {"width": width, "height": HEIGHT, "deviceScaleFactor": 1, "mobile": False}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        try:
            yield browser
        finally:
            browser.quit()


def _open(browser: Any, link: str) -> None:
    """Open a page of the MLflow UI, and close the panels that a new browser shows."""
    # The first visit opens an assistant; the second one does not.
    for _ in range(2):
        browser.get("about:blank")  # a new fragment alone does not reload the page
        browser.get(link)
        time.sleep(SETTLE)
        browser.execute_script(CLOSE_PANELS)


def _save(browser: Any, path: Path) -> None:
    """Save the screen as a PNG, and print its path."""
    browser.save_screenshot(str(path))
    print(path)


if __name__ == "__main__":
    run_script(Args, main)
