"""Training curves, best steps, and rank correlations."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes

from studies.harness.report.figures.training import (
    draw_best_steps,
    draw_rank_correlation,
    draw_training,
)
from studies.harness.report.judge.pruning import rank_correlations
from studies.harness.report.results import Results
from tests.studies.synthetic import PARAMS, falling, make_trial, repeats_of, results_of


def test_each_searched_trial_has_a_curve(ax: Axes) -> None:
    results = results_of(
        make_trial(PARAMS, falling(2.2)),
        make_trial(PARAMS, falling(2.1)),
        make_trial(PARAMS, [2.9, 2.8], state="PRUNED"),
        *repeats_of(1, 2.15),
    )

    draw_training(ax, results)

    curves = {c.get_label(): c.get_segments() for c in ax.collections}  # type: ignore[attr-defined]
    assert {name: len(lines) for name, lines in curves.items()} == {
        "pruned": 1,
        "complete": 1,
        "trial 1, the winner": 1,
    }
    (pruned,) = curves["pruned"]
    assert pruned.tolist() == [[100, 2.9], [200, 2.8]]


def test_outliers_do_not_stretch_the_training_curves(ax: Axes) -> None:
    good = [make_trial(PARAMS, falling(2.1 + 0.01 * i)) for i in range(10)]
    almost_diverged = [make_trial(PARAMS, falling(50.0))] * 4

    draw_training(ax, results_of(*good, *almost_diverged))

    # The curves of the good trials begin at 2.7.
    assert ax.get_ylim()[1] < 3


def test_early_outliers_do_not_stretch_the_rank_correlation(ax: Axes) -> None:
    trials = [make_trial(PARAMS, falling(2.1 + 0.01 * i)) for i in range(10)]
    trials.append(make_trial(PARAMS, [50.0] * 6 + [2.15] * 4))
    results = results_of(*trials)
    quarter, _ = rank_correlations(results.trials, results.points, 1000)

    draw_rank_correlation(ax, results, quarter)

    assert ax.get_xlim()[1] < 3 and ax.get_ylim()[1] < 3


def test_failed_trials_alone_have_no_training_curve(ax: Axes) -> None:
    draw_training(ax, results_of(make_trial(PARAMS, falling(2.2), state="FAIL")))

    assert ax.texts[0].get_text() == "Nothing was evaluated yet."


def test_late_best_steps_are_highlighted(ax: Axes) -> None:
    early = [*falling(2.2)[:5], *[3.0] * 5]
    early[2] = 2.0
    results = results_of(*[make_trial(PARAMS, falling(2.2))] * 3, make_trial(PARAMS, early))

    draw_best_steps(ax, results, 1000)

    bars = {bar.get_x(): bar.get_height() for bar in ax.patches}  # type: ignore[attr-defined]
    drawn = {round(x, 1): height for x, height in bars.items() if height}
    # The best steps are 300 and 1000; a bar ends at its step.
    assert drawn == {0.2: 1, 0.9: 3}
    (highlighted,) = ax.get_legend().get_texts()  # type: ignore[union-attr]
    assert highlighted.get_text() == "in the last quarter"


def test_rank_correlation_is_in_the_title(ax: Axes) -> None:
    results = results_of(*[make_trial(PARAMS, falling(2.1 + 0.01 * i)) for i in range(10)])
    quarter, _ = rank_correlations(results.trials, results.points, 1000)

    draw_rank_correlation(ax, results, quarter)

    assert ax.get_title() == "rank correlation 1.00"
    (points,) = ax.collections
    early, final = np.asarray(points.get_offsets()).T
    assert list(early) == sorted(early) and list(final) == sorted(final)


def test_large_study_draws_four_hundred_curves(ax: Axes, large: Results) -> None:
    draw_training(ax, large)

    curves = [line for c in ax.collections for line in c.get_segments()]  # type: ignore[attr-defined]
    assert len(curves) == 400 and {len(curve) for curve in curves} == {2}


def test_best_steps_count_all_trials_of_a_large_study(ax: Axes, large: Results) -> None:
    draw_best_steps(ax, large, max_steps=1000)

    assert sum(bar.get_height() for bar in ax.patches) == len(large.complete)  # type: ignore[attr-defined]
