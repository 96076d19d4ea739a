"""The race of the best configs: its rounds, its cap and its budget."""

from __future__ import annotations

from collections import Counter

import numpy as np
import optuna

from studies.harness.report.results import read_results
from studies.harness.store.trials import ranked
from studies.harness.store.winner.race import open_repeats_sentence, plan_repeats
from studies.harness.store.winner.winner import find_winner
from tests.studies.synthetic import PARAMS, falling, make_study, make_trial, repeats_of


def study_of(n: int, gap: float = 0.001) -> optuna.Study:
    """Return a study with n complete trials; trial i is at 2.0 + i * gap."""
    return make_study([make_trial(PARAMS, falling(2.0 + gap * i)) for i in range(n)])


def run_race(study: optuna.Study, cap: int | None, expected: dict[int, float]) -> Counter[int]:
    """Train all rounds with noise of sd 0.003; returns the repeats by trial.

    Args:
        expected: expected dev loss by trial; 2.1 for the others.
    """
    rng = np.random.default_rng(0)
    while planned := plan_repeats(study.get_trials(), cap):
        for number in planned:
            loss = expected.get(number, 2.1) + rng.normal(0, 0.003)
            study.add_trials(repeats_of(number, loss))
    return Counter(
        t.user_attrs["repeat_of"]
        for t in study.get_trials()
        if t.user_attrs.get("repeat_of") is not None
    )


def test_first_round_repeats_the_best_twice() -> None:
    assert plan_repeats(study_of(12).get_trials(), 5) == [0, 0, 1, 1, 2, 2]
    # 15% of 100 trainings pay for 15 repeats: five configs; never more than ten.
    assert sorted(set(plan_repeats(study_of(100).get_trials(), 5))) == [0, 1, 2, 3, 4]
    assert sorted(set(plan_repeats(study_of(1000).get_trials(), 5))) == list(range(10))


def test_pruned_trials_count_their_steps_only() -> None:
    study = study_of(12)
    study.add_trials([make_trial(PARAMS, [2.5], state="PRUNED")] * 88)  # of 100 steps each

    # 20.8 whole trainings: the budget pays for 3 repeats, and the race has the fewest configs.
    assert sorted(set(plan_repeats(study.get_trials(), None))) == [0, 1, 2]


def test_separated_leader_ends_the_race() -> None:
    study = study_of(12)

    repeats = run_race(study, 5, {1: 2.0})

    assert repeats == {0: 2, 1: 2, 2: 2}
    winner = find_winner(study.get_trials())
    assert winner is not None and winner.number == 1 and winner.tied == ()


def test_tied_configs_get_more_repeats_up_to_the_cap() -> None:
    study = study_of(12)

    repeats = run_race(study, 6, {0: 2.2, 1: 2.0, 2: 2.0001})

    assert repeats[1] == repeats[2] == 6 and repeats[0] < 6
    winner = find_winner(study.get_trials())
    assert winner is not None and {winner.number, *(group.trial for group in winner.tied)} == {1, 2}


def test_default_budget_ends_the_race() -> None:
    study = study_of(60)

    repeats = run_race(study, None, {0: 2.0, 1: 2.0, 2: 2.0})

    assert sum(repeats.values()) == 9  # 15% of 60 trainings


def test_open_repeats_are_counted_in_a_sentence() -> None:
    study = study_of(12)
    assert open_repeats_sentence(study.get_trials()) == ""

    study.enqueue_trial(PARAMS, user_attrs={"repeat_of": 0})
    assert open_repeats_sentence(study.get_trials()).startswith("1 seed repeat is left, and")

    study.enqueue_trial(PARAMS, user_attrs={"repeat_of": 1})
    assert open_repeats_sentence(study.get_trials()).startswith("2 seed repeats are left, and")
    assert read_results(study).open_repeats == open_repeats_sentence(study.get_trials())


def test_no_plan_while_repeats_are_open() -> None:
    study = study_of(12)
    for number in (0, 0, 1, 1, 2, 2):
        study.enqueue_trial(PARAMS, user_attrs={"repeat_of": number})

    assert plan_repeats(study.get_trials(), 5) == []


def test_cap_of_zero_and_one() -> None:
    study = study_of(12)

    assert plan_repeats(study.get_trials(), 0) == []
    assert plan_repeats(study.get_trials(), 1) == [0, 1, 2]
    study.add_trials([trial for i in range(3) for trial in repeats_of(i, 2.1)])
    assert plan_repeats(study.get_trials(), 1) == []


def test_failed_repeat_is_not_planned_for_ever() -> None:
    study = study_of(12)
    failed = [make_trial(PARAMS, [], state="FAIL", repeat_of=i) for i in (0, 0, 1, 1, 2, 2)]
    study.add_trials(failed)

    assert plan_repeats(study.get_trials(), 2) == []


def test_new_best_trials_join_the_race() -> None:
    study = study_of(12)
    run_race(study, 2, {})
    study.add_trials([make_trial(PARAMS, falling(1.9))])
    newest = ranked(study.get_trials())[0].number

    assert plan_repeats(study.get_trials(), 2) == [newest, newest]
