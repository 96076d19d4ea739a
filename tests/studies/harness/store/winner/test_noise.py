"""Noise between seeds, of synthetic studies whose noise is known."""

from __future__ import annotations

import math

import pytest

from studies.harness.store.winner.noise import measure_noise
from tests.studies.synthetic import PARAMS, falling, make_study, make_trial, repeats_of


def test_noise_is_pooled_over_repeated_trials() -> None:
    study = make_study(
        [
            make_trial(PARAMS, falling(2.09)),
            make_trial(PARAMS, falling(2.10)),
            make_trial(PARAMS, falling(2.20)),
            *repeats_of(0, 2.10, 2.11, 2.12),
            *repeats_of(1, 2.10, 2.12, 2.14),
            *repeats_of(2, 2.19, 2.20, 2.21),
        ]
    )

    noise = measure_noise(study.get_trials())

    assert noise is not None
    # Variances 0.0001, 0.0004 and 0.0001 with two degrees of freedom each.
    sd = math.sqrt(0.0002)
    assert noise.sd == pytest.approx(sd)
    assert noise.freedom == 6
    # Student's t with 6 degrees of freedom is 2.4469.
    assert noise.min_difference == pytest.approx(2.4469 * sd * math.sqrt(2), rel=1e-4)
    assert [group.trial for group in noise.groups] == [0, 1, 2]
    assert [group.differs for group in noise.groups] == [False, False, True]
    assert [group.mean for group in noise.groups] == pytest.approx([2.11, 2.12, 2.20])
    margin = 2.4469 * sd / math.sqrt(3)
    assert [group.margin for group in noise.groups] == pytest.approx([margin] * 3, rel=1e-4)
    # Own losses are 0.02, 0.02 and 0.00 below the means.
    assert noise.selection_bias == pytest.approx(0.04 / 3)


def test_one_repeat_of_a_trial_gives_no_noise() -> None:
    study = make_study([make_trial(PARAMS, falling(2.1)), *repeats_of(0, 2.12)])

    assert measure_noise(study.get_trials()) is None
    assert measure_noise([]) is None


def test_only_complete_repeats_are_averaged() -> None:
    unfinished = make_trial(PARAMS, [2.9], state="FAIL", repeat_of=0)
    study = make_study([make_trial(PARAMS, falling(2.1)), *repeats_of(0, 2.10, 2.12), unfinished])

    noise = measure_noise(study.get_trials())

    assert noise is not None and noise.freedom == 1
    assert noise.groups[0].losses == (2.10, 2.12)


def test_config_with_a_diverged_repeat_is_last() -> None:
    diverged = make_trial(PARAMS, [2.9], state="PRUNED", reason="diverged at step 9", repeat_of=0)
    study = make_study(
        [
            make_trial(PARAMS, falling(2.0)),
            make_trial(PARAMS, falling(2.1)),
            *repeats_of(0, 2.0, 2.01),
            *repeats_of(1, 2.1, 2.11),
            diverged,
        ]
    )

    noise = measure_noise(study.get_trials())

    assert noise is not None
    assert [(group.trial, group.mean) for group in noise.groups] == [
        (1, pytest.approx(2.105)),
        (0, math.inf),
    ]
    assert noise.groups[1].differs
    assert math.isfinite(noise.selection_bias)
