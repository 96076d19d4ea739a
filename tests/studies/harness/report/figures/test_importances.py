"""Bars of the importances."""

from __future__ import annotations

from matplotlib.axes import Axes

from studies.harness.report.figures.importances import draw_importances
from tests.studies.synthetic import PARAMS, SPACE, falling, make_trial, random_trials, results_of


def test_most_important_parameter_is_on_top(ax: Axes) -> None:
    draw_importances(ax, results_of(*random_trials(60, lambda p: 2 + 0.5 / p["block_size"])))

    widths = [bar.get_width() for bar in ax.patches]  # type: ignore[attr-defined]
    assert widths == sorted(widths) and len(widths) == len(SPACE)
    assert [tick.get_text() for tick in ax.get_yticklabels()][-1] == "block_size"


def test_too_few_trials_are_reported(ax: Axes) -> None:
    draw_importances(ax, results_of(make_trial(PARAMS, falling(2.2))))

    assert not ax.patches and "ten are needed" in ax.texts[0].get_text()
