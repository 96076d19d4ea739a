"""A real Chromium, without a screen, over the report and over the MLflow UI of a study."""

from __future__ import annotations

import shutil
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
from tests.studies.synthetic import make_study, random_trials

pytestmark = pytest.mark.browser
WAIT = 60.0  # seconds for a page of the MLflow UI, on a busy machine
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --disable-dev-shm-usage"
).split()


@pytest.fixture
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A Chromium that no one used before."""
    webdriver = pytest.importorskip(
        "selenium.webdriver", reason="selenium is not installed (the test extra has it)"
    )
    binary = next(
        filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
    )
    driver = shutil.which("chromedriver")
    if binary is None or driver is None:
        pytest.skip(
            "no Chromium with its driver is installed here (Debian: apt-get install chromium chromium-driver)"
        )
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    chromium = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield chromium
    chromium.quit()


def resize(browser: Any, width: int, height: int = 1000) -> None:
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)


def wait_for(browser: Any, script: str, *arguments: Any) -> Any:
    """What a script returns, once that is something."""
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
    """Open the page from the file system, with the network off."""
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


def test_the_report_opens_from_the_file_system_and_draws_its_pictures(
    browser: Any, page: str, tmp_path: Path
) -> None:
    resize(browser, 1200)
    open_report(browser, page, tmp_path)

    sizes = browser.execute_script(
        "return [...document.querySelectorAll('figure svg')].map(s => { const b = s.getBoundingClientRect(),"
        " c = s.getBBox(); return [b.width, b.height, c.width, c.height] })"
    )
    assert len(sizes) >= 12
    assert all(
        width > 300 and height > 200 and w > 200 and h > 100 for width, height, w, h in sizes
    )
    assert (
        browser.execute_script("return document.querySelectorAll('svg use, svg path').length") > 500
    )
    assert [entry for entry in browser.get_log("browser") if entry["level"] != "INFO"] == []


def test_the_first_screen_says_what_to_do_next(browser: Any, page: str, tmp_path: Path) -> None:
    resize(browser, 1200, 900)
    open_report(browser, page, tmp_path)

    bottom = browser.execute_script(
        "return document.querySelector('.next').getBoundingClientRect().bottom"
    )
    assert bottom < 900
    assert "studies/mlp.py --study made-up-wider" in browser.execute_script(
        "return document.querySelector('.next').innerText"
    )


def test_the_report_fits_a_phone_and_stays_readable(
    browser: Any, page: str, tmp_path: Path
) -> None:
    resize(browser, 390, 800)
    open_report(browser, page, tmp_path)

    assert browser.execute_script("return document.documentElement.scrollWidth") <= 390
    sizes = browser.execute_script(
        "return [...document.querySelectorAll('.grid svg text')].map(t => { const m = t.getScreenCTM();"
        " return parseFloat(getComputedStyle(t).fontSize) * Math.hypot(m.a, m.b) })"
    )
    assert min(sizes) > 8  # pixels on the screen


def test_the_report_is_right_in_light_and_in_dark(browser: Any, page: str, tmp_path: Path) -> None:
    open_report(browser, page, tmp_path)
    seen = {}
    for scheme in ("light", "dark"):
        feature = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", feature)
        seen[scheme] = browser.execute_script(
            "const c = s => getComputedStyle(document.querySelector(s));"
            "return [c('body').backgroundColor, c('svg text').fill, c('svg use').fill].map("
            "  t => t.match(/\\d+/g).slice(0, 3).reduce((sum, v) => sum + +v, 0))"
        )

    (light, ink, _), (dark, pale, _) = seen["light"], seen["dark"]
    assert light > 700 and ink < 200 and dark < 100 and pale > 600  # sums of red, green and blue
    assert seen["light"][2] != seen["dark"][2]


# ---- the MLflow UI


@pytest.fixture
def study(launch: Callable[..., int]) -> Results:
    """A small study in both stores."""
    launch(trials=8)
    return read_results(load_study("small", None))


@pytest.fixture
def server(study: Results) -> Iterator[tuple[str, str]]:
    """The MLflow UI on it: address and the experiment's id."""
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
def test_the_links_open_ranked_trials_then_charts_then_the_note(
    browser: Any, server: tuple[str, str], study: Results, names: Path
) -> None:
    base, experiment_id = server
    resize(browser, 2600, 1300)  # the table draws only the columns that are in sight
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
    browser.get("about:blank")  # a new fragment alone would not load the page anew
    browser.get(link)
    axes = wait_for(
        browser, "[...document.querySelectorAll('.parcoords .dimension')].map(d => d.textContent)"
    )
    shown = ["log10_lr" if name == "lr" else name for name in study.space]
    assert len(axes) == len(shown) + 1 and all(
        any(name in axis for axis in axes) for name in [*shown, "dev_loss"]
    )
    # Something is drawn on the canvas of the lines.
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
    """The report's script finds the model through a server too."""
    assert (
        report.main(report.Args("small", names=names, tracking_uri=base, out=Path("page.html")))
        == 0
    )
    assert "None of these stands in train" in Path("page.html").read_text(encoding="utf-8")
