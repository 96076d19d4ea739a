"""Kneser-Ney: by hand on a few words, properties of all words, and the lecture's file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from makemore.data import Examples, load_corpus
from makemore.kneser_ney import FALLBACK, KneserNey, _discounts
from makemore.words import Vocab, read_words, split_words

LETTERS = "abc"
WORDS = st.lists(st.text(LETTERS, max_size=6), min_size=1, max_size=30)


def fit(words: list[str], context: int) -> KneserNey:
    vocab = Vocab(LETTERS)
    return KneserNey.fit(Examples.of(words, vocab), len(vocab), context)


# Measured with a separate program that follows the paper; dev and test loss with 5 characters.
GOLDEN = {3: 2.0564, 4: 1.9841, 5: 1.9746, 6: 1.9771}


def test_losses_on_the_lectures_file_are_golden(lecture_names: Path) -> None:
    corpus = load_corpus(lecture_names)
    test = Examples.of(split_words(read_words(lecture_names)).test, corpus.vocab)

    def loss(context: int, examples: Examples) -> float:
        model = KneserNey.fit(corpus.train, len(corpus.vocab), context)
        p = model.likelihoods(examples.contexts(context), examples.targets)
        return round(float(-np.log(p).mean()), 4)

    assert {context: loss(context, corpus.dev) for context in GOLDEN} == GOLDEN
    assert loss(5, test) == 1.9778


def test_probabilities_by_hand() -> None:
    # Context of one character. The counts of the pairs (context, target):
    # .a 2, .b 1, aa 1, a. 2, ba 1. The different symbols before: a has (., a, b), b has (.), end
    # has (a). The counts 3 and 4 do not occur, so the discounts are those for few n-grams.
    model = fit(["aa", "a", "ba"], context=1)

    def unigram(count: int) -> float:
        rest = (0.5 + 0.5 + 1.5) / 5
        return (count - FALLBACK[min(count, 3) - 1] if count else 0) / 5 + rest / 4

    end, a, b, c = (unigram(n) for n in (1, 3, 1, 0))
    after_start = (1.0 + 0.5) / 3  # discounts of the counts 2 and 1
    expected_start = [
        after_start * end,
        (2 - 1.0) / 3 + after_start * a,
        (1 - 0.5) / 3 + after_start * b,
        after_start * c,
    ]
    np.testing.assert_allclose(model.probabilities(np.array([[0]]))[0], expected_start)
    # No word of the list has the letter c, so its context is unknown.
    np.testing.assert_allclose(model.probabilities(np.array([[3]]))[0], [end, a, b, c])


def test_discounts_follow_the_paper() -> None:
    # Four n-grams occur once, three twice, two three times, one four times.
    c = np.array([1, 1, 1, 1, 2, 2, 2, 3, 3, 4])

    # Y = 4 / (4 + 6); D1 = 1 - 2Y 3/4, D2 = 2 - 3Y 2/3, D3 = 3 - 4Y 1/2.
    assert _discounts(c) == pytest.approx((0.4, 1.2, 2.2))
    assert _discounts(c[:-1]) == FALLBACK


@settings(max_examples=60, deadline=None)
@given(words=WORDS, context=st.integers(1, 4), probe=st.text(LETTERS, max_size=8))
def test_probabilities_sum_to_1(words: list[str], context: int, probe: str) -> None:
    model = fit(words, context)
    examples = Examples.of([probe], Vocab(LETTERS))

    table = model.probabilities(examples.contexts(6))

    np.testing.assert_allclose(table.sum(1), 1)
    assert (table > 0).all()
    found = model.likelihoods(examples.contexts(6), examples.targets)
    np.testing.assert_allclose(found, table[np.arange(len(table)), examples.targets])


@settings(max_examples=30, deadline=None)
@given(words=WORDS, context=st.integers(1, 4))
def test_tables_alone_give_the_same_model(words: list[str], context: int) -> None:
    model = fit(words, context)
    again = KneserNey(model.ngrams, model.counts, model.vocab_size)
    X = Examples.of(words, Vocab(LETTERS)).contexts(context)

    np.testing.assert_array_equal(again.probabilities(X), model.probabilities(X))


def test_more_than_the_context_changes_nothing() -> None:
    model = fit(["abc", "abca", "cab"], context=2)

    short = model.probabilities(np.array([[1, 2]]))
    long = model.probabilities(np.array([[3, 3, 1, 2]]))

    np.testing.assert_array_equal(short, long)
