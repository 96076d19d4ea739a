"""The pruners: which trials they stop, and when."""

from __future__ import annotations

import optuna
import pytest
from optuna.pruners import BasePruner

from makemore.config import Config
from studies.harness.search.pruners import default_pruner, halving_pruner, is_audited

STEPS = 1000
EVALUATIONS = range(50, STEPS + 1, 50)


def last_steps(pruner: BasePruner, losses: list[float]) -> list[int]:
    """Train one trial after the other, each with a constant loss; returns the last step of each."""
    study = optuna.create_study(pruner=pruner)
    ends = []
    for loss in losses:
        trial = study.ask()
        for step in EVALUATIONS:
            trial.report(loss, step)
            if trial.should_prune():
                break
        state = optuna.trial.TrialState
        is_complete = step == STEPS
        study.tell(
            trial, loss if is_complete else None, state.COMPLETE if is_complete else state.PRUNED
        )
        ends.append(step)
    return ends


def test_default_without_averages_waits_and_then_stops_the_worse_half() -> None:
    # The first five trials are never pruned.
    losses = [1.0, 2.0, 3.0, 4.0, 5.0, 2.9, 3.1]
    pruner = default_pruner(Config(max_steps=STEPS))
    assert last_steps(pruner, losses) == [STEPS] * 6 + [600]


def test_default_with_averages_is_halving() -> None:
    losses = [float(n) for n in range(1, 9)]
    averaged = default_pruner(Config(max_steps=STEPS, ema=0.1))
    assert last_steps(averaged, losses) == last_steps(halving_pruner(STEPS), losses)


def test_halving_judges_at_a_tenth_and_at_four_tenths() -> None:
    # Rising losses: only the first trial is the best one at each judgement.
    ends = last_steps(halving_pruner(STEPS), [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0])
    assert ends[0] == STEPS and set(ends[1:]) <= {100, 400}
    assert ends.count(100) == 7 - ends.count(400)


def test_halving_by_two_judges_more_often_and_keeps_more() -> None:
    losses = [1.0, 4.0, 2.0, 3.0, 1.5, 5.0, 1.2, 6.0]
    assert last_steps(halving_pruner(STEPS, factor=2), losses) == [
        1000,
        100,
        100,
        100,
        200,
        100,
        200,
        100,
    ]
    assert last_steps(halving_pruner(STEPS, factor=4), losses) == [
        1000,
        100,
        100,
        100,
        100,
        100,
        100,
        100,
    ]


@pytest.mark.parametrize("steps", [1, 9])
def test_halving_takes_the_shortest_trials(steps: int) -> None:
    assert isinstance(halving_pruner(steps), BasePruner)


def test_study_seed_and_trial_number_decide_the_audit() -> None:
    one, other = ([is_audited(seed, n, 0.2) for n in range(1000)] for seed in (0, 1))

    assert one == [is_audited(0, n, 0.2) for n in range(1000)] != other
    for audited in (one, other):
        assert 150 < sum(audited) < 250  # 200, with a standard deviation of 13
    # A larger share keeps the audits of a smaller one.
    assert all(is_audited(0, n, 0.5) for n in range(1000) if one[n])
    assert not any(is_audited(0, n, 0.0) for n in range(1000))
    assert all(is_audited(0, n, 1.0) for n in range(1000))
