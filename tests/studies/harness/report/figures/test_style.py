"""Style of the figures, and their SVG."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree

import matplotlib
from matplotlib.axes import Axes

from studies.harness.report.figures.history import draw_history
from studies.harness.report.figures.style import PALETTE, look, new_figure, place, to_svg
from tests.studies.synthetic import PARAMS, falling, make_trial, results_of


def draw_svg() -> str:
    results = results_of(make_trial(PARAMS, falling(2.25)), make_trial(PARAMS, falling(2.5)))
    with look():
        figure = new_figure(600, 400)
        draw_history(place(figure, 60, 40, 500, 300), results)
        return to_svg(figure, "History & more")


def test_svg_is_well_formed_with_text() -> None:
    text = draw_svg()

    ElementTree.fromstring(text.replace("xlink:href", "href"))
    assert text.startswith("<svg viewBox=") and "<text" in text
    assert 'aria-label="History &amp; more"' in text
    ids = re.findall(r' id="([^"]+)"', text)
    assert len(ids) == len(set(ids))


def test_svg_takes_its_colours_from_the_page() -> None:
    text = draw_svg()

    assert not any(colour in text for colour in PALETTE.values())
    assert "var(--main)" in text


def test_svg_points_have_tooltips() -> None:
    assert "<title>trial 0: 2.2500, finished</title>" in draw_svg()


def test_equal_figures_have_equal_svg() -> None:
    assert draw_svg() == draw_svg()


def test_axes_are_placed_in_pixels() -> None:
    figure = new_figure(600, 400)

    ax = place(figure, 60, 40, 500, 300)

    box = ax.get_position()
    # Left, bottom, width and height as shares; the bottom margin is 400 - 40 - 300 pixels.
    assert [round(share, 6) for share in box.bounds] == [0.1, 0.15, round(500 / 600, 6), 0.75]


def test_style_does_not_change_other_figures(ax: Axes) -> None:
    before = dict(matplotlib.rcParams)
    with look():
        draw_history(ax, results_of())

    assert dict(matplotlib.rcParams) == before


def test_points_of_one_kind_share_their_style() -> None:
    text = draw_svg()

    (group,) = re.findall(r"<g[^>]*>(?:<use[^>]*><title>[^<]*</title></use>)+</g>", text)
    assert group.count("<title>trial ") == 2
    assert group.count("var(--main)") == 2  # fill and stroke, once
    assert group.startswith('<g clip-path="url(#')
