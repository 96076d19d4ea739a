"""Counting baselines: n-gram models of a corpus, for comparison with a trained model."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np

from makemore.data import Corpus, Examples
from makemore.kneser_ney import CONTEXT, KneserNey
from makemore.words import Vocab

ADDED = 0.1  # added to the count of every symbol after every context
LONGEST = 4  # characters of context of the interpolated model
PART = 100_000  # words that `find_words` decodes at once
CAUTION = 2.0  # weight of the number of different successors in Witten-Bell smoothing
N_GRAMS = {1: "bigram", 2: "trigram", 3: "4-gram"}  # by characters of context


class Rung(NamedTuple):
    """One baseline.

    Attributes:
        name: for display.
        context: characters of context.
        dev_loss: nats per character over the whole dev split.
        new_loss: nats per character over the dev words that are not in train; nan if there are
            none.
    """

    name: str
    context: int
    dev_loss: float
    new_loss: float


def ladder(corpus: Corpus, unseen: np.ndarray | None = None) -> list[Rung]:
    """Fit the baselines on train and return their losses, simplest first.

    Args:
        corpus: the words to count, and the dev words to measure.
        unseen: (N,) bool, the dev examples of words that are not in train. Default: computed.

    This takes half a second for 30,000 names. The contexts begin with boundary symbols, as
    in training.

    - uniform: every symbol has the same probability; the loss is ln V.
    - bigram, trigram, 4-gram: relative counts after the last 1, 2 and 3 characters, with 0.1 added
      to each count.
    - interpolated: Witten & Bell 1991. If a context has n successors, t of them different, the
      estimate is (count + 2 t p) / (n + 2 t). Here p is the estimate for the context without its
      first character. The recursion goes from the uniform estimate to 4 characters of context.
    - kneser-ney: modified interpolated Kneser-Ney smoothing with 5 characters of context
      (`makemore.kneser_ney`).
    """
    if unseen is None:
        unseen = unseen_examples(corpus)

    def rung(name: str, context: int, probabilities: np.ndarray) -> Rung:
        losses = -np.log(probabilities)  # (N,) over the dev examples
        new_loss = float(losses[unseen].mean()) if unseen.any() else math.nan
        return Rung(name, context, float(losses.mean()), new_loss)

    V = len(corpus.vocab)
    blend = np.full(len(corpus.dev), 1 / V)
    rungs = [rung("uniform", 0, blend)]
    for context, counted in enumerate(_count(corpus, LONGEST)):
        if context in N_GRAMS:
            added = (counted.pair + ADDED) / (counted.total + ADDED * V)
            rungs.append(rung(N_GRAMS[context], context, added))
        reserved = CAUTION * counted.kinds
        blend = np.where(
            counted.total > 0,
            (counted.pair + reserved * blend) / np.maximum(1, counted.total + reserved),
            blend,
        )
    rungs.append(rung("interpolated", LONGEST, blend))
    model = KneserNey.fit(corpus.train, V)
    found = model.likelihoods(corpus.dev.contexts(CONTEXT), corpus.dev.targets)
    return [*rungs, rung("kneser-ney", CONTEXT, found)]


class _Counted(NamedTuple):
    """Counts in train for each dev example; all are (N,) int64.

    Attributes:
        pair: of the example's context followed by its target.
        total: of the example's context.
        kinds: of different targets after the example's context.
    """

    pair: np.ndarray
    total: np.ndarray
    kinds: np.ndarray


def _count(corpus: Corpus, longest: int) -> list[_Counted]:
    """Return the counts for contexts of 0, 1, ... `longest` characters."""
    n = len(corpus.train)
    V = len(corpus.vocab)
    splits = (corpus.train, corpus.dev)
    contexts = np.concatenate([split.contexts(longest) for split in splits]).astype(np.int64)
    targets = np.concatenate([split.targets for split in splits]).astype(np.int64)

    # Identifiers of the contexts. Each length numbers them from 0, so the products stay small.
    ids = np.zeros(len(targets), np.int64)
    counted = []
    for length in range(longest + 1):
        if length:
            _, ids = np.unique(ids * V + contexts[:, -length], return_inverse=True)
        pairs, pair_ids = np.unique(ids * V + targets, return_inverse=True)
        pair = np.bincount(pair_ids[:n], minlength=len(pairs))
        total = np.bincount(ids[:n], minlength=int(ids.max()) + 1)
        kinds = np.bincount(pairs[pair > 0] // V, minlength=len(total))
        counted.append(_Counted(pair[pair_ids[n:]], total[ids[n:]], kinds[ids[n:]]))
    return counted


def list_words(examples: Examples, vocab: Vocab) -> list[str]:
    """Return the words of a split, in order."""
    # The targets are the letters of each word and the boundary. numpy uses 4 bytes a character.
    letters = np.array(vocab.symbols, "<U1")[examples.targets]
    return letters.tobytes().decode("utf-32-le").split(vocab.boundary)[:-1]


def first_words(corpus: Corpus, n_train: int, n_dev: int) -> Corpus:
    """Return a corpus of the first words of each split; they are a random sample of the split."""
    train, dev = _first(corpus.train, n_train), _first(corpus.dev, n_dev)
    return dataclasses.replace(corpus, train=train, dev=dev)


def _first(examples: Examples, n: int) -> Examples:
    ends = np.flatnonzero(examples.targets == 0)  # each word's last example predicts the boundary
    if len(ends) <= n:
        return examples
    return Examples(examples.stream, examples.positions[: ends[n - 1] + 1])


def find_words(examples: Examples, vocab: Vocab, wanted: Iterable[str]) -> set[str]:
    """Return which of these words are in a split; it holds only a part of the split in memory."""
    wanted = set(wanted)
    found: set[str] = set()
    ends = np.flatnonzero(examples.targets == 0) + 1
    last = 0
    for end in [*ends[PART - 1 :: PART], *ends[-1:]]:
        part = Examples(examples.stream, examples.positions[last:end])
        found |= wanted.intersection(list_words(part, vocab))
        last = end
    return found


def unseen_words(corpus: Corpus) -> list[str]:
    """Return the dev words that are not in train; a model cannot have memorised them."""
    known = set(list_words(corpus.train, corpus.vocab))
    return [word for word in list_words(corpus.dev, corpus.vocab) if word not in known]


def unseen_examples(corpus: Corpus) -> np.ndarray:
    """Return (N,) bool: which dev examples belong to words that are not in train."""
    known = set(list_words(corpus.train, corpus.vocab))
    return examples_of(list_words(corpus.dev, corpus.vocab), lambda word: word not in known)


def examples_of(words: Sequence[str], chosen: Callable[[str], bool]) -> np.ndarray:
    """Return (N,) bool: which examples of these words belong to a chosen word."""
    lengths = np.fromiter((len(word) + 1 for word in words), np.int64, len(words))
    return np.repeat(np.fromiter(map(chosen, words), bool, len(words)), lengths)
