"""Selection of an ensemble's members: greedy, with replacement, cross-fitted by word.

Source: Caruana et al. 2004, "Ensemble selection from libraries of models". All functions need only
the probability that each candidate gives to the target of each example.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from makemore.counts import examples_of

SIZE = 12  # members at most, by default
# Weights of the counting model that are tried.
WEIGHTS = np.linspace(0, 1, 101)
# A further member must lower the loss by more than this, so rounding never adds one.
LEAST_GAIN = 1e-9
SPLIT_SEED = 42  # of the halves


@dataclass(frozen=True)
class Choice:
    """An ensemble of some candidates, mixed with a counting model.

    Attributes:
        picks: (M,) int64, how often each candidate was selected.
        best: index of the candidate with the lowest loss.
        counts_weight: of the counting model in the ensemble; 0 without one.
        best_counts_weight: of the counting model in the mixture with the best candidate alone.
    """

    picks: np.ndarray
    best: int
    counts_weight: float = 0.0
    best_counts_weight: float = 0.0

    @property
    def weights(self) -> np.ndarray:
        """(M,) float64, the weight of each candidate; they sum to 1."""
        return self.picks / self.picks.sum()


def choose(likelihoods: np.ndarray, counted: np.ndarray | None, size: int = SIZE) -> Choice:
    """Select members, then fit the weight of the counting model, both on the same examples.

    Args:
        likelihoods: (M, N) float64, the probability that each candidate gives to each target.
        counted: (N,) float64, the same of the counting model; None without one.
        size: number of picks at most; a candidate may be picked several times.
    """
    picks = select(likelihoods, size)
    best = int(np.log(likelihoods).mean(1).argmax())
    if counted is None:
        return Choice(picks, best)
    mean = picks @ likelihoods / picks.sum()
    return Choice(picks, best, fit_weight(mean, counted), fit_weight(likelihoods[best], counted))


def select(likelihoods: np.ndarray, size: int) -> np.ndarray:
    """Return how often each candidate is picked.

    It starts with the n candidates of the lowest losses, where n, at most half of the size, gives
    their mean the lowest loss (Caruana et al. 2004, section 2.2, against overfitting). Each further
    pick is the candidate whose addition lowers the loss of the mean probability most. It ends at
    `size` picks, or before, where no addition lowers the loss.

    Args:
        likelihoods: (M, N) float64.
        size: number of picks at most, at least 1.

    Returns:
        (M,) int64.
    """
    total, picks = _start(likelihoods, max(1, size // 2))
    lowest = _loss(total / picks.sum())
    for n in range(int(picks.sum()) + 1, size + 1):
        losses = [_loss((total + row) / n) for row in likelihoods]
        best = int(np.argmin(losses))
        if losses[best] > lowest - LEAST_GAIN:
            break
        lowest = losses[best]
        total += likelihoods[best]
        picks[best] += 1
    return picks


def _start(likelihoods: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the sum and the picks of the best candidates whose mean has the lowest loss."""
    order = np.argsort([_loss(row) for row in likelihoods], kind="stable")[:most]
    sums = np.cumsum(likelihoods[order], axis=0)
    best, lowest = 0, math.inf
    for n, total in enumerate(sums, start=1):
        if (loss := _loss(total / n)) < lowest - LEAST_GAIN:
            best, lowest = n, loss
    picks = np.zeros(len(likelihoods), np.int64)
    picks[order[:best]] = 1
    return sums[best - 1].copy(), picks


def _loss(likelihoods: np.ndarray) -> float:
    return -float(np.log(likelihoods).mean())


def fit_weight(likelihoods: np.ndarray, counted: np.ndarray) -> float:
    """Return the weight of the counting model with the lowest loss, of WEIGHTS.

    Args:
        likelihoods: (N,) float64 of the network or the ensemble.
        counted: (N,) float64 of the counting model.
    """
    losses = [_loss(mix(likelihoods, counted, float(weight))) for weight in WEIGHTS]
    return float(WEIGHTS[int(np.argmin(losses))])


def mix(likelihoods: np.ndarray, counted: np.ndarray, weight: float) -> np.ndarray:
    """Return the mixture of two probabilities; `weight` is that of the second."""
    return (1 - weight) * likelihoods + weight * counted


# The rows of the table, in its order.
ALONE = "net alone"
HALF = "mixed at 0.5"
MIXED = "mixed at the fitted weight"
ENSEMBLE = "ensemble"
ENSEMBLE_MIXED = "ensemble mixed"


def predictions(
    choice: Choice, likelihoods: np.ndarray, counted: np.ndarray | None
) -> dict[str, np.ndarray]:
    """Return what each combination gives to each target, in the form of Bengio's tables 1 and 2.

    Args:
        choice: the members and the weights.
        likelihoods: (M, N) float64 of all candidates, on any examples.
        counted: (N,) float64 of the counting model; without it the mixtures are left out.

    Returns:
        (N,) float64 by the name of the combination.
    """
    net = likelihoods[choice.best]
    mean = choice.weights @ likelihoods
    if counted is None:
        return {ALONE: net, ENSEMBLE: mean}
    return {
        ALONE: net,
        HALF: mix(net, counted, 0.5),
        MIXED: mix(net, counted, choice.best_counts_weight),
        ENSEMBLE: mean,
        ENSEMBLE_MIXED: mix(mean, counted, choice.counts_weight),
    }


def halves(words: Sequence[str]) -> np.ndarray:
    """Split the examples of some words into two halves by word; a word is never in both.

    Returns:
        (N,) bool, whether an example is in the first half.
    """
    different = sorted(set(words))
    order = np.random.default_rng(SPLIT_SEED).permutation(len(different))
    first = {different[i] for i in order[: len(different) // 2]}
    return examples_of(words, first.__contains__)


def cross_fit(
    likelihoods: np.ndarray, counted: np.ndarray | None, first: np.ndarray, size: int = SIZE
) -> dict[str, np.ndarray]:
    """Choose members and weights on one half, predict the other half with them, then swap.

    No example has a part in the choice of the members and weights that predict it.

    Args:
        likelihoods: (M, N) float64.
        counted: (N,) float64, or None.
        first: (N,) bool, from `halves`.
        size: see `choose`.

    Returns:
        As `predictions`.
    """
    found: dict[str, np.ndarray] = {}
    for chosen, measured in ((first, ~first), (~first, first)):
        choice = choose(likelihoods[:, chosen], _rows(counted, chosen), size)
        parts = predictions(choice, likelihoods[:, measured], _rows(counted, measured))
        for name, part in parts.items():
            found.setdefault(name, np.empty(len(first)))[measured] = part
    return found


def _rows(counted: np.ndarray | None, rows: np.ndarray) -> np.ndarray | None:
    return None if counted is None else counted[rows]


def losses(found: dict[str, np.ndarray]) -> dict[str, float]:
    """Return the mean loss of each combination in nats per character."""
    return {name: _loss(p) for name, p in found.items()}


def costs_of_words(likelihoods: np.ndarray, lengths: Iterable[int]) -> np.ndarray:
    """Return the cross-entropy of each word, its end included, in nats.

    Args:
        likelihoods: (N,) float64.
        lengths: of the words, with their ends; they sum to N.
    """
    ends = np.cumsum(list(lengths))
    return -np.add.reduceat(np.log(likelihoods), np.concatenate([[0], ends[:-1]]))
