"""Verdicts on the step budget of synthetic studies."""

from __future__ import annotations

import pytest

from studies.harness.report.judge.budget import Budget, judge_budget
from studies.harness.report.results import Results, read_results
from tests.studies.synthetic import (
    PARAMS,
    falling,
    make_study,
    make_trial,
    random_trials,
    results_of,
)


def judge(results: Results, noise_sd: float | None = None) -> Budget:
    return judge_budget(results.trials, results.points, 1000, noise_sd)


def falling_trials(n: int = 8) -> Results:
    return results_of(*[make_trial(PARAMS, falling(2.1 + 0.01 * i)) for i in range(n)])


def test_falling_losses_need_more_steps() -> None:
    budget = judge(falling_trials())

    assert budget.verdict == "lengthen"
    assert budget.late == 1
    assert budget.early == 0
    # At 700 of 1000 steps the loss was 0.5 * 0.6**6 above the end.
    assert budget.late_gain == pytest.approx(0.5 * 0.6**6)
    assert budget.sentence == (
        "4 of the 4 best complete trials had their lowest dev loss in the last quarter of 1,000 "
        "steps, which lowered it by 0.0233 nats (median): train longer, for example 2,000 steps."
    )


def test_gain_within_noise_is_sufficient() -> None:
    budget = judge(falling_trials(), noise_sd=0.03)

    assert budget.verdict == "sufficient"
    assert (
        "only 0.0233 nats (median), within the noise between seeds (sd 0.0300)" in budget.sentence
    )
    assert judge(falling_trials(), noise_sd=0.02).verdict == "lengthen"


def test_losses_rising_from_first_tenth_need_fewer_steps() -> None:
    rising = [2.1 + 0.01 * i for i in range(10)]

    budget = judge(results_of(*[make_trial(PARAMS, rising)] * 4))

    assert budget.verdict == "shorten"
    assert budget.early == 1
    assert "use fewer steps" in budget.sentence


def test_best_step_in_the_middle_is_sufficient() -> None:
    curve = [2.5, 2.4, 2.3, 2.2, 2.1, 2.1, 2.2, 2.2, 2.2, 2.2]

    budget = judge(results_of(*[make_trial(PARAMS, curve)] * 4))

    assert budget.verdict == "sufficient"
    assert budget.sentence.startswith("Only 0 of the 4 best complete trials")


def test_too_few_complete_trials_give_no_verdict() -> None:
    budget = judge(falling_trials(3))

    assert budget.verdict == "unknown"
    assert budget.sentence == (
        "The number of steps cannot be judged from 3 complete trials; at least 4 are needed."
    )
    assert judge(results_of()).verdict == "unknown"


def test_random_study_that_still_falls_needs_more_steps() -> None:
    results = read_results(make_study(random_trials(60, lambda p: 2 + 0.5 / p["block_size"])))

    assert judge(results).verdict == "lengthen"
