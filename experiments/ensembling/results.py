"""Selection of an ensemble from candidates, and its losses on dev and test."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from experiments.ensembling.candidates import Candidate
from experiments.retraining.comparison import Difference, compare
from makemore.counts import list_words
from makemore.data import Corpus, Examples
from makemore.ensemble import Ensemble, likelihoods
from makemore.errors import UserError
from makemore.kneser_ney import KneserNey
from makemore.selection import (
    ALONE,
    ENSEMBLE,
    ENSEMBLE_MIXED,
    MIXED,
    Choice,
    choose,
    costs_of_words,
    cross_fit,
    halves,
    losses,
    predictions,
)

# What each combination is compared with, paired by word.
PAIRS = (
    (ENSEMBLE, ALONE),
    (ENSEMBLE_MIXED, ENSEMBLE),
    (ENSEMBLE_MIXED, MIXED),
    (ENSEMBLE_MIXED, ALONE),
)


@dataclass(frozen=True)
class Measured:
    """Losses of all combinations on one split.

    Attributes:
        losses: by the name of the combination, in nats per character.
        differences: of PAIRS, paired by word.
    """

    losses: dict[str, float]
    differences: list[Difference]

    @classmethod
    def of(cls, found: dict[str, np.ndarray], words: Sequence[str]) -> Measured:
        """Measure probabilities.

        Args:
            found: (N,) probabilities of the targets, by combination.
            words: of the split, in order.
        """
        lengths = np.array([len(word) + 1 for word in words])
        costs = {name: costs_of_words(p, lengths)[None] for name, p in found.items()}
        differences = [
            compare((first, second), costs[first], costs[second], lengths)
            for first, second in PAIRS
            if first in costs
        ]
        return cls(losses(found), differences)


@dataclass(frozen=True)
class Selected:
    """An ensemble that was selected on all dev words.

    Attributes:
        candidates: all models that it was selected from, lowest dev loss first.
        choice: picks and weights, chosen on all dev words.
        counts: the counting model; None without one.
        dev: cross-fitted: members and weights chosen on one half of the dev words and measured on
            the other, and the reverse.
        same_words: losses by combination on the dev words on which `choice` was made; biased low.
    """

    candidates: list[Candidate]
    choice: Choice
    counts: KneserNey | None
    dev: Measured
    same_words: dict[str, float]

    @property
    def members(self) -> list[tuple[Candidate, int]]:
        """The picked candidates and how often each was picked, most picks first."""
        picks = self.choice.picks
        order = np.argsort(-picks, kind="stable")
        return [(self.candidates[m], int(picks[m])) for m in order if picks[m]]

    @property
    def best(self) -> Candidate:
        """The single model with the lowest dev loss."""
        return self.candidates[self.choice.best]

    @property
    def dev_loss(self) -> float:
        """Cross-fitted dev loss of the saved model: mixed with the counts if there are any."""
        return self.dev.losses[ENSEMBLE if self.counts is None else ENSEMBLE_MIXED]

    def ensemble(self, corpus: Corpus, metadata: dict[str, Any]) -> Ensemble:
        """Return the members and the counts as one model."""
        total = sum(n for _, n in self.members)
        return Ensemble(
            tuple(candidate.model for candidate, _ in self.members),
            tuple(n / total for _, n in self.members),
            corpus.vocab,
            self.counts,
            self.choice.counts_weight,
            metadata,
        )


def select_ensemble(
    candidates: list[Candidate], corpus: Corpus, *, size: int, with_counts: bool
) -> Selected:
    """Select an ensemble on dev, and measure it cross-fitted.

    Args:
        candidates: the models to select from.
        corpus: the words that they were trained on.
        size: picks at most.
        with_counts: whether to mix it with a counting model.

    Raises:
        UserError: there are too few dev words to choose on one half of them.
    """
    words = list_words(corpus.dev, corpus.vocab)
    if len(set(words)) < 2:
        raise UserError("the dev split has fewer than 2 different words; give a longer file.")
    table = np.array([likelihoods(candidate.model, corpus.dev) for candidate in candidates])
    counts = KneserNey.fit(corpus.train, len(corpus.vocab)) if with_counts else None
    counted = _counted(counts, corpus.dev)
    crossed = cross_fit(table, counted, halves(words), size)
    choice = choose(table, counted, size)
    same_words = losses(predictions(choice, table, counted))
    return Selected(candidates, choice, counts, Measured.of(crossed, words), same_words)


def measure_test(selected: Selected, corpus: Corpus, test: Sequence[str]) -> Measured:
    """Measure the selected members, weights and best single model on the words of test."""
    examples = Examples.of(test, corpus.vocab)
    choice = selected.choice
    needed = np.flatnonzero(choice.picks)
    table = np.ones((len(selected.candidates), len(examples)))
    for m in {*needed.tolist(), choice.best}:
        table[m] = likelihoods(selected.candidates[m].model, examples)
    found = predictions(choice, table, _counted(selected.counts, examples))
    return Measured.of(found, test)


def _counted(counts: KneserNey | None, examples: Examples) -> np.ndarray | None:
    if counts is None:
        return None
    return counts.likelihoods(examples.contexts(counts.block_size), examples.targets)
