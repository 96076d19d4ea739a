"""What counting alone can do: n-gram models of a corpus, as rungs that a trained model has to stand above."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from makemore.data import Corpus, Examples
from makemore.words import Vocab

ADDED = 0.1  # count given to every symbol after every context, seen or not
LONGEST = 4  # characters of context of the interpolated model
CAUTION = 2.0  # weight of a context's different successors in Witten-Bell smoothing


class Rung(NamedTuple):
    """One baseline.

    Attributes:
        name: what stands in a table.
        context: how many characters it looks back.
        dev_loss: nats per character over the whole dev split.
        new_loss: the same over the dev words that do not stand in train; nan where every one does.
    """

    name: str
    context: int
    dev_loss: float
    new_loss: float


def ladder(corpus: Corpus) -> list[Rung]:
    """The losses of models that count, fitted on train, from guessing up; a tenth of a second for 30,000 names.

    - uniform: every symbol is as likely as any other, ln V.
    - bigram, trigram, 4-gram: the share of each successor of the last 1, 2, 3 characters, with 0.1 added to each count.
    - interpolated: Witten & Bell 1991. With n counts of t different successors after a context, the estimate is
      (count + 2 t p) / (n + 2 t), where p is the estimate for the context shortened by its first character; from the
      uniform guess up to 4 characters of context.

    Every word begins behind boundary symbols, as in training.
    """
    unseen = unseen_examples(corpus)

    def rung(name: str, context: int, probabilities: np.ndarray) -> Rung:
        losses = -np.log(probabilities)  # (N,) over the dev examples
        return Rung(
            name,
            context,
            float(losses.mean()),
            float(losses[unseen].mean()) if unseen.any() else math.nan,
        )

    V = len(corpus.vocab)
    blend = np.full(len(corpus.dev), 1 / V)
    rungs = [rung("uniform", 0, blend)]
    for context, counted in enumerate(_count(corpus, LONGEST)):
        if 1 <= context <= 3:
            added = (counted.pair + ADDED) / (counted.total + ADDED * V)
            rungs.append(rung(("bigram", "trigram", "4-gram")[context - 1], context, added))
        held_back = CAUTION * counted.kinds
        blend = np.where(
            counted.total > 0,
            (counted.pair + held_back * blend) / np.maximum(1, counted.total + held_back),
            blend,
        )
    return [*rungs, rung("interpolated", LONGEST, blend)]


class _Counted(NamedTuple):
    """For each dev example, what train holds; all (N,) int64."""

    pair: np.ndarray  # how often its context was followed by its target
    total: np.ndarray  # how often its context stands there
    kinds: np.ndarray  # how many different targets followed it


def _count(corpus: Corpus, longest: int) -> list[_Counted]:
    """Counts for contexts of 0, 1, ... `longest` characters."""
    n, V = len(corpus.train), len(corpus.vocab)
    contexts = np.concatenate(
        [corpus.train.contexts(longest), corpus.dev.contexts(longest)]
    ).astype(np.int64)
    targets = np.concatenate([corpus.train.targets, corpus.dev.targets]).astype(np.int64)
    ids = np.zeros(
        len(targets), np.int64
    )  # of the contexts, numbered anew for each length so that nothing overflows
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
    """The words of a split, in order."""
    # The targets are each word's letters and the boundary after them; numpy keeps a character in four bytes.
    letters = np.array(vocab.symbols, "<U1")[examples.targets]
    return letters.tobytes().decode("utf-32-le").split(vocab.symbols[0])[:-1]


def unseen_words(corpus: Corpus) -> list[str]:
    """The dev words that do not stand in train; a model cannot have learnt them by heart."""
    known = set(list_words(corpus.train, corpus.vocab))
    return [word for word in list_words(corpus.dev, corpus.vocab) if word not in known]


def unseen_examples(corpus: Corpus) -> np.ndarray:
    """(N,) bool: which dev examples are of words that do not stand in train."""
    known = set(list_words(corpus.train, corpus.vocab))
    words = list_words(corpus.dev, corpus.vocab)
    lengths = np.fromiter((len(word) + 1 for word in words), np.int64, len(words))
    return np.repeat(np.fromiter((word not in known for word in words), bool, len(words)), lengths)
