"""Counting baselines: by hand on a few words, and golden numbers of the lecture's file."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from makemore.counts import (
    find_words,
    first_words,
    ladder,
    list_words,
    unseen_examples,
    unseen_words,
)
from makemore.data import Corpus, Examples, load_corpus
from makemore.words import Vocab, read_words, split_words


def make_corpus(train: list[str], dev: list[str]) -> Corpus:
    vocab = Vocab.of(train + dev)
    return Corpus(vocab, Examples.of(train, vocab), Examples.of(dev, vocab), "0" * 64, "by hand")


def losses(corpus: Corpus) -> dict[str, float]:
    return {rung.name: rung.dev_loss for rung in ladder(corpus)}


# Computed by plain loops on the lecture's file; 424 of its 3,203 dev words are also in train.
GOLDEN = {
    "bigram": 2.4531,
    "trigram": 2.2225,
    "4-gram": 2.1018,
    "interpolated": 2.0046,
    "kneser-ney": 1.9746,
}


def test_losses_on_the_lectures_file_are_golden(lecture_names: Path) -> None:
    corpus = load_corpus(lecture_names)

    rungs = {rung.name: rung for rung in ladder(corpus)}

    assert {name: round(rungs[name].dev_loss, 4) for name in GOLDEN} == GOLDEN
    assert round(rungs["interpolated"].new_loss, 4) == 2.0455
    assert round(rungs["kneser-ney"].new_loss, 4) == 2.0179
    assert rungs["uniform"].dev_loss == pytest.approx(math.log(27))
    assert len(list_words(corpus.dev, corpus.vocab)) - len(unseen_words(corpus)) == 424


def test_each_baseline_improves_on_the_last(corpus: Corpus) -> None:
    rungs = ladder(corpus)
    order = [rung.dev_loss for rung in rungs]

    assert order == sorted(order, reverse=True) and len(order) == 6
    # Words that are in train have a lower loss.
    assert all(rung.new_loss > rung.dev_loss for rung in rungs[2:])


def test_bigram_by_hand() -> None:
    # After the boundary: a twice, b once; after a: boundary twice, a once; after b: a once. V = 3.
    corpus = make_corpus(["aa", "a", "ba"], ["ab"])

    # Of "ab": a after the boundary, b after a, the end after b.
    likelihoods = [(2 + 0.1) / (3 + 0.3), (0 + 0.1) / (4 + 0.3), (0 + 0.1) / (1 + 0.3)]
    assert losses(corpus)["bigram"] == pytest.approx(-np.log(likelihoods).mean())


def test_interpolated_model_by_hand() -> None:
    # "aa" in train, "a" in dev; V = 2. Symbols of train: a, a, end.
    corpus = make_corpus(["aa"], ["a"])

    def blend(count: int, n: int, kinds: int, shorter: float) -> float:
        return (count + 2 * kinds * shorter) / (n + 2 * kinds)

    a, end = blend(2, 3, 2, 1 / 2), blend(1, 3, 2, 1 / 2)  # no context
    for _ in range(4):  # after 1 to 4 boundaries: always a
        a = blend(1, 1, 1, a)
    end = blend(1, 2, 2, end)  # after a: once a, once the end
    for _ in range(3):  # after ".a", "..a" and "...a": always a
        end = blend(0, 1, 1, end)
    assert losses(corpus)["interpolated"] == pytest.approx(-(math.log(a) + math.log(end)) / 2)


def test_probabilities_of_all_words_sum_to_one() -> None:
    # With one letter a word is its length; words of 60 letters or more have almost no probability.
    train = ["a", "aa", "aaa", "a", "aaaa"]

    total = np.zeros(6)
    for length in range(1, 60):
        rungs = ladder(make_corpus(train, ["a" * length]))
        total += np.exp([-rung.dev_loss * (length + 1) for rung in rungs])
    # The empty word has a probability too, although train has no empty word.
    empty = np.array([1 / 2, 0.1 / 5.2, 0.1 / 5.2, 0.1 / 5.2, math.nan])
    assert total[:4] + empty[:4] == pytest.approx(np.ones(4), abs=1e-3)


@pytest.mark.parametrize("extra", [[], ["st. john", ".|"]])
def test_words_are_restored_from_their_codes(words: list[str], extra: list[str]) -> None:
    vocab = Vocab.of(words + extra)

    assert list_words(Examples.of(words + extra, vocab), vocab) == words + extra


def test_unseen_examples_are_of_words_not_in_train() -> None:
    corpus = make_corpus(["ab", "abc"], ["ab", "ba", "abc", "c"])

    assert unseen_words(corpus) == ["ba", "c"]
    assert unseen_examples(corpus).tolist() == [False] * 3 + [True] * 3 + [False] * 4 + [True] * 2


def test_no_new_words_give_nan() -> None:
    assert all(math.isnan(rung.new_loss) for rung in ladder(make_corpus(["ab", "ba"], ["ab"])))


def test_thousands_of_symbols_do_not_overflow() -> None:
    letters = [chr(0x4E00 + i) for i in range(3000)]
    words = ["".join(letters[i : i + 5]) for i in range(0, 2995)]
    split = split_words(words)

    rungs = ladder(make_corpus(split.train, split.dev))

    assert all(0 < rung.dev_loss < 20 for rung in rungs)


def test_bigram_loss_equals_a_plain_loop() -> None:
    split = split_words(read_words())
    train = split.train[:500]
    dev = split.dev[:50]
    corpus = make_corpus(train, dev)

    counts: dict[tuple[str, str], int] = {}
    for word in train:
        for pair in zip("." + word, word + ".", strict=True):
            counts[pair] = counts.get(pair, 0) + 1
    V = len(corpus.vocab)
    total = {s: sum(n for (a, _), n in counts.items() if a == s) for s in corpus.vocab.symbols}
    pairs = [pair for word in dev for pair in zip("." + word, word + ".", strict=True)]
    expected = [-math.log((counts.get(p, 0) + 0.1) / (total[p[0]] + 0.1 * V)) for p in pairs]

    assert losses(corpus)["bigram"] == pytest.approx(sum(expected) / len(expected))


def test_first_words_are_those_of_each_split(corpus: Corpus) -> None:
    part = first_words(corpus, 500, 30)

    assert part.n_words == (500, 30)
    for split, whole in ((part.train, corpus.train), (part.dev, corpus.dev)):
        words = list_words(split, corpus.vocab)
        assert words == list_words(whole, corpus.vocab)[: len(words)]
        assert split.stream is whole.stream  # nothing is copied
    assert first_words(corpus, 10**6, 10**6).n_words == corpus.n_words


@pytest.mark.parametrize("part", [1, 7, 10, 10**6])
def test_words_are_found_in_every_part_of_a_split(
    corpus: Corpus, monkeypatch: pytest.MonkeyPatch, part: int
) -> None:
    small = first_words(corpus, 70, 10)
    words = list_words(small.train, corpus.vocab)
    monkeypatch.setattr("makemore.counts.PART", part)

    assert find_words(small.train, corpus.vocab, [*words, "qqq", ""]) == set(words)
