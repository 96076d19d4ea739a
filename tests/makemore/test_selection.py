"""Selection of an ensemble: picks, weights, and two separate halves."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from makemore.selection import (
    ALONE,
    ENSEMBLE,
    ENSEMBLE_MIXED,
    HALF,
    MIXED,
    WEIGHTS,
    choose,
    costs_of_words,
    cross_fit,
    fit_weight,
    halves,
    losses,
    predictions,
    select,
)

N = 400  # examples of a made-up study


def made_up(n_models: int, seed: int = 0) -> np.ndarray:
    """Return probabilities of models whose errors are independent, (n_models, N)."""
    return np.random.default_rng(seed).uniform(0.05, 0.95, (n_models, N))


def every_second() -> np.ndarray:
    return np.arange(N) % 2 == 0


def loss(p: np.ndarray) -> float:
    return -float(np.log(p).mean())


# ---- picks


def test_ensemble_of_complementary_models_beats_the_best_single() -> None:
    # Each model fails on its own quarter of the examples.
    table = np.full((4, N), 0.8)
    for m in range(4):
        table[m, np.arange(N) // 2 % 4 == m] = 0.1

    found = losses(cross_fit(table, None, every_second()))

    assert found[ENSEMBLE] < found[ALONE] - 0.1
    assert list(select(table, 12)) == [1, 1, 1, 1]


@pytest.mark.parametrize("seed", range(5))
def test_independent_errors_are_averaged(seed: int) -> None:
    table = made_up(8, seed)

    found = losses(cross_fit(table, None, every_second()))

    assert found[ENSEMBLE] < found[ALONE]


def test_identical_members_gain_nothing() -> None:
    table = np.tile(made_up(1), (6, 1))
    counted = made_up(1, seed=1)[0]

    found = losses(cross_fit(table, counted, every_second()))

    assert found[ENSEMBLE] == found[ALONE]
    assert found[ENSEMBLE_MIXED] == found[MIXED]
    assert list(select(table, 12)) == [1, 0, 0, 0, 0, 0]


def test_better_model_is_picked_more_often() -> None:
    # Model 0 is right in two thirds of the examples, model 1 in the rest. The loss is lowest where
    # 2 (0.9 - 0.8 w) = 0.1 + 0.8 w, at the weight w = 0.708 of model 0.
    right = np.arange(N) % 3 < 2
    table = np.array([np.where(right, 0.9, 0.1), np.where(right, 0.1, 0.9)])

    picks = select(table, 12)

    assert picks[0] / picks.sum() == pytest.approx(0.708, abs=0.05)


def test_size_is_never_exceeded() -> None:
    table = made_up(20)

    for size in (1, 2, 5, 12):
        assert 1 <= select(table, size).sum() <= size
    best = int(np.argmin([loss(row) for row in table]))
    assert list(np.flatnonzero(select(table, 1))) == [best] == [choose(table, None).best]


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10_000), n_models=st.integers(1, 6), size=st.integers(1, 8))
def test_chosen_loss_is_at_most_that_of_the_best(seed: int, n_models: int, size: int) -> None:
    table = made_up(n_models, seed)

    picks = select(table, size)

    assert loss(picks @ table / picks.sum()) <= min(map(loss, table)) + 1e-12


# ---- weights


def test_fitted_weight_has_the_lowest_loss() -> None:
    first, second = made_up(2)

    weight = fit_weight(first, second)

    best = min(loss((1 - w) * first + w * second) for w in WEIGHTS)
    assert loss((1 - weight) * first + weight * second) == best
    assert fit_weight(np.full(N, 0.5), np.full(N, 0.1)) == 0
    assert fit_weight(np.full(N, 0.1), np.full(N, 0.5)) == 1


def test_table_has_the_rows_of_bengio() -> None:
    table, counted = made_up(3), made_up(1, seed=9)[0]
    choice = choose(table, counted)

    found = predictions(choice, table, counted)

    assert list(found) == [ALONE, HALF, MIXED, ENSEMBLE, ENSEMBLE_MIXED]
    np.testing.assert_allclose(found[HALF], 0.5 * table[choice.best] + 0.5 * counted)
    assert losses(found)[MIXED] <= min(losses(found)[HALF], losses(found)[ALONE])
    assert list(predictions(choose(table, None), table, None)) == [ALONE, ENSEMBLE]


# ---- halves


def test_members_are_not_measured_on_their_half() -> None:
    # Model 0 is good on the first half only, model 1 on the second half only.
    first = every_second()
    table = np.array([np.where(first, 0.9, 0.1), np.where(first, 0.1, 0.9)])

    found = losses(cross_fit(table, None, first))

    assert found[ENSEMBLE] == found[ALONE] == pytest.approx(-np.log(0.1))


def test_weights_are_not_measured_on_their_half() -> None:
    first = every_second()
    table = np.full((1, N), 0.5)
    counted = np.where(first, 0.9, 0.1)

    found = cross_fit(table, counted, first)

    # On the first half the weight of the counts is 1, on the second half 0.
    np.testing.assert_array_equal(found[MIXED], np.where(first, 0.5, 0.1))
    np.testing.assert_array_equal(found[ENSEMBLE_MIXED], np.where(first, 0.5, 0.1))


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), changed=st.integers(0, N - 1))
def test_an_example_has_no_part_in_its_own_half(seed: int, changed: int) -> None:
    table, counted, first = made_up(4, seed), made_up(1, seed + 1)[0], every_second()
    before = cross_fit(table, counted, first, size=5)
    table[:, changed] = table[::-1, changed] ** 3
    counted[changed] **= 5

    after = cross_fit(table, counted, first, size=5)

    same_half = (first == first[changed]) & (np.arange(N) != changed)
    for name, p in before.items():
        np.testing.assert_array_equal(after[name][same_half], p[same_half])


def test_halves_keep_the_examples_of_a_word_together() -> None:
    words = ["anna", "bo", "anna", "cyd", "", "bo", "dee", "eve"]

    first = halves(words)

    ends = np.cumsum([len(word) + 1 for word in words])
    sides: dict[str, set[bool]] = {}
    for word, part in zip(words, np.split(first, ends[:-1]), strict=True):
        sides.setdefault(word, set()).update(part.tolist())
    assert all(len(found) == 1 for found in sides.values())
    assert sum(found == {True} for found in sides.values()) == len(set(words)) // 2
    np.testing.assert_array_equal(halves(words), first)


def test_costs_are_sums_over_a_word() -> None:
    p = np.array([0.5, 0.25, 0.5, 0.125, 0.5])

    costs = costs_of_words(p, [3, 2])

    np.testing.assert_allclose(costs, np.log([16, 16]))
