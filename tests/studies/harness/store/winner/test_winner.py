"""The winner of synthetic studies, and the sentences about it."""

from __future__ import annotations

import pytest
from optuna.trial import FrozenTrial

from studies.harness.store.winner.winner import Winner, describe, find_winner
from tests.studies.synthetic import PARAMS, falling, make_study, make_trial, repeats_of


def sized(loss: float, n_params: int = 1000) -> FrozenTrial:
    """Return a complete trial with a model of this size."""
    trial = make_trial(PARAMS, falling(loss))
    summary = trial.user_attrs["summary"]
    trial.set_user_attr("summary", {**summary, "metrics": {"seconds": 1.0, "n_params": n_params}})
    return trial


def winner_of(*trials: FrozenTrial) -> Winner:
    winner = find_winner(make_study(trials).get_trials())
    assert winner is not None
    return winner


def test_lucky_seed_does_not_win() -> None:
    winner = winner_of(
        sized(2.00), sized(2.05), *repeats_of(0, 2.20, 2.21), *repeats_of(1, 2.06, 2.07)
    )

    assert (winner.number, winner.own) == (1, 2.05)
    assert winner.loss == pytest.approx(2.065)
    assert winner.tied == ()
    first, second = describe(winner)
    assert first.startswith("Winner: trial 1, dev loss 2.0650 ± ")
    assert first.endswith("(95%, mean of 2 seed repeats). Its own seed, in the search, has 2.0500.")
    assert second == (
        "Trial 0 has the lowest loss of one seed, 2.0000, but its seed repeats are higher."
    )


def test_lowest_mean_wins_and_ties_are_named() -> None:
    repeats = [*repeats_of(0, 2.10, 2.14), *repeats_of(1, 2.11, 2.15), *repeats_of(2, 2.13, 2.17)]

    winner = winner_of(sized(2.05, 9000), sized(2.06, 3000), sized(2.04, 100_000), *repeats)

    assert winner.number == 0 and [group.trial for group in winner.tied] == [1, 2]
    # Trial 2 has the lowest own loss, but it is tied, so it is named once.
    assert describe(winner)[1:] == [
        "Tied with it (95%): trials 1, 2; the smallest model of them is trial 1, with 3,000 "
        "parameters instead of 9,000."
    ]


def test_tie_with_a_larger_model_is_short() -> None:
    repeats = [*repeats_of(0, 2.11, 2.15), *repeats_of(1, 2.10, 2.14)]

    winner = winner_of(sized(2.05), sized(2.06), *repeats)

    assert describe(winner)[1:] == ["Tied with it (95%): trial 0."]


def test_tie_with_one_smaller_model_names_it_once() -> None:
    repeats = [*repeats_of(0, 2.11, 2.15), *repeats_of(1, 2.10, 2.14)]

    winner = winner_of(sized(2.05, 300), sized(2.06, 900), *repeats)

    assert describe(winner)[1:] == [
        "Tied with it (95%): trial 0; its model is smaller, with 300 parameters instead of 900."
    ]


def test_without_repeats_the_lowest_is_unconfirmed() -> None:
    winner = winner_of(sized(2.2), sized(2.1))

    assert (winner.number, winner.group, winner.loss) == (1, None, 2.1)
    assert winner.loss_text == "2.1000"
    assert describe(winner) == [
        "Winner: trial 1, dev loss 2.1000 of one seed.",
        "It is not confirmed: it has no seed repeats.",
    ]


def test_one_repeat_confirms_nothing() -> None:
    winner = winner_of(sized(2.1), *repeats_of(0, 2.1))

    assert winner.group is None
    assert describe(winner)[1] == "It is not confirmed: it has 1 seed repeat, and needs 2."


def test_pruned_trial_is_not_confirmed() -> None:
    winner = winner_of(sized(2.2), make_trial(PARAMS, [2.1], state="PRUNED"))

    assert winner.number == 1 and "it was pruned" in describe(winner)[1]


def test_new_trial_wins_only_beyond_the_noise() -> None:
    repeats = repeats_of(0, 2.10, 2.11, 2.12)  # sd 0.01; t = 4.30 with 2 degrees of freedom

    inside = winner_of(sized(2.09), *repeats, sized(2.07))
    beyond = winner_of(sized(2.09), *repeats, sized(2.05))

    assert inside.number == 0
    assert "Trial 4 has the lowest loss of one seed, 2.0700, but it has no" in describe(inside)[1]
    assert (beyond.number, beyond.group) == (4, None)


@pytest.mark.parametrize("losses", [(), (2.0,), (2.0, 2.01)])
def test_config_that_diverges_with_another_seed_does_not_win(losses: tuple[float, ...]) -> None:
    diverged = make_trial(PARAMS, [2.9], state="PRUNED", reason="diverged at step 9", repeat_of=0)
    trials = [sized(2.0), sized(2.1), *repeats_of(0, *losses), diverged]

    for winner in (winner_of(*trials), winner_of(*trials, *repeats_of(1, 2.1, 2.11))):
        assert winner.number == 1
    n_repeats = len(losses) + 1
    assert f"but 1 of its {n_repeats} seed repeats diverged" in describe(winner)[-1]


def test_lowest_of_many_new_trials_needs_a_lower_loss() -> None:
    repeats = repeats_of(0, *(2.1 + 0.01 * (i % 2) for i in range(20)))  # sd 0.005, t = 2.09

    alone = winner_of(sized(2.09), *repeats, sized(2.09))
    many = winner_of(sized(2.09), *repeats, *[sized(2.2)] * 200, sized(2.09))

    assert alone.number == 21 and many.number == 0


def test_no_dev_loss_no_winner() -> None:
    assert find_winner([]) is None
    assert find_winner(make_study([make_trial(PARAMS, [], state="FAIL")]).get_trials()) is None
