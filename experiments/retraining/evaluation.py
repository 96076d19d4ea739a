"""Evaluate retrained models: exact losses of each split, and counting baselines.

Only experiments/retrain.py reads the test split; it passes the words to these functions.
experiments/distil.py passes none.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from experiments.retraining.results import TRAIN, SeedResult
from makemore.counts import ladder, list_words
from makemore.data import Corpus, Examples
from makemore.engines import TrainResult
from makemore.evaluation import evaluate
from makemore.sampling import score_words

# The lecture's first trained model, on its own file of names. The lecture gives no test loss.
LECTURE = {"train_loss": 2.126, "dev_loss": 2.17}


def join_dev(corpus: Corpus) -> Corpus:
    """Return the corpus with the dev words added to train. Its dev loss then measures nothing."""
    words = []
    for split in (corpus.train, corpus.dev):
        words += list_words(split, corpus.vocab)
    return dataclasses.replace(corpus, train=Examples.of(words, corpus.vocab))


def evaluate_seeds(
    results: Sequence[TrainResult], corpus: Corpus, on: str, test: Sequence[str] | None
) -> list[SeedResult]:
    """Compute the exact losses of each result, and its cost of each word of the last split.

    Args:
        corpus: the words that the results were trained on.
        on: TRAIN or TRAIN_AND_DEV.
        test: the words of the test split; None if it is not read, then the last split is dev.
    """
    splits = {"train_loss": corpus.train}
    words = list_words(corpus.dev, corpus.vocab)
    if on == TRAIN:
        splits["dev_loss"] = corpus.dev
    if test is not None:
        splits["test_loss"] = Examples.of(test, corpus.vocab)
        words = list(test)
    lengths = np.array([len(word) + 1 for word in words])

    seeds = []
    for result in results:
        losses = {name: evaluate(result.model, split) for name, split in splits.items()}
        costs = score_words(result.model, corpus.vocab, words) * lengths
        seeds.append(SeedResult(result, losses, costs))
    return seeds


class Baseline(NamedTuple):
    """A model to compare with; `losses` holds its known train_loss, dev_loss and test_loss."""

    name: str
    losses: dict[str, float]


def baselines(corpus: Corpus, on: str, test: Sequence[str]) -> list[Baseline]:
    """Fit counting models on the network's training words; add the lecture's model for its names.

    Args:
        corpus: the words that the network was trained on.
        on: TRAIN or TRAIN_AND_DEV.
        test: the words of the test split.
    """
    # Imported late: it loads pandas, which takes half a second.
    from studies.harness.report.judge.findings import NAMES

    on_test = ladder(dataclasses.replace(corpus, dev=Examples.of(test, corpus.vocab)))
    counted = [Baseline(model.name, {"test_loss": model.dev_loss}) for model in on_test]
    if on != TRAIN:
        return counted

    for model, baseline in zip(ladder(corpus), counted, strict=True):
        baseline.losses["dev_loss"] = model.dev_loss
    if corpus.sha256 in NAMES:
        counted.append(Baseline("the lecture's model, on its own file", LECTURE))
    return counted
