"""The report and the MLflow UI of a study in a real, headless Chromium."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from makemore.data import load_corpus
from studies import report
from studies.harness.report.build import make_report
from studies.harness.report.judge.findings import judge_study
from studies.harness.report.page.note import NOTE, write_note
from studies.harness.report.results import Results, read_results
from studies.harness.store.study import load_study
from studies.harness.tracking.client import connect, default_tracking_uri, find_runs
from studies.harness.tracking.server import serve
from studies.harness.tracking.views import CHARTS, TRIALS, experiment_tags, view_link
from tests.conftest import chromium, resize
from tests.studies.synthetic import make_study, random_trials

pytestmark = pytest.mark.browser
WAIT = 60.0  # seconds for a page of the MLflow UI, on a busy machine
PHONE = (390, 844)  # width and height in pixels

# Tables, charts and commands wider than their place, with the overflow of the nearest box that
# scrolls: [element, width, width of that box, overflow-x].
WIDE_ELEMENTS = """
return [...document.querySelectorAll('table, svg, pre code')].map(e => {
  const box = e.closest('.scroll'), width = e.getBoundingClientRect().width;
  return [e.tagName, width, box && box.clientWidth, box && getComputedStyle(box).overflowX];
}).filter(([, width, boxWidth]) => width > (boxWidth ?? innerWidth));
"""


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


# ---- the report


def open_report(browser: Any, page: str, folder: Path) -> None:
    """Open the page from the file system, without a network."""
    path = folder / "report.html"
    path.write_text(page, encoding="utf-8")
    browser.execute_cdp_cmd("Network.enable", {})
    offline = {"offline": True, "latency": 0, "downloadThroughput": 0, "uploadThroughput": 0}
    browser.execute_cdp_cmd("Network.emulateNetworkConditions", offline)
    browser.get(path.as_uri())


@pytest.fixture(scope="module")
def page() -> str:
    study = make_study(random_trials(60, lambda p: 2 + 0.5 / p["block_size"]))
    return make_report(study, load_corpus(), None, {"script": "studies/mlp.py"})


def test_report_works_offline_and_draws_its_charts(browser: Any, page: str, tmp_path: Path) -> None:
    resize(browser, 1200)
    open_report(browser, page, tmp_path)

    sizes = browser.execute_script(
        "return [...document.querySelectorAll('figure svg')].map(s => {"
        " const b = s.getBoundingClientRect(), c = s.getBBox();"
        " return [b.width, b.height, c.width, c.height] })"
    )
    assert len(sizes) >= 12
    assert all(
        width > 300 and height > 200 and w > 200 and h > 100 for width, height, w, h in sizes
    )
    n_drawn = browser.execute_script("return document.querySelectorAll('svg use, svg path').length")
    assert n_drawn > 500
    assert [entry for entry in browser.get_log("browser") if entry["level"] != "INFO"] == []


@pytest.mark.parametrize("width", [1200, 1400])
def test_first_screen_says_what_to_do_next(
    browser: Any, page: str, tmp_path: Path, width: int
) -> None:
    resize(browser, width, 900)
    open_report(browser, page, tmp_path)

    box = browser.find_element("css selector", ".next")
    assert box.rect["y"] + box.rect["height"] < 850
    assert "studies/mlp.py --study made-up-wider" in box.text
    answer = browser.find_element("css selector", ".answer").text
    assert "Best dev loss, trial" in answer and "noise is unknown" in answer


def test_report_fits_a_phone(browser: Any, page: str, tmp_path: Path) -> None:
    resize(browser, *PHONE)
    open_report(browser, page, tmp_path)

    assert browser.execute_script("return document.documentElement.scrollWidth") <= PHONE[0]
    wide = browser.execute_script(WIDE_ELEMENTS)
    assert {element.lower() for element, *_ in wide} == {"table", "svg", "code"}
    assert all(overflow == "auto" for *_, overflow in wide)
    # The shadow is the hint that a box scrolls.
    shadows = browser.execute_script(
        "return [...document.querySelectorAll('.scroll')].map(e => "
        "getComputedStyle(e).backgroundImage)"
    )
    assert shadows and all("linear-gradient" in shadow for shadow in shadows)


def test_text_of_charts_is_readable_on_a_phone(browser: Any, page: str, tmp_path: Path) -> None:
    resize(browser, *PHONE)
    open_report(browser, page, tmp_path)

    sizes = browser.execute_script(
        "return [...document.querySelectorAll('svg text')].map(t => { const m = t.getScreenCTM();"
        " return parseFloat(getComputedStyle(t).fontSize) * Math.hypot(m.a, m.b) })"
    )
    assert min(sizes) > 8  # pixels on the screen


def test_commands_stay_on_one_line(browser: Any, page: str, tmp_path: Path) -> None:
    resize(browser, *PHONE)
    open_report(browser, page, tmp_path)

    heights = browser.execute_script(
        "return [...document.querySelectorAll('pre code')].map(e => "
        "e.getBoundingClientRect().height / parseFloat(getComputedStyle(e).lineHeight))"
    )
    assert len(heights) > 3 and max(heights) < 1.5  # lines


def test_report_has_a_light_and_a_dark_mode(browser: Any, page: str, tmp_path: Path) -> None:
    open_report(browser, page, tmp_path)
    seen = {}
    for scheme in ("light", "dark"):
        feature = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", feature)
        # Sums of red, green and blue.
        seen[scheme] = browser.execute_script(
            "const c = s => getComputedStyle(document.querySelector(s));"
            "return [c('body').backgroundColor, c('svg text').fill, c('svg use').fill].map("
            "  t => t.match(/\\d+/g).slice(0, 3).reduce((sum, v) => sum + +v, 0))"
        )

    light_surface, light_text, light_point = seen["light"]
    dark_surface, dark_text, dark_point = seen["dark"]
    assert light_surface > 700 and light_text < 200
    assert dark_surface < 100 and dark_text > 600
    assert light_point != dark_point


# ---- the MLflow UI


@pytest.fixture
def study(launch: Callable[..., int]) -> Results:
    """A small study in both stores."""
    launch(trials=8)
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
        "(rows => rows.length >= arguments[0] && rows)([...document.querySelectorAll('a[href*=\"/runs/\"]')]"
        ".map(a => a.innerText.trim()).filter(text => /t\\d\\d\\d$/.test(text)))",
        len(study.trials),
    )
    ranked = [f"{row.dev_loss:.4f} · t{row.trial:03d}" for row in study.measured.itertuples()]
    assert names[: len(ranked)] == ranked
    text = page_text(browser)
    headings = ("dev_loss", "train_loss", "n_params", "seconds", *study.space, "state", "reason")
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
        "[...document.querySelectorAll('.parcoords canvas')].some(c => c.width && c.getContext('2d')"
        ".getImageData(0, 0, c.width, c.height).data.some(v => v > 0))",
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
    best = study.measured.iloc[0]
    assert heading.startswith(f"small: dev loss {best.dev_loss:.4f} (trial {best.trial})")
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
