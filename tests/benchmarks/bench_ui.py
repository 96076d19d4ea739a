"""Measures how fast the MLflow UI opens, sorts and draws a study, in a headless Chromium.

It has no peer. For each number of trials, a new study runs with an engine that trains nothing.
Then the MLflow UI opens the two saved views of the study. Each figure is the median of three pages.

    python tests/benchmarks/bench_ui.py [--trials 100 1000 10000]
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from studies.harness.tracking.connection.connect import connect, default_tracking_uri
from studies.harness.tracking.server import HOST, free_port, serve
from studies.harness.tracking.views import CHARTS, TRIALS, view_link
from tests.benchmarks.bench_overhead import measure, train_nothing
from tests.conftest import chromium, resize

PAGES = 3  # pages that each figure is the median of
WITHIN = 300.0  # seconds
POLL = 0.05

# Names of the loaded runs; the table has only those on the screen.
NAMES = """return [...document.querySelectorAll('a[href*="/runs/"]')].map(a => a.innerText.trim())
    .filter(text => / t\\d+$/.test(text))"""
# How many runs are loaded: the text below the table.
LOADED = """return +(document.body.innerText.match(/([\\d,]+) matching run/) || ['', '0'])[1]
    .replace(',', '')"""
CLICK = """const found = [...document.querySelectorAll(arguments[0])]
    .find(e => e.innerText.trim() == arguments[1]); if (found) found.click(); return !!found"""
AXES = "return document.querySelectorAll('.parcoords .dimension').length"


def wait(browser: Any, script: str, accept: Callable[[Any], bool] = bool) -> Any:
    """Wait until the value of a script is accepted; return the value."""
    deadline = time.monotonic() + WITHIN
    while not accept(found := browser.execute_script(script)):
        if time.monotonic() > deadline:
            raise RuntimeError(f"the page does not get there within {WITHIN:g} s: {script}")
        time.sleep(POLL)
    return found


def seconds(task: Callable[[], Any]) -> float:
    """Return how long a task takes."""
    begun = time.monotonic()
    task()
    return time.monotonic() - begun


def visit(browser: Any, base: str, experiment_id: str) -> dict[str, float]:
    """Open both views once; return the seconds of each step, and how many runs were loaded."""

    def open_view(view: str) -> None:
        browser.get("about:blank")  # a new fragment alone does not reload the page
        browser.get(view_link(base, experiment_id, view))

    def show_table() -> None:
        open_view(TRIALS)
        wait(browser, NAMES)

    def load_more() -> None:
        browser.execute_script(CLICK, "button", "Load more")
        wait(browser, LOADED, lambda n: n > loaded)

    def draw_charts() -> None:
        open_view(CHARTS)
        wait(browser, AXES)

    found = {"table": seconds(show_table)}
    loaded = wait(browser, LOADED)
    found |= {"loaded": loaded, "more": seconds(load_more), "charts": seconds(draw_charts)}
    return found


def measure_ui(trials: int, folder: Path) -> str:
    """Make a study of so many trials; return its row of the table."""
    measure(trials, folder)
    experiment_id = connect(None).get_experiment_by_name("bench_ui").experiment_id
    port = free_port(None)
    with chromium(folder / "chromium") as browser, serve(default_tracking_uri(), port):
        resize(browser, 2000, 1300)
        visit(browser, f"http://{HOST}:{port}", experiment_id)  # fills the caches
        pages = [visit(browser, f"http://{HOST}:{port}", experiment_id) for _ in range(PAGES)]
    medians = {key: statistics.median(page[key] for page in pages) for key in pages[0]}
    cells = [f"{trials:,}", f"{medians['loaded']:,.0f}"]
    cells += [f"{medians[key]:.1f}" for key in ("table", "more", "charts")]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Measure a study for each number of trials, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, nargs="+", default=[100, 1000, 10_000])
    trials = parser.parse_args().trials
    train_nothing()
    headings = ["trials", "runs in the table", "s until the table", "s for 100 more runs"]
    headings += ["s until the charts"]
    print(f"| {' | '.join(headings)} |\n{'|---' * len(headings)}|")
    with tempfile.TemporaryDirectory() as folder:
        for n in trials:
            print(measure_ui(n, Path(folder) / str(n)), flush=True)
        os.chdir(Path(__file__).parent)


if __name__ == "__main__":
    main()
