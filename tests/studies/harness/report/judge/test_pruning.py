"""What early losses foretell, and what pruning cost."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from studies.harness.report.judge.pruning import judge_pruning, predict_ends, spearman
from studies.harness.report.results import Results, read_results
from tests.studies.synthetic import falling, make_study, make_trial

PARAMS = {"lr": 0.1, "block_size": 3, "n_hidden": 100, "batch_size": 32}


def results_of(*trials: Any) -> Results:
    return read_results(make_study(list(trials)))


def test_rank_correlation_is_spearmans_with_shared_ranks() -> None:
    assert spearman(np.array([1.0, 2.0, 3.0]), np.array([10.0, 20.0, 90.0])) == pytest.approx(1)
    assert spearman(np.array([1.0, 2.0, 3.0]), np.array([3.0, 2.0, 1.0])) == pytest.approx(-1)
    # Ranks 1, 2.5, 2.5, 4 against 1, 2, 3, 4: 4.5 / sqrt(4.5 * 5).
    assert spearman(np.array([0, 1, 1, 2]), np.array([0, 1, 2, 3])) == pytest.approx(
        4.5 / math.sqrt(22.5)
    )
    assert math.isnan(spearman(np.ones(3), np.arange(3)))


def test_half_way_losses_foretell_the_end_and_quarter_way_ones_do_not() -> None:
    rng, trials = np.random.default_rng(0), []
    for i in range(20):
        curve = (
            [2.5 + rng.normal(0, 0.1) for _ in range(4)] + [2.2 + 0.01 * i] * 5 + [2.1 + 0.01 * i]
        )
        trials.append(make_trial(PARAMS, curve))
    results = results_of(*trials)

    quarter, half = predict_ends(results.trials, results.points, 1000)

    assert (quarter.step, half.step) == (
        200,
        500,
    )  # the last evaluations up to a quarter and half of the steps
    assert abs(quarter.correlation) < 0.5 and half.correlation == pytest.approx(1)
    assert quarter.n == half.n == 20


def test_pruning_that_stops_what_would_have_won_is_called_too_eager() -> None:
    # From half-way to the end each trial falls by 0.1, give or take 0.001.
    rng = np.random.default_rng(1)

    def trial(half: float, **more: Any) -> Any:
        curve = [3.0, 2.8, 2.6, 2.5, half]
        return make_trial(
            PARAMS,
            curve if more else [*curve, *[half] * 4, half - 0.1 + rng.normal(0, 0.001)],
            **more,
        )

    complete = [trial(2.30 + 0.01 * i) for i in range(12)]
    good, bad = [trial(2.28, state="PRUNED")] * 3, [trial(2.60, state="PRUNED")] * 4
    diverged = make_trial(PARAMS, [], state="PRUNED", reason="diverged at step 3")
    results = results_of(*complete, *good, *bad, diverged)

    found = judge_pruning(results.trials, results.points)

    assert found.pruned == 7 and found.wrongly == pytest.approx(3, abs=0.01)
    assert found.worst == [12, 13, 14] and "too eager" in found.sentence

    fair = judge_pruning(results.trials[~results.trials.trial.isin(found.worst)], results.points)
    assert fair.wrongly == pytest.approx(0, abs=0.01) and "fair" in fair.sentence


def test_pruning_is_not_judged_without_complete_trials() -> None:
    results = results_of(
        make_trial(PARAMS, falling(2.1)), make_trial(PARAMS, [2.9], state="PRUNED")
    )

    assert math.isnan(judge_pruning(results.trials, results.points).wrongly)
    assert judge_pruning(results.trials[:1], results.points).sentence == "No trial was pruned."
