"""HTML elements of the report: text, tables, commands and figures."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from html import escape
from typing import Any

from matplotlib.axes import Axes

from studies.harness.report.figures.style import new_figure, place, to_svg

# Width and height of a figure in pixels.
HALF = (540, 330)
THIRD = (370, 300)
WIDE = (1080, 400)
# Left, top, right and bottom margin of its axes in pixels.
MARGINS = (74, 12, 22, 52)
TITLED = (74, 36, 22, 52)

# The colour of a verdict's tag.
KINDS = {
    "widen": "act",
    "limit": "act",
    "inside": "fine",
    "lengthen": "act",
    "shorten": "act",
    "sufficient": "fine",
    "continue": "act",
    "stop": "fine",
    "harmful": "act",
    "fair": "fine",
}


class Html(str):
    """A string of HTML; `text` escapes any other string."""


def text(value: Any) -> str:
    """Return a value as HTML: losses with four decimals, counts with commas, nan as a dash."""
    if isinstance(value, Html):
        return value
    value = value.item() if hasattr(value, "item") else value
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    if isinstance(value, int):
        return f"{value:,}".replace("-", "−")
    if isinstance(value, float):
        return f"{value:.4f}".replace("-", "−")
    return escape(str(value))


def paragraph(*sentences: str, style: str = "") -> str:
    """Return a paragraph; `style` is its CSS class."""
    opening = f'<p class="{style}">' if style else "<p>"
    return opening + " ".join(text(sentence) for sentence in sentences if sentence) + "</p>"


def command(line: str) -> str:
    """Return a shell command on one line, in a box that scrolls if the line is too long."""
    return f'<pre class="scroll"><code>{escape(line)}</code></pre>'


def tag(word: str, kind: str) -> Html:
    """Return a word in a coloured frame; the kind is act, fine or unknown."""
    return Html(f'<span class="tag {kind}">{escape(word)}</span>')


def verdict_tag(verdict: str) -> Html:
    """Return the tag of a verdict in its colour."""
    return tag(verdict, KINDS.get(verdict, "unknown"))


def table(
    headings: Sequence[str],
    rows: Sequence[Sequence[Any]],
    *,
    texts: Sequence[int] = (),
    here: int | None = None,
) -> str:
    """Return a table in a box that scrolls if it is too wide.

    Args:
        headings: one for each column.
        rows: values, formatted by `text`.
        texts: indices of left-aligned columns.
        here: index of the highlighted row.
    """
    lines = [_row(headings, "th", texts)]
    lines += [_row(row, "td", texts, here=i == here) for i, row in enumerate(rows)]
    return f'<div class="scroll"><table>{"".join(lines)}</table></div>'


def _row(values: Sequence[Any], element: str, texts: Sequence[int], here: bool = False) -> str:
    cells = []
    for i, value in enumerate(values):
        style = ' class="text"' if i in texts else ""
        cells.append(f"<{element}{style}>{text(value)}</{element}>")
    opening = '<tr class="here">' if here else "<tr>"
    return f"{opening}{''.join(cells)}</tr>"


def bar(share: float) -> Html:
    """Return a horizontal bar; a share of 1 is the longest, and a negative one is empty."""
    return Html(f'<span class="bar" style="width:{max(0.0, share) * 9:.2f}rem"></span>')


def picture(
    draw: Callable[[Axes], None],
    description: str,
    caption: str = "",
    *,
    size: tuple[int, int] = HALF,
    margins: tuple[int, int, int, int] = MARGINS,
) -> str:
    """Return a figure with its caption. Call it within `look()`.

    A figure wider than HALF keeps a readable size on a phone, in a box that scrolls.

    Args:
        draw: draws on the axes.
        description: text for screen readers, unique in the page.
        caption: below the figure.
        size: width and height of the figure in pixels.
        margins: left, top, right and bottom margin of the axes in pixels.
    """
    width, height = size
    left, top, right, bottom = margins
    figure = new_figure(width, height)
    draw(place(figure, left, top, width - left - right, height - top - bottom))

    svg = f'<div class="chart" style="--width:{width}px">{to_svg(figure, description)}</div>'
    if width > HALF[0]:
        svg = f'<div class="scroll">{svg}</div>'
    below = f"<figcaption>{text(caption)}</figcaption>" if caption else ""
    return f"<figure>{svg}{below}</figure>"
