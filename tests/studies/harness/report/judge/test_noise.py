"""Noise floor and ties of synthetic studies whose noise is known."""

from __future__ import annotations

import math

import pytest

from studies.harness.report.judge.noise import measure_noise, tied_trials
from tests.studies.synthetic import PARAMS, falling, make_trial, repeats_of, results_of


def test_noise_is_pooled_over_repeated_trials() -> None:
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
    sd = math.sqrt(0.0002)
    assert noise.sd == pytest.approx(sd)
    assert noise.freedom == 6
    # Student's t with 6 degrees of freedom is 2.4469.
    assert noise.min_difference == pytest.approx(2.4469 * sd * math.sqrt(2), rel=1e-4)
    assert list(noise.groups.trial) == [0, 1, 2]
    assert list(noise.groups.differs) == [False, False, True]
    assert list(noise.groups.behind) == pytest.approx([0.0, 0.01, 0.09])
    assert list(noise.groups.margin) == pytest.approx([2.4469 * sd / math.sqrt(3)] * 3, rel=1e-4)
    # Own losses are 0.02, 0.02 and 0.00 below the means.
    assert noise.selection_bias == pytest.approx(0.04 / 3)
    assert noise.best["mean"] == pytest.approx(2.11)


def test_one_repeat_of_a_trial_gives_no_noise() -> None:
    results = results_of(make_trial(PARAMS, falling(2.1)), *repeats_of(0, 2.12))

    assert measure_noise(results.trials, results.repeats) is None
    assert measure_noise(results.trials, results.repeats[:0]) is None


def test_incomplete_repeat_does_not_count() -> None:
    pruned = make_trial(PARAMS, [2.9], state="PRUNED", repeat_of=0)
    results = results_of(make_trial(PARAMS, falling(2.1)), *repeats_of(0, 2.10, 2.12), pruned)

    noise = measure_noise(results.trials, results.repeats)

    assert noise is not None and noise.freedom == 1


def test_smallest_tied_model_comes_first() -> None:
    trials = [make_trial(PARAMS, falling(loss)) for loss in (2.10, 2.105, 2.30)]
    trials.append(make_trial(PARAMS, [2.101], state="PRUNED"))
    small = trials[1].user_attrs["summary"]
    trials[1].set_user_attr("summary", {**small, "metrics": {**small["metrics"], "n_params": 10}})
    results = results_of(*trials, *repeats_of(0, 2.10, 2.11, 2.12))

    noise = measure_noise(results.trials, results.repeats)

    assert list(tied_trials(results.trials, noise).trial) == [1, 0]
    # Without a noise floor only the best is known.
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
