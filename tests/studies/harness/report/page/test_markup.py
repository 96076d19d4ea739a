"""HTML elements."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from studies.harness.report.page.markup import (
    HALF,
    WIDE,
    Html,
    bar,
    command,
    paragraph,
    picture,
    table,
    text,
    verdict_tag,
)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (2.23841, "2.2384"),
        (-0.5, "−0.5000"),
        (25140, "25,140"),
        (-1, "−1"),
        (np.float64(1.5), "1.5000"),
        (np.int64(7), "7"),
        (np.bool_(True), "yes"),
        (False, "no"),
        (None, "–"),
        (math.nan, "–"),
        ("a-b <c>", "a-b &lt;c&gt;"),
        (Html("<b>bold</b>"), "<b>bold</b>"),
    ],
)
def test_values_are_formatted(value: Any, shown: str) -> None:
    assert text(value) == shown


def test_paragraph_joins_sentences() -> None:
    assert paragraph("A & b.", Html("<i>C.</i>")) == "<p>A &amp; b. <i>C.</i></p>"
    assert paragraph("A.", style="muted") == '<p class="muted">A.</p>'


def test_command_is_escaped_in_a_scrolling_box() -> None:
    assert command("a && b") == '<pre class="scroll"><code>a &amp;&amp; b</code></pre>'


@pytest.mark.parametrize(
    ("verdict", "kind"), [("widen", "act"), ("sufficient", "fine"), ("unknown", "unknown")]
)
def test_tag_has_the_colour_of_its_verdict(verdict: str, kind: str) -> None:
    assert verdict_tag(verdict) == f'<span class="tag {kind}">{verdict}</span>'


def test_table_marks_text_columns_and_one_row() -> None:
    html = table(["model", "loss"], [["<a>", 2.0], ["b", 1.0]], texts=(0,), here=1)

    assert html == (
        '<div class="scroll"><table>'
        '<tr><th class="text">model</th><th>loss</th></tr>'
        '<tr><td class="text">&lt;a&gt;</td><td>2.0000</td></tr>'
        '<tr class="here"><td class="text">b</td><td>1.0000</td></tr>'
        "</table></div>"
    )


def test_negative_bar_is_empty() -> None:
    assert "width:0.00rem" in bar(-1.0) and "width:9.00rem" in bar(1.0)


def test_only_wide_pictures_scroll(style: None) -> None:
    half = picture(lambda ax: None, "half", "Caption <1>", size=HALF)
    wide = picture(lambda ax: None, "wide", size=WIDE)

    assert "scroll" not in half and '<div class="scroll"><div class="chart"' in wide
    assert "<figcaption>Caption &lt;1&gt;</figcaption>" in half and "figcaption" not in wide
