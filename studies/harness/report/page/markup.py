"""Small pieces of HTML and SVG that the report is made of."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from html import escape
from typing import Any

from matplotlib.axes import Axes

from studies.harness.report.figures.style import new_figure, place, to_svg

# Width and height of a picture, and the margins left, top, right and bottom of its axes, in pixels.
HALF, THIRD, WIDE = (540, 330), (370, 300), (1080, 400)
MARGINS = (74, 12, 22, 52)
TITLED = (74, 36, 22, 52)


class Html(str):
    """Text that is HTML already; any other text is escaped where it is put in."""


def text(value: Any) -> str:
    """A value as HTML: losses with four decimals, counts with thousands, nothing as a dash."""
    if isinstance(value, Html):
        return value
    value = value.item() if hasattr(value, "item") else value
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    shown = (
        f"{value:,}"
        if isinstance(value, int)
        else f"{value:.4f}"
        if isinstance(value, float)
        else str(value)
    )
    return escape(shown.replace("-", "−") if isinstance(value, int | float) else shown)


def paragraph(*sentences: str, style: str = "") -> str:
    """A paragraph of sentences."""
    return (
        f"<p{f' class={style!r}' if style else ''}>"
        + " ".join(text(sentence) for sentence in sentences)
        + "</p>"
    )


def command(line: str) -> str:
    """A command to be pasted."""
    return f"<pre>{escape(line)}</pre>"


def tag(word: str, kind: str) -> Html:
    """A verdict in one word; the kind is act, fine or unknown."""
    return Html(f'<span class="tag {kind}">{escape(word)}</span>')


def table(
    headings: Sequence[str],
    rows: Sequence[Sequence[Any]],
    *,
    texts: Sequence[int] = (),
    here: int | None = None,
) -> str:
    """A table of numbers.

    Args:
        texts: the columns that hold text, which stand to the left.
        here: the row that stands out.
    """

    def cells(values: Sequence[Any], name: str) -> str:
        kinds = [' class="text"' if i in texts else "" for i in range(len(values))]
        return "".join(
            f"<{name}{kind}>{text(v)}</{name}>" for kind, v in zip(kinds, values, strict=True)
        )

    lines = [
        f"<tr{' class=here' if i == here else ''}>{cells(row, 'td')}</tr>"
        for i, row in enumerate(rows)
    ]
    return (
        f'<div class="scroll"><table><tr>{cells(headings, "th")}</tr>{"".join(lines)}</table></div>'
    )


def bar(share: float) -> Html:
    """A bar of a share of the longest one."""
    return Html(f'<span class="bar" style="width:{max(0.0, share) * 9:.2f}rem"></span>')


def picture(
    draw: Callable[[Axes], None],
    description: str,
    caption: str = "",
    *,
    size: tuple[int, int] = HALF,
    margins: tuple[int, int, int, int] = MARGINS,
    style: str = "",
) -> str:
    """A figure with its caption; `draw` draws on the axes. To be called within `look()`."""
    (width, height), (left, top, right, bottom) = size, margins
    figure = new_figure(width, height)
    draw(place(figure, left, top, width - left - right, height - top - bottom))
    below = f"<figcaption>{text(caption)}</figcaption>" if caption else ""
    return f'<figure class="{style}">{to_svg(figure, description)}{below}</figure>'
