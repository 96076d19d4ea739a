"""Modified interpolated Kneser-Ney smoothing: a counting model with a probability for each symbol.

Source: Chen & Goodman 1999, "An empirical study of smoothing techniques for language modeling",
section 3.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from makemore.data import Examples
from makemore.windows import number_windows

CONTEXT = 5  # characters of context; on the lecture's names, 4 and 6 have higher dev losses
# Discounts of counts 1, 2 and 3 or more, where too few n-grams exist to estimate them.
FALLBACK = (0.5, 1.0, 1.5)


class KneserNey:
    """An n-gram model of words.

    The probability of symbol w after a context is
    (c(w) - D(c(w))) / sum(c) + gamma * the probability of w after the context without its first
    symbol. Here c counts w after the context, D is a discount for counts 1, 2 and 3 or more, and
    gamma is the sum of all discounts divided by sum(c), so the probabilities sum to 1. The
    recursion goes from the uniform estimate to the longest context.

    For a context shorter than the longest, c is the number of different symbols that occur before
    the context and w (Kneser & Ney 1995). No symbol occurs before the start of a word. So a context
    that begins there keeps its plain counts, and longer contexts, which hold more of the boundary,
    are not counted.

    Args:
        ngrams: (P, T + 1) integers, the different n-grams: T symbols of context and the target.
        counts: (P,) integers, how often each occurs; at least 1.
        vocab_size: number of symbols V.
    """

    def __init__(self, ngrams: np.ndarray, counts: np.ndarray, vocab_size: int) -> None:
        self.ngrams = ngrams
        self.counts = counts
        self.vocab_size = vocab_size
        self._levels = _count_levels(ngrams.astype(np.int64), counts.astype(np.int64), vocab_size)

    @classmethod
    def fit(cls, train: Examples, vocab_size: int, context: int = CONTEXT) -> KneserNey:
        """Count the n-grams of some examples.

        Args:
            train: the examples.
            vocab_size: number of symbols V.
            context: characters of context T, at least 1.
        """
        # Numbers sort as the n-grams do, and much faster.
        numbers, _ = number_windows(train.stream, train.positions, -context, 1)
        _, first, counts = np.unique(numbers, return_index=True, return_counts=True)
        distinct = Examples(train.stream, train.positions[first])
        ngrams = np.column_stack([distinct.contexts(context), distinct.targets])
        return cls(ngrams, counts.astype(np.int32), vocab_size)

    @property
    def block_size(self) -> int:
        """Characters of context that change the probabilities."""
        return self.ngrams.shape[1] - 1

    def probabilities(self, contexts: np.ndarray) -> np.ndarray:
        """Return the probability of each symbol after each context.

        Args:
            contexts: (N, T) integers, T at least `block_size`; only the last symbols are used.

        Returns:
            (N, V) float64; each row sums to 1.
        """
        table = np.full((len(contexts), self.vocab_size), 1 / self.vocab_size)
        for level, ids in self._look_up(contexts):
            known = np.flatnonzero(ids >= 0)
            ids = ids[known]
            table[known] *= level.rest[ids, None]
            first = level.offsets[ids]
            n = level.offsets[ids + 1] - first
            # The entries of each context: first, first + 1, ... for n entries.
            entries = np.arange(n.sum()) + np.repeat(first - (np.cumsum(n) - n), n)
            targets = level.pairs[entries] % self.vocab_size
            table[np.repeat(known, n), targets] += level.mass[entries]
        return table

    def likelihoods(self, contexts: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """Return the probability of one target after each context, without the whole table.

        Args:
            contexts: (N, T) integers, T at least `block_size`.
            targets: (N,) integers.

        Returns:
            (N,) float64.
        """
        result = np.full(len(contexts), 1 / self.vocab_size)
        for level, ids in self._look_up(contexts):
            known = np.flatnonzero(ids >= 0)
            ids = ids[known]
            result[known] *= level.rest[ids]
            entries = _find(level.pairs, ids * self.vocab_size + targets[known])
            counted = entries >= 0
            result[known[counted]] += level.mass[entries[counted]]
        return result

    def _look_up(self, contexts: np.ndarray) -> Iterator[tuple[_Level, np.ndarray]]:
        """Yield each level, shortest context first, with the number of each context or -1."""
        ids = np.zeros(len(contexts), np.int64)
        for length, level in enumerate(self._levels):
            if length:
                keys = ids * self.vocab_size + contexts[:, -length]
                ids = np.where(ids >= 0, _find(level.contexts, keys), -1)
            yield level, ids


class _Level(NamedTuple):
    """The C contexts of one length, and the S pairs of a context and a target that were counted.

    Attributes:
        contexts: (C,) int64, sorted: the number of the context without its first symbol, times V,
            plus that symbol. The index is the number of the context.
        rest: (C,) float64, the factor gamma of the shorter context's probabilities.
        pairs: (S,) int64, sorted: number of the context times V, plus the target.
        offsets: (C + 1,) int64; context m has the pairs offsets[m] ... offsets[m + 1] - 1.
        mass: (S,) float64, the discounted share of each pair.
    """

    contexts: np.ndarray
    rest: np.ndarray
    pairs: np.ndarray
    offsets: np.ndarray
    mass: np.ndarray


def _count_levels(ngrams: np.ndarray, counts: np.ndarray, V: int) -> list[_Level]:
    """Return the levels for contexts of 0, 1, ... T symbols."""
    T = ngrams.shape[1] - 1
    targets = ngrams[:, T]
    ids = np.zeros(len(ngrams), np.int64)  # number of each n-gram's context
    keys = np.zeros(1, np.int64)
    levels = []
    for length in range(T + 1):
        if length:
            keys, ids = np.unique(ids * V + ngrams[:, T - length], return_inverse=True)
        pairs, pair_ids = np.unique(ids * V + targets, return_inverse=True)
        c = np.bincount(pair_ids, counts).astype(np.int64)
        if length < T:
            before = np.unique(pair_ids * V + ngrams[:, T - length - 1]) // V
            starts = np.zeros(len(pairs), bool)
            if length:
                starts[pair_ids] = ngrams[:, T - length] == 0
            c = np.where(starts, c, np.bincount(before, minlength=len(pairs)))
        if length > 1:
            beyond = np.zeros(len(pairs), bool)
            beyond[pair_ids] = ngrams[:, T - length + 1] == 0
            c[beyond] = 0
        levels.append(_smooth(keys, pairs[c > 0], c[c > 0], V))
    return levels


def _smooth(contexts: np.ndarray, pairs: np.ndarray, c: np.ndarray, V: int) -> _Level:
    """Discount the counts of one length."""
    n_contexts = len(contexts)
    owners = pairs // V
    discounts = np.array([0.0, *_discounts(c)])[np.minimum(c, 3)]
    total = np.bincount(owners, c, n_contexts)
    # A context without counts leaves the shorter context's probabilities as they are.
    rest = np.ones(n_contexts)
    np.divide(np.bincount(owners, discounts, n_contexts), total, out=rest, where=total > 0)
    offsets = np.searchsorted(owners, np.arange(n_contexts + 1))
    return _Level(contexts, rest, pairs, offsets, (c - discounts) / total[owners])


def _discounts(c: np.ndarray) -> tuple[float, ...]:
    """Return the discounts of counts 1, 2 and 3 or more (Chen & Goodman 1999, eq. 26)."""
    n1, n2, n3, n4 = (int((c == i).sum()) for i in (1, 2, 3, 4))
    if min(n1, n2, n3, n4) == 0:
        return FALLBACK
    share = n1 / (n1 + 2 * n2)
    found = (1 - 2 * share * n2 / n1, 2 - 3 * share * n3 / n2, 3 - 4 * share * n4 / n3)
    return found if min(found) > 0 else FALLBACK


def _find(keys: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Return the index of each wanted value in sorted keys, or -1."""
    at = np.searchsorted(keys, wanted)
    at[at == len(keys)] = 0
    return np.where(keys[at] == wanted, at, -1) if len(keys) else np.full(len(wanted), -1)
