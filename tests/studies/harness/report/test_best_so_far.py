"""What a study had found after so many trials, steps and seconds."""

from __future__ import annotations

import math
from typing import Any

import pytest

from studies.harness.report.best_so_far import best_at, best_so_far
from studies.harness.report.results import Results, read_results
from tests.studies.synthetic import START, make_study, make_trial

PARAMS = {"lr": 0.1, "block_size": 3, "n_hidden": 100, "batch_size": 32}


def results_of(*trials: Any) -> Results:
    return read_results(make_study(list(trials)))


def test_the_any_time_curve_counts_trials_steps_and_seconds() -> None:
    # Two trials one after the other, then, an hour later, a third; a repeat counts nowhere.
    results = results_of(
        make_trial(PARAMS, [2.5, 2.4], at=START),
        make_trial(PARAMS, [2.6, 2.3], at=START + 2),
        make_trial(PARAMS, [2.2, 2.7], at=START + 3600),
        make_trial(PARAMS, [1.0], at=START + 1, repeat_of=0),
    )

    curve = best_so_far(results.trials, results.points)

    assert list(curve.trials) == [1, 2, 2, 2, 3, 3]
    assert list(curve.steps) == [100, 200, 300, 400, 500, 600]
    assert list(curve.seconds) == pytest.approx([1, 2, 3, 4, 5, 6])
    assert list(curve.best) == [2.5, 2.4, 2.4, 2.3, 2.2, 2.2]
    assert best_at(curve, "steps", 450) == 2.3 and math.isnan(best_at(curve, "steps", 50))


def test_trials_that_run_at_once_share_their_seconds() -> None:
    results = results_of(
        make_trial(PARAMS, [2.5, 2.4], at=START), make_trial(PARAMS, [2.3, 2.2], at=START + 0.5)
    )

    assert list(best_so_far(results.trials, results.points).seconds) == pytest.approx(
        [1, 1.5, 2, 2.5]
    )


def test_a_study_without_evaluations_has_an_empty_curve() -> None:
    results = results_of(make_trial(PARAMS, [], state="PRUNED", reason="diverged at step 3"))

    assert len(best_so_far(results.trials, results.points)) == 0
