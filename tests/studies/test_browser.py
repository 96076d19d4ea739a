"""The MLflow UI of a study in a real, headless Chromium: saved views and the note."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from studies import report
from studies.harness.report.judge.findings import judge_study
from studies.harness.report.page.note import write_note
from studies.harness.report.results import Results, read_results
from studies.harness.store.study import load_study
from studies.harness.store.winner import CONFIRMED
from studies.harness.tracking.connection.connect import connect, default_tracking_uri
from studies.harness.tracking.connection.find import find_runs
from studies.harness.tracking.runs import NOTE
from studies.harness.tracking.server import serve
from studies.harness.tracking.views import CHARTS, TRIALS, experiment_tags, view_link
from tests.conftest import chromium, resize

pytestmark = pytest.mark.browser
WAIT = 60.0  # seconds for a page of the MLflow UI, on a busy machine


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Any]:
    with chromium(tmp_path / "chromium") as browser:
        yield browser


def wait_for(browser: Any, script: str, *arguments: Any) -> Any:
    """Wait until a script returns a value that is not empty; return the value."""
    deadline = time.monotonic() + WAIT
    while not (found := browser.execute_script(f"return {script}", *arguments)):
        assert time.monotonic() < deadline, (
            f"{script} stayed empty; the page says: {page_text(browser)[:500]}"
        )
        time.sleep(0.2)
    return found


def page_text(browser: Any) -> str:
    return str(browser.execute_script("return document.body.innerText"))


@pytest.fixture
def study(launch: Callable[..., int]) -> Results:
    """A small study in both stores."""
    launch(trials=8, repeats=2)
    return read_results(load_study("small", None))


@pytest.fixture
def server(study: Results) -> Iterator[tuple[str, str]]:
    """The MLflow UI of the study: its address, and the experiment's id."""
    client = connect(None)
    experiment_id = client.get_experiment_by_name("small").experiment_id
    for key, value in experiment_tags(list(study.space), int(time.time() * 1000)).items():
        client.set_experiment_tag(experiment_id, key, value)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with serve(default_tracking_uri(), port):
        yield f"http://127.0.0.1:{port}", experiment_id


@pytest.mark.server
@pytest.mark.slow
def test_links_open_trials_charts_and_note(
    browser: Any, server: tuple[str, str], study: Results, names: Path
) -> None:
    base, experiment_id = server
    resize(browser, 2600, 1300)  # the table draws only visible columns
    _check_trials(browser, view_link(base, experiment_id, TRIALS), study)
    _check_charts(browser, view_link(base, experiment_id, CHARTS), study)
    _check_note(browser, base, experiment_id, study)
    _check_script(base, names)


def _check_trials(browser: Any, link: str, study: Results) -> None:
    browser.get(link)
    names = wait_for(
        browser,
        "(rows => rows.length >= arguments[0] && rows)("
        "[...document.querySelectorAll('a[href*=\"/runs/\"]')]"
        ".map(a => a.innerText.trim()).filter(text => /t\\d\\d\\d$/.test(text)))",
        len(study.trials),
    )
    ranked = [f"{row.dev_loss:.4f} · t{row.trial:03d}" for row in study.measured.itertuples()]
    assert names[: len(ranked)] == ranked
    text = page_text(browser)
    headings = (
        "dev_loss",
        *CONFIRMED,
        "n_params",
        "seconds",
        *study.space,
        "state",
        "reason",
    )
    assert all(heading in text for heading in headings)
    assert "Trials by dev loss" in text and "complete" in text.lower()


def _check_charts(browser: Any, link: str, study: Results) -> None:
    browser.get("about:blank")  # a new fragment alone does not reload the page
    browser.get(link)
    axes = wait_for(
        browser, "[...document.querySelectorAll('.parcoords .dimension')].map(d => d.textContent)"
    )
    shown = ["log10_lr" if name == "lr" else name for name in study.space]
    assert len(axes) == len(shown) + 1 and all(
        any(name in axis for axis in axes) for name in [*shown, "dev_loss"]
    )
    # The canvas of the lines is not empty.
    wait_for(
        browser,
        "[...document.querySelectorAll('.parcoords canvas')].some(c => c.width && "
        "c.getContext('2d').getImageData(0, 0, c.width, c.height).data.some(v => v > 0))",
    )
    titles = wait_for(
        browser,
        "document.querySelectorAll('.js-plotly-plot').length >= 2 && document.body.innerText",
    )
    assert "n_params vs. dev_loss" in titles


def _check_note(browser: Any, base: str, experiment_id: str, study: Results) -> None:
    client = connect(None)
    (parent,) = [run for run in find_runs(client, experiment_id) if "trial" not in run.data.tags]
    client.set_tag(
        parent.info.run_id,
        NOTE,
        write_note(judge_study(study), {"script": "studies/mlp.py"}, experiment_id),
    )
    browser.get(f"{base}/#/experiments/{experiment_id}/runs/{parent.info.run_id}")
    heading = wait_for(
        browser,
        "[...document.querySelectorAll('h2')].map(h => h.innerText).find(t => /^small:/.test(t))",
    )
    winner = study.winner
    assert winner is not None
    assert heading.startswith(f"small: dev loss {winner.loss_text} (trial {winner.number})")
    href = wait_for(
        browser, "document.querySelector('a[href*=\"viewStateShareKey=trials\"]')?.href"
    )
    assert href == view_link(base, experiment_id)


def _check_script(base: str, names: Path) -> None:
    """The report's script finds the model on an MLflow server."""
    assert (
        report.main(report.Args("small", names=names, tracking_uri=base, out=Path("page.html")))
        == 0
    )
    assert '<ul class="words"><li>' in Path("page.html").read_text(encoding="utf-8")
