"""The noise floor and ties, on made-up studies whose noise is known."""

from __future__ import annotations

import math
from typing import Any

import pytest

from studies.harness.report.judge.noise import measure_noise, tied_trials
from studies.harness.report.results import Results, read_results
from tests.studies.synthetic import falling, make_study, make_trial

PARAMS = {"lr": 0.1, "block_size": 3, "n_hidden": 100, "batch_size": 32}


def results_of(*trials: Any) -> Results:
    return read_results(make_study(list(trials)))


def repeats_of(number: int, *losses: float) -> list[Any]:
    return [make_trial(PARAMS, falling(loss), repeat_of=number) for loss in losses]


def test_the_noise_floor_is_pooled_over_the_repeats_and_tells_what_differs() -> None:
    results = results_of(
        make_trial(PARAMS, falling(2.09)),
        make_trial(PARAMS, falling(2.10)),
        make_trial(PARAMS, falling(2.20)),
        *repeats_of(0, 2.10, 2.11, 2.12),
        *repeats_of(1, 2.10, 2.12, 2.14),
        *repeats_of(2, 2.19, 2.20, 2.21),
    )

    noise = measure_noise(results.trials, results.repeats)

    assert noise is not None
    # Variances 0.0001, 0.0004 and 0.0001 with two degrees of freedom each.
    assert noise.sd == pytest.approx(math.sqrt(0.0002)) and noise.freedom == 6
    assert noise.smallest == pytest.approx(2.4469 * math.sqrt(0.0002) * math.sqrt(2), rel=1e-4)
    assert list(noise.groups.trial) == [0, 1, 2] and list(noise.groups.differs) == [
        False,
        False,
        True,
    ]
    assert list(noise.groups.behind) == pytest.approx([0.0, 0.01, 0.09])
    # Own losses lie 0.02, 0.02 and 0.00 below the means.
    assert noise.curse == pytest.approx(0.04 / 3)
    assert noise.best["mean"] == pytest.approx(2.11)


def test_without_two_repeats_of_one_trial_there_is_no_noise_floor() -> None:
    results = results_of(make_trial(PARAMS, falling(2.1)), *repeats_of(0, 2.12))

    assert measure_noise(results.trials, results.repeats) is None
    assert measure_noise(results.trials, results.repeats[:0]) is None


def test_a_repeat_that_did_not_end_does_not_count() -> None:
    pruned = make_trial(PARAMS, [2.9], state="PRUNED", repeat_of=0)
    results = results_of(make_trial(PARAMS, falling(2.1)), *repeats_of(0, 2.10, 2.12), pruned)

    noise = measure_noise(results.trials, results.repeats)

    assert noise is not None and noise.freedom == 1


def test_trials_within_the_noise_are_tied_and_the_smallest_model_stands_first() -> None:
    trials = [make_trial(PARAMS, falling(loss)) for loss in (2.10, 2.105, 2.30)]
    trials.append(make_trial(PARAMS, [2.101], state="PRUNED"))
    small = trials[1].user_attrs["summary"]
    trials[1].set_user_attr("summary", {**small, "metrics": {**small["metrics"], "n_params": 10}})
    results = results_of(*trials, *repeats_of(0, 2.10, 2.11, 2.12))

    noise = measure_noise(results.trials, results.repeats)

    assert list(tied_trials(results.trials, noise).trial) == [1, 0]
    assert list(tied_trials(results.trials, None).trial) == [0]
    assert len(tied_trials(results.trials[:0], noise)) == 0


def test_repeats_that_differ_break_a_tie() -> None:
    results = results_of(
        make_trial(PARAMS, falling(2.100)),
        make_trial(PARAMS, falling(2.101)),
        *repeats_of(0, 2.100, 2.101, 2.102),
        *repeats_of(1, 2.180, 2.181, 2.182),
    )

    noise = measure_noise(results.trials, results.repeats)

    assert list(tied_trials(results.trials, noise).trial) == [0]
