"""Range of losses, markers by outcome, and colours by rank."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes

from studies.harness.report.figures.losses import (
    color_levels,
    draw_losses,
    jitter,
    loss_window,
    tooltip,
)
from tests.studies.synthetic import PARAMS, falling, make_trial, results_of


def test_pruned_trials_do_not_widen_the_window() -> None:
    trials = [make_trial(PARAMS, falling(2.1 + 0.01 * i)) for i in range(5)]
    trials += [make_trial(PARAMS, [4.0 + i], state="PRUNED") for i in range(20)]

    low, high = loss_window(results_of(*trials).trials)

    assert low == 2.1 and 2.14 <= high < 2.2


def test_complete_outliers_do_not_widen_the_window() -> None:
    good = [make_trial(PARAMS, falling(2.1 + 0.01 * i)) for i in range(11)]
    almost_diverged = [make_trial(PARAMS, falling(50.0))] * 5

    low, high = loss_window(results_of(*good, *almost_diverged).trials)

    # A little above 2.2, the highest of the others.
    assert low == 2.1 and 2.2 < high < 2.23


def test_window_of_no_losses_is_finite() -> None:
    assert loss_window(results_of().trials) == (0.0, 1.0)


def test_each_outcome_has_its_marker(ax: Axes) -> None:
    trials = results_of(
        make_trial(PARAMS, falling(2.1)),
        make_trial(PARAMS, falling(2.2)),
        make_trial(PARAMS, [2.15], state="PRUNED"),
        make_trial(PARAMS, [9.0], state="PRUNED"),
        make_trial(PARAMS, [], state="PRUNED", reason="diverged at step 9"),
        make_trial(PARAMS, [], state="FAIL"),
    ).trials

    draw_losses(ax, trials, trials.trial.to_numpy(float))

    points = {c.get_label(): np.asarray(c.get_offsets()) for c in ax.collections}
    assert set(points) == {"complete", "pruned", "above the range", "diverged"}
    assert points["complete"].tolist() == [[0, 2.1], [1, 2.2]]
    assert points["pruned"].tolist() == [[2, 2.15]]
    # Both are marked at the top, above each complete trial.
    assert points["above the range"][0, 1] == points["diverged"][0, 1] > 2.2


def test_tooltip_names_trial_loss_and_reason() -> None:
    trials = results_of(
        make_trial(PARAMS, falling(2.25)), make_trial(PARAMS, [], state="FAIL")
    ).trials

    assert [tooltip(row) for row in trials.to_dict("records")] == [
        "trial 0: 2.2500, finished",
        "trial 1: engine failed",
    ]


def test_jitter_is_small_and_differs_by_trial() -> None:
    trials = results_of(*[make_trial(PARAMS, falling(2.2))] * 20).trials

    offsets = jitter(trials, 0.03)

    assert np.abs(offsets).max() <= 0.015 and len(set(offsets)) == 20


def test_best_tenth_has_the_strongest_colour() -> None:
    levels = color_levels(100)

    assert list(levels) == sorted(levels)
    assert np.bincount(levels).tolist() == [20, 30, 25, 15, 10]
