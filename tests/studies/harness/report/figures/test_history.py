"""Best dev loss so far: by trial, and by steps or seconds."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from matplotlib.axes import Axes

from studies.harness.report.best_so_far import best_so_far
from studies.harness.report.figures.history import (
    draw_best_by_trial,
    draw_best_so_far,
    draw_history,
)
from studies.harness.report.figures.losses import loss_window
from studies.harness.report.results import Results
from tests.studies.synthetic import PARAMS, START, falling, make_trial, results_of

FOUR = [make_trial(PARAMS, falling(loss)) for loss in (2.4, 2.5, 2.2, 2.3)]


def test_best_so_far_is_a_step_line_by_trial(ax: Axes) -> None:
    draw_history(ax, results_of(*FOUR))

    (line,) = ax.lines
    assert np.array_equal(line.get_xydata(), [[0, 2.4], [1, 2.4], [2, 2.2], [3, 2.2], [3, 2.2]])
    assert ax.get_ylabel() == "dev loss (nats per character)"


@pytest.mark.parametrize("axis", ["steps", "seconds"])
def test_best_so_far_ends_at_the_best_loss(ax: Axes, axis: str) -> None:
    results = results_of(*FOUR)
    curve = best_so_far(results.trials, results.points)

    draw_best_so_far(ax, curve, axis)

    x, best = np.asarray(ax.lines[0].get_xydata()).T
    assert best[-1] == 2.2 and x[-1] == curve[axis].iloc[-1]
    # The first twentieth of the search does not set the range.
    assert ax.get_ylim()[0] < 2.2 < ax.get_ylim()[1]


# The first trials of a small study almost diverge; the others end between 2.2 and 2.3.
OUTLIERS = [make_trial(PARAMS, falling(loss)) for loss in (50.0, 40.0, 2.3, 2.25, 2.2, 2.28, 2.3)]


@pytest.mark.parametrize("axis", ["steps", "seconds"])
def test_outliers_do_not_stretch_the_best_so_far(ax: Axes, axis: str) -> None:
    results = results_of(*OUTLIERS)
    _, highest = loss_window(results.trials)

    draw_best_so_far(ax, best_so_far(results.trials, results.points), axis, highest)

    assert 2.3 < ax.get_ylim()[1] < 2.5


@pytest.mark.parametrize("draw", [draw_best_by_trial, draw_history])
def test_outliers_do_not_stretch_an_axis_of_trials(
    ax: Axes, draw: Callable[[Axes, Results], None]
) -> None:
    draw(ax, results_of(*OUTLIERS))

    assert 2.3 < ax.get_ylim()[1] < 2.5


def test_short_axis_has_different_ticks(ax: Axes) -> None:
    results = results_of(*[make_trial(PARAMS, [2.3, 2.2], at=START)] * 2)

    draw_best_so_far(ax, best_so_far(results.trials, results.points), "seconds")

    format_tick = ax.xaxis.get_major_formatter()
    texts = [format_tick(tick) for tick in ax.get_xticks()]
    assert len(set(texts)) == len(texts) > 2


def test_axis_of_seconds_names_its_start(ax: Axes) -> None:
    results = results_of(*FOUR)

    draw_best_so_far(ax, best_so_far(results.trials, results.points), "seconds")

    assert ax.get_xlabel() == "seconds of search, from the first training step"


def test_best_by_trial_is_that_of_complete_trials(ax: Axes) -> None:
    draw_best_by_trial(ax, results_of(*FOUR), noise_sd=0.01)

    lines = {line.get_label(): np.asarray(line.get_xydata()) for line in ax.lines}
    assert np.array_equal(lines["best so far"], [[1, 2.4], [2, 2.4], [3, 2.2], [4, 2.2]])
    assert lines["best + noise (1 sd)"][0, 1] == pytest.approx(2.21)


def test_best_by_trial_needs_two_losses(ax: Axes) -> None:
    draw_best_by_trial(ax, results_of(FOUR[0]))

    assert not ax.lines and ax.texts[0].get_text() == "Fewer than two trials are complete."


def test_large_study_keeps_its_best_so_far(ax: Axes, large: Results) -> None:
    draw_history(ax, large)

    assert ax.get_title() == "2,000 of 2,300 trials, and the best so far"
    assert sum(len(np.asarray(c.get_offsets())) for c in ax.collections) == 2000
    in_order = large.trials.sort_values("trial")
    best = dict(zip(in_order.trial, in_order.dev_loss.cummin(), strict=True))
    x, y = np.asarray(ax.lines[0].get_xydata()).T
    assert [best[int(number)] for number in x] == y.tolist()
    assert x[-1] == 2299
