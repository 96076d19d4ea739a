"""Counting baselines, by hand on a few words and against the lecture's file."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from makemore.counts import ladder, list_words, unseen_examples, unseen_words
from makemore.data import Corpus, Examples, load_corpus
from makemore.words import Vocab, read_words, split_words


def make_corpus(train: list[str], dev: list[str]) -> Corpus:
    vocab = Vocab.of(train + dev)
    return Corpus(vocab, Examples.of(train, vocab), Examples.of(dev, vocab), "0" * 64, "by hand")


def losses(corpus: Corpus) -> dict[str, float]:
    return {rung.name: rung.dev_loss for rung in ladder(corpus)}


# Known of the lecture's file and split, by plain loops; 424 of its 3,203 dev words also stand in train.
GOLDEN = {"bigram": 2.4531, "trigram": 2.2225, "4-gram": 2.1018, "interpolated": 2.0046}


def test_agrees_with_the_lectures_file(lecture_names: Path) -> None:
    corpus = load_corpus(lecture_names)

    rungs = {rung.name: rung for rung in ladder(corpus)}

    assert {name: round(rungs[name].dev_loss, 4) for name in GOLDEN} == GOLDEN
    assert round(rungs["interpolated"].new_loss, 4) == 2.0455
    assert rungs["uniform"].dev_loss == pytest.approx(math.log(27))
    assert len(list_words(corpus.dev, corpus.vocab)) - len(unseen_words(corpus)) == 424


def test_every_rung_of_the_embedded_names_stands_above_the_one_before(corpus: Corpus) -> None:
    order = [rung.dev_loss for rung in ladder(corpus)]

    assert order == sorted(order, reverse=True) and len(order) == 5
    # Words that were seen in training are easier.
    assert all(rung.new_loss > rung.dev_loss for rung in ladder(corpus)[2:])


def test_a_bigram_by_hand() -> None:
    # After the boundary: a twice, b once; after a: boundary twice, a once; after b: a once. V = 3.
    corpus = make_corpus(["aa", "a", "ba"], ["ab"])

    after_start, after_a, after_b = 2 + 0.1, 0 + 0.1, 0 + 0.1  # counts of a, b and the end in "ab"
    likelihoods = [after_start / (3 + 0.3), after_a / (4 + 0.3), after_b / (1 + 0.3)]
    assert losses(corpus)["bigram"] == pytest.approx(-np.log(likelihoods).mean())


def test_the_interpolated_model_by_hand() -> None:
    # "aa" in train, "a" in dev; V = 2. Symbols of train: a, a, end.
    corpus = make_corpus(["aa"], ["a"])

    def blend(count: int, n: int, kinds: int, shorter: float) -> float:
        return (count + 2 * kinds * shorter) / (n + 2 * kinds)

    a, end = blend(2, 3, 2, 1 / 2), blend(1, 3, 2, 1 / 2)  # no context
    for n, kinds, count in [
        (1, 1, 1)
    ] * 4:  # the boundary, and before it more boundaries: always followed by a
        a = blend(count, n, kinds, a)
    end = blend(1, 2, 2, end)  # after a: once a, once the end
    for n, kinds, count in [(1, 1, 0)] * 3:  # after ".a": always a
        end = blend(count, n, kinds, end)
    assert losses(corpus)["interpolated"] == pytest.approx(-(math.log(a) + math.log(end)) / 2)


def test_the_probabilities_of_all_words_sum_to_one() -> None:
    # With one letter a word is its length, and beyond 60 letters almost nothing is left over.
    train = ["a", "aa", "aaa", "a", "aaaa"]

    total = np.zeros(5)
    for length in range(0, 60):
        if length:
            total += np.exp(
                [
                    -rung.dev_loss * (length + 1)
                    for rung in ladder(make_corpus(train, ["a" * length]))
                ]
            )
    # The empty word takes its share too: it ends at the boundary, which no training word does.
    empty = np.array([1 / 2, 0.1 / 5.2, 0.1 / 5.2, 0.1 / 5.2, math.nan])
    assert total[:4] + empty[:4] == pytest.approx(np.ones(4), abs=1e-3)


def test_words_come_back_from_their_symbols(words: list[str]) -> None:
    vocab = Vocab.of(words)

    assert list_words(Examples.of(words, vocab), vocab) == words


def test_unseen_examples_are_those_of_words_that_train_lacks() -> None:
    corpus = make_corpus(["ab", "abc"], ["ab", "ba", "abc", "c"])

    assert unseen_words(corpus) == ["ba", "c"]
    assert unseen_examples(corpus).tolist() == [False] * 3 + [True] * 3 + [False] * 4 + [True] * 2


def test_a_dev_split_that_stands_in_train_has_no_loss_on_new_words() -> None:
    assert all(math.isnan(rung.new_loss) for rung in ladder(make_corpus(["ab", "ba"], ["ab"])))


def test_many_different_symbols_do_not_overflow() -> None:
    letters = [chr(0x4E00 + i) for i in range(3000)]
    words = ["".join(letters[i : i + 5]) for i in range(0, 2995)]
    split = split_words(words)

    rungs = ladder(make_corpus(split.train, split.dev))

    assert all(0 < rung.dev_loss < 20 for rung in rungs)


def test_the_loss_of_the_bigram_is_that_of_a_plain_loop(words: list[str]) -> None:
    split = split_words(read_words())
    train, dev = split.train[:500], split.dev[:50]
    corpus = make_corpus(train, dev)

    counts: dict[tuple[str, str], int] = {}
    for word in train:
        for pair in zip("." + word, word + ".", strict=True):
            counts[pair] = counts.get(pair, 0) + 1
    V, total = (
        len(corpus.vocab),
        {s: sum(n for (a, _), n in counts.items() if a == s) for s in corpus.vocab.symbols},
    )
    pairs = [pair for word in dev for pair in zip("." + word, word + ".", strict=True)]
    expected = [-math.log((counts.get(p, 0) + 0.1) / (total[p[0]] + 0.1 * V)) for p in pairs]

    assert losses(corpus)["bigram"] == pytest.approx(sum(expected) / len(expected))
