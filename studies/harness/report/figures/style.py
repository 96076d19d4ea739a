"""Palette, style and output of all figures: PNG files, and SVG elements for a page.

Figures are drawn by matplotlib without pyplot. An SVG takes its colours from CSS variables, so that
a page can show it in light and dark mode. Its text stays text.
"""

from __future__ import annotations

import io
import itertools
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape
from pathlib import Path
from typing import IO, Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

# Blue, orange and a bluish red are distinct for all common kinds of colour blindness. Each kind of
# trial has its own marker as well.
PALETTE = {
    "surface": "#fdfdfc",
    "ink": "#1f2a36",
    "muted": "#66717d",
    "grid": "#e4e8ec",
    "main": "#2b6cb0",  # complete trials
    "best": "#d9730d",  # the best trial, best so far
    "pruned": "#aab4be",
    "bad": "#b4235f",  # diverged
    "level1": "#dde5ee",  # the worst trials
    "level2": "#b9cde1",
    "level3": "#85add3",
    "level4": "#4a86c0",
    "level5": "#134a86",  # the best trials
}
LEVELS = [PALETTE[f"level{i}"] for i in range(1, 6)]
LOSS = "dev loss (nats per character)"
DPI = 100
# A point with a tooltip, as matplotlib writes it.
POINT = (
    r'<g>(?P<title><title>[^<]*</title>) <g(?P<clip> clip-path="[^"]*")> '
    r'<use(?P<place> xlink:href="[^"]*" x="[^"]*" y="[^"]*")(?P<style> style="[^"]*")/> </g> </g>'
)
# Whole numbers with commas; a short axis also has ticks such as 2.5.
THOUSANDS = FuncFormatter(lambda value, _: f"{value:,.10g}")

_STYLE: dict[str, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # part of matplotlib
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
    """Set the style in which figures are drawn and saved; restore matplotlib's settings at exit."""
    settings: dict[Any, Any] = {**matplotlib.rcParamsDefault, **_STYLE, "backend": "agg"}
    with matplotlib.rc_context(settings):
        yield


def new_figure(width: int, height: int) -> Figure:
    """Return an empty figure; width and height in pixels."""
    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI, facecolor="none")
    FigureCanvasAgg(figure)
    return figure


def place(figure: Figure, left: int, top: int, width: int, height: int) -> Axes:
    """Add axes to a figure, placed in pixels from its top left corner."""
    total_width, total_height = figure.get_size_inches() * DPI
    bottom = total_height - top - height
    return figure.add_axes(
        (left / total_width, bottom / total_height, width / total_width, height / total_height)
    )


def label(ax: Axes, x: str = "", y: str = "", title: str = "") -> Axes:
    """Set axis labels and title, and draw horizontal grid lines."""
    ax.set_xlabel(x)
    ax.set_ylabel(y)
    ax.set_title(title, pad=10)
    ax.grid(axis="y", linewidth=0.8)
    ax.tick_params(length=3)
    return ax


def say(ax: Axes, sentence: str) -> None:
    """Write a sentence in the middle of empty axes: why there is nothing to draw."""
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


def save_png(figure: Figure, path: Path | IO[bytes]) -> None:
    """Write a PNG with the light background to a file."""
    figure.savefig(path, dpi=DPI, facecolor=PALETTE["surface"], metadata={"Software": None})


def to_svg(figure: Figure, description: str) -> str:
    """Return a figure as an SVG element for a page that defines the CSS variables of PALETTE.

    Texts given to points with `set_urls` become their tooltips.

    Args:
        figure: from `new_figure`.
        description: text for screen readers, unique in the page.
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
    return _unique_ids(text, description)


def _shorten(text: str) -> str:
    """Remove metadata, global styles and decimals after the second; turn links into tooltips."""
    text = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", text, flags=re.S)
    text = re.sub(
        r'<a xlink:href="([^"]*)"[^>]*>(.*?)</a>', r"<g><title>\1</title>\2</g>", text, flags=re.S
    )
    text = re.sub(r"font-family: [^;]*; |'DejaVu Sans', ", "", text)
    text = re.sub(r"<[^>]+>", lambda tag: re.sub(r"(\.\d\d)\d+", r"\1", tag[0]), text)
    text = text.replace(' transform="rotate(-0', ' transform="rotate(0')
    text = re.sub(r"\s*\n\s*", " ", text)
    return re.sub(f"(?:{POINT} ?)+", _join_points, text)


def _join_points(match: re.Match[str]) -> str:
    """Give points with one marker and style one element around them, which halves their text."""
    parts = []
    points = re.finditer(POINT, match[0])
    for (clip, style), group in itertools.groupby(points, lambda p: (p["clip"], p["style"])):
        inner = "".join(f"<use{p['place']}>{p['title']}</use>" for p in group)
        parts.append(f"<g{clip}{style}>{inner}</g>")
    return "".join(parts)


def _unique_ids(text: str, description: str) -> str:
    """Make ids short and unique in the page, and remove unused ones."""
    used = dict.fromkeys(re.findall(r'(?:xlink:href="#|url\(#)([\w-]+)', text))
    prefix = f"p{zlib.crc32(description.encode()):x}"
    short = {name: f"{prefix}-{i}" for i, name in enumerate(used)}
    text = re.sub(r' id="([^"]+)"', lambda m: f' id="{short[m[1]]}"' if m[1] in short else "", text)
    return re.sub(r'(xlink:href="#|url\(#)([\w-]+)', lambda m: m[1] + short[m[2]], text)
