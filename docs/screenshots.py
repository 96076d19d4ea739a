"""The pictures of README: a study's ranked trials and charts in the MLflow UI, and its report, as a browser shows them.

python docs/screenshots.py STUDY writes trials.png, charts.png and report.png beside this file. It needs selenium (the
test extra) and Chromium with its driver (Debian: chromium and chromium-driver).
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

from studies import report
from studies.harness.cli.script import run_script
from studies.harness.report.results import read_results
from studies.harness.store.study import load_study
from studies.harness.tracking.client import connect, default_tracking_uri
from studies.harness.tracking.server import HOST, free_port, serve
from studies.harness.tracking.views import CHARTS, TRIALS, experiment_tags, view_link

HERE = Path(__file__).parent
SETTLE = 8.0  # seconds that the MLflow UI takes to draw its charts
FLAGS = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"


@dataclass
class Args:
    """Write the pictures of README from a study in mlruns/."""

    study: str = "mlp"
    """Name of the study."""
    width: int = 1400
    """Width of the pictures in pixels."""


def main(args: Args) -> int:
    """Take the pictures. Returns the exit code."""
    page = Path("mlruns", "reports", f"{args.study}.html")
    report.main(report.Args(args.study, out=page))
    experiment_id, port = _give_views(args.study), free_port(None)
    with _browser(args.width) as browser, serve(default_tracking_uri(), port):
        base = f"http://{HOST}:{port}"
        for view in (TRIALS, CHARTS):
            _open(browser, view_link(base, experiment_id, view))
            _save(browser, HERE / f"{view}.png")
        browser.get(page.absolute().as_uri())
        _save(browser, HERE / "report.png")
    return 0


def _give_views(study: str) -> str:
    """Give the experiment its saved views, whichever version made the study; returns its id."""
    client, results = connect(None), read_results(load_study(study, None))
    experiment = client.get_experiment_by_name(study)
    if experiment is None:
        raise ValueError(f"MLflow holds no experiment {study!r}; run the study first.")
    for key, value in experiment_tags(list(results.space), int(time.time() * 1000)).items():
        client.set_experiment_tag(experiment.experiment_id, key, value)
    return str(experiment.experiment_id)


@contextmanager
def _browser(width: int) -> Iterator[Any]:
    from selenium import webdriver

    binary = next(
        filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
    )
    driver = shutil.which("chromedriver")
    if binary is None or driver is None:
        raise ValueError(
            "no Chromium with its driver is installed here (Debian: chromium and chromium-driver)."
        )
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    with tempfile.TemporaryDirectory() as profile:
        for flag in (*FLAGS.split(), f"--user-data-dir={profile}", f"--window-size={width},1000"):
            options.add_argument(flag)
        browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
        size = {"width": width, "height": 1000, "deviceScaleFactor": 1, "mobile": False}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        try:
            yield browser
        finally:
            browser.quit()


def _open(browser: Any, link: str) -> None:
    """Open a page of the MLflow UI without the panels that a fresh browser shows beside it."""
    for _ in range(2):  # the first visit opens an assistant, which the second leaves closed
        browser.get("about:blank")  # a new fragment alone would not load the page anew
        browser.get(link)
        time.sleep(SETTLE)
        browser.execute_script(
            "document.querySelectorAll('button[aria-label=\"Close\"]').forEach(b => b.click())"
        )


def _save(browser: Any, path: Path) -> None:
    browser.save_screenshot(str(path))
    print(path)


if __name__ == "__main__":
    run_script(Args, main)
