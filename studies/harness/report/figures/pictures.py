"""PNG files of a study: history.png, importances.png, parallel.png and slices.png."""

from __future__ import annotations

import math
from pathlib import Path

from studies.harness.report.figures.history import draw_history
from studies.harness.report.figures.importances import draw_importances
from studies.harness.report.figures.losses import draw_legend
from studies.harness.report.figures.parallel import draw_parallel
from studies.harness.report.figures.slices import draw_slice
from studies.harness.report.figures.style import PALETTE, look, new_figure, place, save_png, say
from studies.harness.report.results import Results

WIDTH = 1200  # of each file, in pixels
COLUMNS = 3  # of slices.png


def write_pictures(results: Results, folder: Path) -> None:
    """Write the four PNG files; each says why if it has nothing to show."""
    with look():
        _write_history(results, folder / "history.png")
        _write_importances(results, folder / "importances.png")
        _write_parallel(results, folder / "parallel.png")
        _write_slices(results, folder / "slices.png")


def _write_history(results: Results, path: Path) -> None:
    figure = new_figure(WIDTH, 480)
    draw_history(place(figure, 90, 45, 1080, 370), results)
    save_png(figure, path)


def _write_importances(results: Results, path: Path) -> None:
    height = 46 * max(3, len(results.space))
    figure = new_figure(WIDTH, height + 110)
    draw_importances(place(figure, 150, 45, 1010, height), results)
    save_png(figure, path)


def _write_parallel(results: Results, path: Path) -> None:
    figure = new_figure(WIDTH, 520)
    draw_parallel(place(figure, 60, 70, 1090, 400), results)
    save_png(figure, path)


def _write_slices(results: Results, path: Path) -> None:
    rows = max(1, math.ceil(len(results.space) / COLUMNS))
    figure = new_figure(WIDTH, 50 + 330 * rows)
    for i, name in enumerate(results.space):
        row, column = divmod(i, COLUMNS)
        ax = place(figure, 90 + 390 * column, 50 + 330 * row, 300, 250)
        draw_slice(ax, results, name)
        if i == 0:
            draw_legend(ax, loc="lower left", bbox_to_anchor=(-0.25, 1.04))
    note = {"color": PALETTE["muted"], "ha": "right", "va": "top"}
    figure.text(0.98, 0.99, results.drawn_note(), note)
    if not results.space:
        say(place(figure, 75, 50, 1050, 250), "No parameter was searched.")
    save_png(figure, path)
