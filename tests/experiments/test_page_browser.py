"""The page that generates names, in a real headless Chromium without a network."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from makemore.checkpoint import Checkpoint
from makemore.ensemble import Trained
from makemore.sampling import score_words
from tests.conftest import chromium, resize
from tests.experiments.synthetic import (
    KINDS,
    LATIN,
    SOURCE,
    make_checkpoint,
    make_ensemble,
    page_of,
    probabilities,
    some_prefixes,
)

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with chromium(tmp_path_factory.mktemp("chromium"), offline=True) as browser:
        yield browser


@pytest.fixture
def visit(browser: Any, tmp_path: Path) -> Callable[..., Any]:
    """Open the page of a checkpoint from the file system, at a width in pixels."""

    def visit(checkpoint: Checkpoint | Trained, width: int = 1200) -> Any:
        resize(browser, width, 900)
        path = tmp_path / "names.html"
        path.write_text(page_of(checkpoint), encoding="utf-8")
        browser.get(path.as_uri())
        assert [entry for entry in browser.get_log("browser") if entry["level"] != "INFO"] == []
        assert browser.execute_script("return performance.getEntriesByType('resource').length") == 0
        return browser

    return visit


def names(browser: Any) -> list[str]:
    return list(
        browser.execute_script(
            "return [...document.querySelectorAll('#names bdi')].map(e => e.textContent)"
        )
    )


def status(browser: Any) -> str:
    return str(browser.execute_script("return document.getElementById('status').textContent"))


def test_ensembles_probabilities_equal_those_of_torch(visit: Callable[..., Any]) -> None:
    ensemble = make_ensemble()
    prefixes = some_prefixes(ensemble.vocab)

    browser = visit(ensemble)
    found = np.array(
        browser.execute_script("return arguments[0].map(p => makemore.probabilities(p))", prefixes)
    )

    assert np.abs(found - probabilities(ensemble, prefixes)).max() < 1e-4
    about = browser.execute_script("return document.getElementById('about').textContent")
    assert "by 2 neural networks of " in about and "mixed with counts of letters" in about
    assert "sees the last" not in about and "see the last 6 characters" in about


@pytest.mark.parametrize("kind", KINDS)
def test_probabilities_equal_those_of_torch(visit: Callable[..., Any], kind: str) -> None:
    checkpoint = KINDS[kind]()
    prefixes = some_prefixes(checkpoint.vocab)

    browser = visit(checkpoint)
    found = np.array(
        browser.execute_script("return arguments[0].map(p => makemore.probabilities(p))", prefixes)
    )

    expected = probabilities(checkpoint, prefixes)
    assert np.abs(found - expected).max() < 1e-4
    assert expected.max(1).mean() > 1.5 / len(checkpoint.vocab)  # far from uniform
    assert len(names(browser)) > 1
    assert browser.execute_script("return document.querySelectorAll('#map text').length") == len(
        checkpoint.vocab
    )
    about = browser.execute_script("return document.getElementById('about').textContent")
    assert f"{checkpoint.model.flat.numel():,} parameters" in about and about.endswith(SOURCE)


@pytest.mark.parametrize("kind", ["the lecture's", "many scripts"])
def test_names_begin_with_the_prefix_and_are_scored(visit: Callable[..., Any], kind: str) -> None:
    checkpoint = KINDS[kind]()
    prefix = "".join(checkpoint.vocab.symbols[2:4])
    options = {"prefix": prefix, "temperature": 0.9, "seed": 4, "n": 12}

    browser = visit(checkpoint)
    rows, again, other = browser.execute_script(
        "const o = arguments[0]; return [o, o, {...o, seed: 5}].map(o => makemore.generate(o))",
        options,
    )

    made = [row["name"] for row in rows]
    assert rows == again and made != [row["name"] for row in other]
    assert len(set(made)) == len(made) and all(name.startswith(prefix) for name in made)
    # A name that was cut off has no end, so its score differs.
    whole = [row for row in rows if len(row["name"]) < 100]
    scores = score_words(checkpoint.model, checkpoint.vocab, [row["name"] for row in whole])
    assert len(whole) > 3 and np.allclose([row["nats"] for row in whole], scores, atol=1e-3)


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_character_frequencies_follow_model_and_temperature(
    visit: Callable[..., Any], temperature: float
) -> None:
    checkpoint = make_checkpoint("abc", block_size=1)
    expected = np.array([0.4, 0.3, 0.2, 0.1])
    with torch.no_grad():
        checkpoint.model.W2.zero_()
        checkpoint.model.b2.copy_(torch.tensor(expected).log())
    script = (
        "return [...Array(6000).keys()]"
        ".map(i => makemore.sample({...arguments[0], index: i}).name + '.').join('')"
    )

    draws = visit(checkpoint).execute_script(script, {"temperature": temperature, "seed": 3})

    expected = expected ** (1 / temperature) / (expected ** (1 / temperature)).sum()
    for symbol, p in zip(checkpoint.vocab.symbols, expected, strict=True):
        assert draws.count(symbol) / len(draws) == pytest.approx(
            p, abs=4 * math.sqrt(p * (1 - p) / len(draws))
        )


def test_page_works_with_the_keyboard_alone(visit: Callable[..., Any]) -> None:
    browser = visit(make_checkpoint())
    press = browser.switch_to.active_element.send_keys

    def focused() -> str:
        active = "document.activeElement"
        return str(browser.execute_script(f"return {active}.id || {active}.textContent"))

    def type_keys(keys: str) -> None:
        browser.switch_to.active_element.send_keys(keys)

    press("\ue004")
    order = [focused()]
    while len(order) < 5:
        type_keys("\ue004")
        order.append(focused())
    assert order[:4] == ["prefix", "temperature", "seed", "More names"] and order[4].startswith("a")
    assert browser.execute_script(
        "return [...document.querySelectorAll('input')].every(i => i.labels.length === 1)"
    )
    ring = (
        "return getComputedStyle(document.activeElement).outlineStyle"
        " + getComputedStyle(document.activeElement)"
    )
    assert browser.execute_script(ring + ".outlineWidth") == "solid3px"

    type_keys("\ue007")  # Enter on the bar of "a" adds the letter
    assert browser.execute_script("return document.getElementById('prefix').value") == "a"
    assert all(name.startswith("a") for name in names(browser)) and "with a, seed 1." in status(
        browser
    )

    browser.execute_script("document.getElementById('prefix').focus()")
    before = names(browser)
    type_keys("l\ue007")  # Enter takes the next seed
    assert status(browser).endswith("with al, seed 2.") and names(browser) != before
    browser.execute_script("document.getElementById('seed').select()")
    type_keys("7\ue007")  # Enter in the seed field uses that seed
    seven = names(browser)
    assert status(browser).endswith("with al, seed 7.")
    type_keys("\ue004\ue007")  # the button
    assert status(browser).endswith("with al, seed 8.") and names(browser) != seven


def test_unknown_characters_are_named_and_capitals_accepted(
    visit: Callable[..., Any],
) -> None:
    browser = visit(make_checkpoint())
    prefix, seed = (browser.find_element("id", name) for name in ("prefix", "seed"))

    prefix.send_keys("Al")
    assert "with al, seed 1." in status(browser) and all(
        name.startswith("al") for name in names(browser)
    )
    prefix.send_keys("é")
    assert status(browser) == f"The model does not know “é”. It knows {LATIN}."
    assert prefix.get_attribute("aria-invalid") == "true"
    prefix.send_keys("\ue003.")  # the boundary is not a letter
    assert "does not know “.”" in status(browser)
    prefix.send_keys("\ue003")
    assert prefix.get_attribute("aria-invalid") is None
    seed.send_keys("-")
    assert status(browser).startswith("The seed must be a whole number")
    assert [entry for entry in browser.get_log("browser") if entry["level"] != "INFO"] == []


def test_bars_and_map_follow_the_prefix(visit: Callable[..., Any]) -> None:
    checkpoint = make_checkpoint()
    browser = visit(checkpoint)
    browser.find_element("id", "prefix").send_keys("zab")

    bars = browser.execute_script(
        "return [...document.querySelectorAll('#bars button')]"
        ".map(b => [b.firstChild.textContent, b.title,"
        " b.lastChild.textContent, parseFloat(b.querySelector('i').style.width)])"
    )
    expected = probabilities(checkpoint, ["zab"])[0]
    assert [bar[0] for bar in bars] == ["end", *LATIN]
    assert [float(bar[2].split()[0]) for bar in bars] == pytest.approx(100 * expected, abs=0.06)
    assert [bar[3] for bar in bars] == pytest.approx(100 * expected / expected.max(), abs=0.1)
    seen = (
        "return [...document.querySelectorAll('#map text.seen')].map(t => t.textContent).join('')"
    )
    assert browser.execute_script(seen) == "abz"
    browser.find_element("id", "prefix").send_keys("\ue003\ue003")
    assert browser.execute_script(seen) == ".z"


def test_large_alphabet_gets_thirty_bars(visit: Callable[..., Any]) -> None:
    checkpoint = make_checkpoint("".join(map(chr, range(0x4E00, 0x4E00 + 400))), n_hidden=20)

    browser = visit(checkpoint, 360)

    shown = browser.execute_script(
        "return [...document.querySelectorAll('#bars bdi')].map(e => e.textContent)"
    )
    likeliest = np.argsort(-probabilities(checkpoint, [""])[0])[:30]
    assert shown == [checkpoint.vocab.symbols[code] if code else "end" for code in likeliest]
    assert "The remaining 371 characters have" in browser.execute_script(
        "return document.body.innerText"
    )


@pytest.mark.parametrize("width", [1200, 360])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_is_readable_on_phones_and_in_the_dark(
    visit: Callable[..., Any], width: int, scheme: str
) -> None:
    browser = visit(make_checkpoint(), width)
    feature = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", feature)
    browser.find_element("id", "prefix").send_keys("mmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmm")

    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    rows = browser.execute_script(
        "return [...document.querySelectorAll('p, label, bdi, small, h1, h2, .p, text')]"
        ".filter(e => e.textContent)"
        ".map(e => { const s = getComputedStyle(e), m = e.getScreenCTM?.();"
        " return [e.tagName, parseFloat(s.fontSize) * (m ? m.a : 1), m ? s.fill : s.color] })"
    )
    surfaces = browser.execute_script(
        "return ['body', 'form']"
        ".map(s => getComputedStyle(document.querySelector(s)).backgroundColor)"
    )
    assert len(rows) > 80 and min(size for _, size, _ in rows) >= 12  # pixels
    assert (
        min(contrast(color, surface) for _, _, color in rows for surface in surfaces) >= 4.5
    )  # WCAG 2, AA
    assert (luminance(surfaces[0]) > 0.5) == (scheme == "light")


def luminance(color: str) -> float:
    """Return the relative luminance of rgb(r, g, b), as WCAG 2 defines it."""
    parts = [int(part) / 255 for part in re.findall(r"\d+", color)[:3]]
    r, g, b = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
    return 0.2126 * r + 0.7152 * g + 0.0722 * b


def contrast(a: str, b: str) -> float:
    """Return the contrast ratio of two colours, as WCAG 2 defines it."""
    low, high = sorted((luminance(a), luminance(b)))
    return (high + 0.05) / (low + 0.05)
