"""Parallel coordinates."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes

from studies.harness.report.figures.parallel import draw_parallel
from studies.harness.report.results import Results
from tests.studies.synthetic import PARAMS, SPACE, falling, make_trial, random_trials, results_of


def test_each_measured_trial_is_a_line(ax: Axes) -> None:
    results = results_of(*random_trials(40, lambda p: 2 + 0.5 / p["block_size"]))

    draw_parallel(ax, results)

    lines = [line for c in ax.collections for line in c.get_segments()]  # type: ignore[attr-defined]
    assert len(lines) == len(results.measured)
    assert {len(line) for line in lines} == {len(SPACE) + 1}
    names = [text.get_text() for text in ax.texts if text.get_fontweight() == "bold"]
    assert names == [*results.importances, "dev loss"]


def test_best_trial_ends_at_the_bottom(ax: Axes) -> None:
    trials = [make_trial(PARAMS, falling(2.1 + 0.1 * i)) for i in range(4)]
    trials.append(make_trial(PARAMS, [9.0], state="PRUNED"))

    draw_parallel(ax, results_of(*trials))

    lines = [line for c in ax.collections for line in c.get_segments()]  # type: ignore[attr-defined]
    ends = np.array([line[-1, 1] for line in lines])
    assert ends[-1] == 0
    # A loss above the range ends just above the axis.
    assert ends[0] == ends.max() == 1.03


def test_one_trial_is_too_few(ax: Axes) -> None:
    draw_parallel(ax, results_of(make_trial(PARAMS, falling(2.2))))

    assert not ax.collections and "1 measured trials" in ax.texts[0].get_text()


def test_large_study_draws_four_hundred_lines(ax: Axes, large: Results) -> None:
    draw_parallel(ax, large)

    lines = [line for c in ax.collections for line in c.get_segments()]  # type: ignore[attr-defined]
    assert len(lines) == 400
    assert ax.get_title() == "Parameters and dev loss of 400 of 2,300 trials"
    winner = np.asarray(ax.lines[0].get_xydata())
    assert winner[-1, 1] == 0 and np.array_equal(lines[-1], winner)
