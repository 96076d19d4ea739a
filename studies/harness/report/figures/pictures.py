"""Pictures of a study: the PNG files of its MLflow run, and those of a notebook."""

from __future__ import annotations

import math
from pathlib import Path

from matplotlib.figure import Figure

from studies.harness.report.figures.history import draw_history
from studies.harness.report.figures.importances import draw_importances
from studies.harness.report.figures.losses import draw_legend
from studies.harness.report.figures.parallel import draw_parallel
from studies.harness.report.figures.slices import draw_slice
from studies.harness.report.figures.style import PALETTE, look, new_figure, place, save_png, say
from studies.harness.report.figures.training import draw_training
from studies.harness.report.results import Results

WIDTH = 1200  # of each picture, in pixels
COLUMNS = 3  # of slices.png


def write_pictures(results: Results, folder: Path) -> None:
    """Write history.png, importances.png, parallel.png and slices.png.

    A picture says why if it has nothing to show.
    """
    with look():
        for draw in (history, importances, parallel, slices):
            save_png(draw(results), folder / f"{draw.__name__}.png")


# ---- one picture each; call them within `look()`


def history(results: Results) -> Figure:
    """Draw the dev loss of each trial by its number, and the best so far."""
    figure = new_figure(WIDTH, 480)
    draw_history(place(figure, 90, 45, 1080, 370), results)
    return figure


def importances(results: Results) -> Figure:
    """Draw a bar for the importance of each parameter."""
    height = 46 * max(3, len(results.space))
    figure = new_figure(WIDTH, height + 110)
    draw_importances(place(figure, 150, 45, 1010, height), results)
    return figure


def parallel(results: Results) -> Figure:
    """Draw a line for each trial through its parameters to its dev loss."""
    figure = new_figure(WIDTH, 520)
    draw_parallel(place(figure, 60, 70, 1090, 400), results)
    return figure


def slices(results: Results) -> Figure:
    """Draw the dev loss by each parameter."""
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
    return figure


def curves(results: Results) -> Figure:
    """Draw the dev loss of each trial by training step."""
    figure = new_figure(WIDTH, 480)
    draw_training(place(figure, 90, 45, 1080, 370), results)
    return figure
