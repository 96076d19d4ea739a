"""Best dev loss so far, against steps and seconds."""

from __future__ import annotations

import math
from collections.abc import Callable

import pandas as pd
import pytest

from studies.harness.report.best_so_far import best_at, best_so_far
from studies.harness.report.results import Results, read_results
from studies.harness.store.study import load_study
from tests.studies.synthetic import PARAMS, START, make_trial, results_of


def curve_of(results: Results) -> pd.DataFrame:
    return best_so_far(results.trials, results.points)


def test_curve_counts_steps_and_seconds() -> None:
    results = results_of(
        make_trial(PARAMS, [2.5, 2.4], at=START),
        make_trial(PARAMS, [2.6, 2.3], at=START + 2),
        # An hour without a trial is not search.
        make_trial(PARAMS, [2.2, 2.7], at=START + 3600),
        # Seed repeats do not count.
        make_trial(PARAMS, [1.0], at=START + 1, repeat_of=0),
    )

    curve = curve_of(results)

    assert list(curve.steps) == [100, 200, 300, 400, 500, 600]
    assert list(curve.seconds) == pytest.approx([1, 2, 3, 4, 5, 6])
    assert list(curve.best) == [2.5, 2.4, 2.4, 2.3, 2.2, 2.2]
    assert best_at(curve, "steps", 450) == 2.3
    assert math.isnan(best_at(curve, "steps", 50))


def test_parallel_trials_share_their_seconds() -> None:
    results = results_of(
        make_trial(PARAMS, [2.5, 2.4], at=START),
        make_trial(PARAMS, [2.3, 2.2], at=START + 0.5),
    )

    assert list(curve_of(results).seconds) == pytest.approx([1, 1.5, 2, 2.5])


def test_seconds_start_at_first_training_step() -> None:
    # The kernel compiles for 9 s after the first trial of each launch has started.
    results = results_of(
        make_trial(PARAMS, [2.5, 2.4], at=START, compiled=9),
        make_trial(PARAMS, [2.6, 2.3], at=START + 9),
        make_trial(PARAMS, [2.2, 2.1], at=START + 3600, compiled=9),
    )

    assert list(curve_of(results).seconds) == pytest.approx([1, 1, 2, 2, 3, 4])


def test_first_trial_alone_sets_the_clock_of_a_launch() -> None:
    # Trial 1 waits for 2 s before its first step, while trial 0 trains.
    results = results_of(
        make_trial(PARAMS, [2.5] * 4, at=START, compiled=9),
        make_trial(PARAMS, [2.4], at=START + 9, compiled=2),
    )

    assert list(curve_of(results).seconds) == pytest.approx([1, 2, 3, 3, 4])


def test_compile_time_of_diverged_trial_is_not_search() -> None:
    # Each trains for 3 s: one without an evaluation, one until 2 s after its evaluation.
    without = make_trial(PARAMS, [], state="PRUNED", reason="diverged at step 30", at=START)
    late = make_trial(
        PARAMS, [2.9], state="PRUNED", reason="diverged at step 300", at=START + 100, compiled=9
    )
    summary = without.user_attrs["summary"]
    metrics = {"seconds": 3.0, "n_params": 1000}
    without.set_user_attr("summary", {**summary, "metrics": metrics, "ended": START + 12})
    summary = late.user_attrs["summary"]
    metrics = {**metrics, "diverged_step": 300}
    late.set_user_attr("summary", {**summary, "metrics": metrics, "ended": START + 112})
    after = make_trial(PARAMS, [2.5], at=START + 200)

    assert list(curve_of(results_of(without, late, after)).seconds) == pytest.approx([4, 7])


def test_real_study_has_no_seconds_before_its_training(launch: Callable[..., int]) -> None:
    launch(trials=2, prune=False, workers=1)
    results = read_results(load_study("small", None))

    seconds = curve_of(results).seconds

    # With one slot, the search takes less than the sum of the trials' wall times.
    wall = (results.trials.ended - results.trials.started).sum()
    assert 0 < seconds.iloc[0]
    assert seconds.is_monotonic_increasing
    assert seconds.iloc[-1] <= wall


def test_study_without_evaluations_has_empty_curve() -> None:
    results = results_of(make_trial(PARAMS, [], state="PRUNED", reason="diverged at step 3"))

    assert len(curve_of(results)) == 0
