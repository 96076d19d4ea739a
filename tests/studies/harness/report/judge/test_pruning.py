"""Rank correlations of early losses, and verdicts on the pruner."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from optuna.trial import FrozenTrial

from studies.harness.report.judge.pruning import (
    judge_pruning,
    losses_at,
    rank_correlations,
    spearman,
)
from tests.studies.synthetic import PARAMS, falling, make_trial, results_of


def test_spearman_shares_ranks_of_equal_values() -> None:
    assert spearman(np.array([1.0, 2.0, 3.0]), np.array([10.0, 20.0, 90.0])) == pytest.approx(1)
    assert spearman(np.array([1.0, 2.0, 3.0]), np.array([3.0, 2.0, 1.0])) == pytest.approx(-1)
    # Ranks 1, 2.5, 2.5, 4 and 1, 2, 3, 4: 4.5 / sqrt(4.5 * 5).
    tied = spearman(np.array([0, 1, 1, 2]), np.array([0, 1, 2, 3]))
    assert tied == pytest.approx(4.5 / math.sqrt(22.5))
    # A constant side has no ranking.
    assert math.isnan(spearman(np.ones(3), np.arange(3)))


def test_losses_are_those_of_the_last_evaluated_step() -> None:
    results = results_of(make_trial(PARAMS, falling(2.1)), make_trial(PARAMS, [2.9]))

    step, losses = losses_at(results.points, 250)

    assert step == 200
    assert dict(losses) == {0: pytest.approx(2.1 + 0.5 * 0.6)}
    assert losses_at(results.points, 50)[0] == 0


def test_half_way_losses_predict_the_end() -> None:
    rng = np.random.default_rng(0)
    trials = []
    for i in range(20):
        random_part = [2.5 + rng.normal(0, 0.1) for _ in range(4)]
        ranked_part = [2.2 + 0.01 * i] * 5 + [2.1 + 0.01 * i]
        trials.append(make_trial(PARAMS, random_part + ranked_part))
    results = results_of(*trials)

    quarter, half = rank_correlations(results.trials, results.points, 1000)

    # The last evaluations up to a quarter and up to half of the steps.
    assert (quarter.step, half.step) == (200, 500)
    assert abs(quarter.correlation) < 0.5
    assert half.correlation == pytest.approx(1)
    assert quarter.n == half.n == 20


def test_two_trials_have_no_rank_correlation() -> None:
    results = results_of(*[make_trial(PARAMS, falling(2.1 + i)) for i in range(2)])

    quarter, _ = rank_correlations(results.trials, results.points, 1000)

    assert math.isnan(quarter.correlation) and quarter.n == 2


def test_pruner_that_stops_likely_winners_is_too_eager() -> None:
    # From half-way to the end each trial falls by 0.1, with a scatter of 0.001.
    rng = np.random.default_rng(1)

    def trial(half_way: float, **more: Any) -> FrozenTrial:
        curve = [3.0, 2.8, 2.6, 2.5, half_way]
        if not more:
            curve += [half_way] * 4 + [half_way - 0.1 + rng.normal(0, 0.001)]
        return make_trial(PARAMS, curve, **more)

    complete = [trial(2.30 + 0.01 * i) for i in range(12)]
    good = [trial(2.28, state="PRUNED")] * 3
    bad = [trial(2.60, state="PRUNED")] * 4
    diverged = make_trial(PARAMS, [], state="PRUNED", reason="diverged at step 3")
    results = results_of(*complete, *good, *bad, diverged)

    pruning = judge_pruning(results.trials, results.points)

    assert pruning.verdict == "too eager"
    assert pruning.n_pruned == 7
    assert pruning.n_wrong == pytest.approx(3, abs=0.01)
    assert pruning.likely_wrong == [12, 13, 14]
    assert pruning.sentence == (
        "About 3 of 7 pruned trials would have ended among the best 5 (estimated from 12 complete "
        "trials): the pruner is too eager; prune later, or search with --no-prune."
    )

    rest = results.trials[~results.trials.trial.isin(pruning.likely_wrong)]
    fair = judge_pruning(rest, results.points)
    assert fair.verdict == "fair"
    assert fair.n_wrong == pytest.approx(0, abs=0.01)
    assert fair.sentence.startswith("Fewer than one of 4 pruned trials")
    assert fair.sentence.endswith("the pruner is fair.")


def test_pruner_is_not_judged_without_complete_trials() -> None:
    results = results_of(
        make_trial(PARAMS, falling(2.1)), make_trial(PARAMS, [2.9], state="PRUNED")
    )

    unknown = judge_pruning(results.trials, results.points)
    assert unknown.verdict == "unknown" and math.isnan(unknown.n_wrong)
    none = judge_pruning(results.trials[:1], results.points)
    assert (none.verdict, none.sentence) == ("none", "No trial was pruned.")
