"""The report in a real, headless Chromium: charts, first screen, phone, light and dark mode."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from makemore.data import load_corpus
from studies.harness.report.build import make_report
from tests.conftest import chromium, resize, wait_for
from tests.studies.synthetic import make_study, random_trials

pytestmark = pytest.mark.browser
PHONE = (390, 844)  # width and height in pixels

# Tables, charts and commands wider than their place, with the overflow of the nearest box that
# scrolls: [element, width, width of that box, overflow-x].
WIDE_ELEMENTS = """
return [...document.querySelectorAll('table, svg, pre code')].map(e => {
  const box = e.closest('.scroll'), width = e.getBoundingClientRect().width;
  return [e.tagName, width, box && box.clientWidth, box && getComputedStyle(box).overflowX];
}).filter(([, width, boxWidth]) => width > (boxWidth ?? innerWidth));
"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with chromium(tmp_path_factory.mktemp("chromium"), offline=True) as browser:
        yield browser


def open_report(browser: Any, page: str, folder: Path) -> None:
    """Open the page from the file system."""
    path = folder / "report.html"
    path.write_text(page, encoding="utf-8")
    browser.get(path.as_uri())
    wait_for(lambda: browser.execute_script("return document.readyState") == "complete")


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
    assert "studies/mlp.py --study made-up-wide --trials 60 --range" in box.text
    answer = browser.find_element("css selector", ".answer").text
    assert "Dev loss of the winner, one seed, trial" in answer and "noise is unknown" in answer


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
