"""What all pictures share: one palette and one look, drawn by matplotlib without pyplot, to PNG and to SVG for a page.

The SVG takes its colours from CSS variables, so that a page shows it in light and in dark, and its text is text.
"""

from __future__ import annotations

import io
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

# Blue, orange and a bluish red stay apart for all common kinds of colour blindness; each has a marker of its own too.
PALETTE = {
    "surface": "#fdfdfc",
    "ink": "#1f2a36",
    "muted": "#66717d",
    "grid": "#e4e8ec",
    "main": "#2b6cb0",  # trials that trained to their end
    "best": "#d9730d",  # the best, and best so far
    "pruned": "#aab4be",
    "bad": "#b4235f",  # diverged
    "level1": "#dde5ee",  # from the worst trials ...
    "level2": "#b9cde1",
    "level3": "#85add3",
    "level4": "#4a86c0",
    "level5": "#134a86",  # ... to the best
}
LEVELS = [PALETTE[f"level{i}"] for i in range(1, 6)]
LOSS = "dev loss (nats per character)"
DPI = 100

_STYLE: dict[str, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # matplotlib brings it
    "font.size": 10.5,
    "axes.titlesize": 11.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelcolor": PALETTE["ink"],
    "axes.edgecolor": PALETTE["muted"],
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": PALETTE["grid"],
    "text.color": PALETTE["ink"],
    "xtick.color": PALETTE["muted"],
    "ytick.color": PALETTE["muted"],
    "xtick.labelcolor": PALETTE["ink"],
    "ytick.labelcolor": PALETTE["ink"],
    "legend.frameon": False,
    "legend.fontsize": 9.5,
    "svg.fonttype": "none",
    "svg.hashsalt": "makemore",  # the same picture gives the same bytes
    "path.simplify": True,
}


@contextmanager
def look() -> Iterator[None]:
    """The style, for the drawing and the saving of a figure; matplotlib's settings outside stay as they are."""
    settings: dict[Any, Any] = {**matplotlib.rcParamsDefault, **_STYLE, "backend": "agg"}
    with matplotlib.rc_context(settings):
        yield


def new_figure(width: int, height: int) -> Figure:
    """An empty figure of so many pixels."""
    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI, facecolor="none")
    FigureCanvasAgg(figure)
    return figure


def place(figure: Figure, left: int, top: int, width: int, height: int) -> Axes:
    """Axes at a place in pixels from the top left corner."""
    across, down = figure.get_size_inches() * DPI
    return figure.add_axes(
        (left / across, 1 - (top + height) / down, width / across, height / down)
    )


def label(ax: Axes, x: str = "", y: str = "", title: str = "") -> Axes:
    """Name both axes and the picture, and lay horizontal grid lines."""
    ax.set_xlabel(x)
    ax.set_ylabel(y)
    ax.set_title(title, pad=10)
    ax.grid(axis="y", linewidth=0.8)
    ax.tick_params(length=3)
    return ax


def say(ax: Axes, sentence: str) -> None:
    """Write why there is nothing to draw, in place of an empty picture."""
    ax.set_axis_off()
    ax.text(
        0.5,
        0.5,
        sentence,
        ha="center",
        va="center",
        color=PALETTE["muted"],
        transform=ax.transAxes,
        wrap=True,
    )


def save_png(figure: Figure, path: Path) -> None:
    """Write a PNG on the light surface."""
    figure.savefig(path, dpi=DPI, facecolor=PALETTE["surface"], metadata={"Software": None})


def to_svg(figure: Figure, description: str) -> str:
    """The figure as an SVG element for a page that defines --ink, --main and so on.

    A point that was given a URL (`set_urls`) shows that text when the mouse rests on it.

    Args:
        description: what a reader who does not see the picture shall know.
    """
    raw = io.StringIO()
    FigureCanvasSVG(figure)
    figure.savefig(raw, format="svg", facecolor="none", metadata={"Date": None, "Creator": None})
    text = raw.getvalue()
    text = text[text.index("<svg") :]
    width, height = (float(v) for v in re.findall(r'(?:width|height)="([\d.]+)pt"', text)[:2])
    opening = (
        f'<svg viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{escape(description)}">'
    )
    text = _shorten(opening + text[text.index(">") + 1 :])
    for name, colour in PALETTE.items():
        text = text.replace(colour, f"var(--{name})")
    return _own_ids(text, description)


def _shorten(text: str) -> str:
    """Keep what is drawn: each point with its text, two decimals, and no style that would reach the whole page."""
    text = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", text, flags=re.S)
    text = re.sub(
        r'<a xlink:href="([^"]*)"[^>]*>(.*?)</a>', r"<g><title>\1</title>\2</g>", text, flags=re.S
    )
    text = re.sub(r"font-family: [^;]*; |'DejaVu Sans', ", "", text)
    text = re.sub(r"<[^>]+>", lambda tag: re.sub(r"(\.\d\d)\d+", r"\1", tag[0]), text)
    text = text.replace(' transform="rotate(-0', ' transform="rotate(0')
    return re.sub(r"\s*\n\s*", " ", text)


def _own_ids(text: str, description: str) -> str:
    """Make ids short and unique in the page, and drop those that nothing refers to."""
    used = dict.fromkeys(re.findall(r'(?:xlink:href="#|url\(#)([\w-]+)', text))
    prefix = f"p{zlib.crc32(description.encode()):x}"
    short = {name: f"{prefix}-{i}" for i, name in enumerate(used)}
    text = re.sub(r' id="([^"]+)"', lambda m: f' id="{short[m[1]]}"' if m[1] in short else "", text)
    return re.sub(r'(xlink:href="#|url\(#)([\w-]+)', lambda m: m[1] + short[m[2]], text)
