"""Rank correlations of early losses, and verdicts on the pruner."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from optuna.pruners import BasePruner, MedianPruner, NopPruner, SuccessiveHalvingPruner

from studies.harness.report.judge.pruning import (
    judge_pruning,
    losses_at,
    rank_correlations,
    share_interval,
    spearman,
)
from studies.harness.report.judge.ranges import N_BEST
from tests.studies.harness.report.judge.replay import (
    FIVE,
    WIDE,
    lost_of_best,
    read_curves,
    replay,
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


# ---- verdicts on pruners that were replayed over real curves

MEDIAN = MedianPruner(n_startup_trials=5, n_warmup_steps=0)
HALVING = SuccessiveHalvingPruner(min_resource=4, reduction_factor=4)  # from 20% of the steps


@pytest.mark.parametrize(("share", "seed"), [(0.1, 0), (0.1, 1), (0.2, 0), (0.2, 1)])
def test_pruner_that_loses_the_best_is_harmful(share: float, seed: int) -> None:
    trials = replay(read_curves(FIVE), MEDIAN, share, seed)
    assert lost_of_best(trials, 20) >= 14

    pruning = judge_pruning(trials)

    assert pruning.verdict == "harmful" and pruning.may_hide_best
    assert pruning.sentence.endswith("The pruner is harmful; search with --no-prune.")
    assert pruning.lost is not None
    assert pruning.lost.low <= lost_of_best(trials, 5) <= 5
    assert pruning.lost.high <= 5


def test_no_pruning_gives_no_verdict() -> None:
    pruning = judge_pruning(replay(read_curves(FIVE), NopPruner(), 0.1))

    assert (pruning.verdict, pruning.sentence) == ("none", "No trial was pruned.")
    assert not pruning.may_hide_best


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_halving_on_averaged_weights_is_not_harmful(seed: int) -> None:
    curves = read_curves(FIVE, "average")
    few, many = (judge_pruning(replay(curves, HALVING, share, seed)) for share in (0.1, 0.6))

    assert (few.verdict, many.verdict) == ("unknown", "fair")
    assert few.sentence.endswith(
        "These are too few audits to judge the pruner; audit more trials with --audit-pruning 0.5, "
        "or search with --no-prune."
    )
    assert many.sentence.endswith("The pruner is fair.")


@pytest.mark.parametrize("path", [FIVE, WIDE], ids=lambda path: path.stem)
@pytest.mark.parametrize("pruner", [MEDIAN, HALVING], ids=["median", "halving"])
@pytest.mark.parametrize("kind", ["dev", "average"])
def test_verdict_never_contradicts_the_whole_curves(
    path: Path, pruner: BasePruner, kind: str
) -> None:
    for share in (0.05, 0.2, 0.5):
        trials = replay(read_curves(path, kind), pruner, share)
        pruning = judge_pruning(trials)
        lost = lost_of_best(trials, N_BEST)
        if pruning.verdict == "harmful":
            assert lost >= 1
        if pruning.verdict == "fair":
            assert lost < N_BEST / 2


# ---- the numbers of a verdict


def trials_with(audited: list[float], others: list[float], n_pruned: int) -> pd.DataFrame:
    """Return the trials of a study: final losses of audited and of other complete trials."""
    trials = [make_trial(PARAMS, falling(loss), audited=200) for loss in audited]
    trials += [make_trial(PARAMS, falling(loss)) for loss in others]
    trials += [make_trial(PARAMS, [2.0], state="PRUNED")] * n_pruned
    return results_of(*trials).trials


def test_only_audited_trials_decide() -> None:
    others = [2.2 + 0.01 * i for i in range(12)]

    # Pruned trials had the lowest losses when they were stopped. That says nothing about their end.
    pruning = judge_pruning(trials_with([2.1, 2.15, 2.5, 2.6], others, n_pruned=36))

    assert (pruning.n_pruned, pruning.n_audited, pruning.n_best) == (36, 4, 2)
    assert pruning.rate is not None and pruning.rate.estimate == 0.5
    # 18 hidden trials and the best five: each of the 23 is equally likely to be among the best.
    assert pruning.lost is not None and pruning.lost.estimate == pytest.approx(5 * 18 / 23)
    assert pruning.sentence == (
        "2 of 4 audited trials ended among the best 5 (95% interval 7% to 93%), so pruning 36 "
        "trials lost about 4 of the best 5 (2 to 4). The pruner is harmful; search with "
        "--no-prune."
    )


def test_interval_is_that_of_clopper_and_pearson() -> None:
    interval = share_interval(2, 10)

    # A rate at an end of the interval gives as many, or as few, in 2.5% of the cases.
    at_least = 1 - (1 - interval.low) ** 10 - 10 * interval.low * (1 - interval.low) ** 9
    at_most = sum(
        math.comb(10, k) * interval.high**k * (1 - interval.high) ** (10 - k) for k in range(3)
    )
    assert (at_least, at_most) == (pytest.approx(0.025), pytest.approx(0.025))
    assert (share_interval(0, 3).low, share_interval(3, 3).high) == (0, 1)


def test_without_audits_nothing_is_known() -> None:
    pruning = judge_pruning(trials_with([], [2.2 + 0.01 * i for i in range(12)], n_pruned=20))

    assert pruning.verdict == "unknown" and pruning.may_hide_best
    assert pruning.rate is pruning.lost is None
    assert pruning.sentence.startswith(
        "It is unknown whether the pruner stops good trials: none of the 20 that it stopped was "
        "audited; audit more trials with --audit-pruning 0.5"
    )


def test_best_five_of_few_trials_are_nothing_special() -> None:
    pruning = judge_pruning(trials_with([2.1, 2.1], [2.2] * 4, n_pruned=20))

    assert pruning.verdict == "unknown"
    assert "6 complete trials, and at least 10 are needed (audited: 2)" in pruning.sentence


def test_trials_that_could_not_train_were_not_pruned() -> None:
    others = [make_trial(PARAMS, falling(2.2 + 0.01 * i)) for i in range(12)]
    diverged = make_trial(PARAMS, [2.4], state="PRUNED", reason="diverged at step 150", audited=100)
    too_large = make_trial(PARAMS, [], state="PRUNED", reason="out of memory")

    pruning = judge_pruning(results_of(*others, diverged, too_large).trials)

    # The pruner wanted to stop the diverged trial, which did not end among the best.
    assert (pruning.n_pruned, pruning.n_audited, pruning.n_best) == (0, 1, 0)


def test_finished_trial_is_no_survivor() -> None:
    trials = [make_trial(PARAMS, falling(2.2 + 0.01 * i)) for i in range(12)]
    trials.append(make_trial(PARAMS, [2.1], state="PRUNED"))
    trials.append(make_trial(PARAMS, falling(2.0), finishes=12))

    pruning = judge_pruning(results_of(*trials).trials)

    assert (pruning.n_trials, pruning.n_complete, pruning.n_pruned) == (13, 12, 1)
