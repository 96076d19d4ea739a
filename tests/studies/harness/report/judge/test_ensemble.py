"""Estimate of an ensemble: its losses, and the models that it reads."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from makemore.config import Config
from makemore.counts import list_words
from makemore.data import Corpus
from makemore.ensemble import likelihoods
from makemore.model import MLP
from makemore.selection import ENSEMBLE, cross_fit, halves, losses
from studies.harness.report.judge import ensemble
from studies.harness.report.judge.ensemble import estimate_ensemble


def models(corpus: Corpus, n: int) -> list[MLP]:
    config = Config(block_size=3, n_embd=2, n_hidden=4, init="kaiming")
    return [MLP(config.replace(seed=seed), len(corpus.vocab)) for seed in range(n)]


def test_losses_are_cross_fitted(small_corpus: Corpus) -> None:
    some = models(small_corpus, 4)

    found = estimate_ensemble(some, small_corpus)

    assert found is not None and found.n_models == 4 and 1 <= found.n_members <= 4
    table = np.array([likelihoods(model, small_corpus.dev) for model in some])
    words = list_words(small_corpus.dev, small_corpus.vocab)
    assert found.dev_loss == losses(cross_fit(table, None, halves(words)))[ENSEMBLE]
    assert found.mixed_loss < found.dev_loss  # counts are better than untrained networks
    assert f"An ensemble of {found.n_members} of the 4 best models" in found.sentence
    assert found.summary()["dev_loss"] == found.dev_loss


def test_work_is_limited(small_corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    some = models(small_corpus, 4)
    work = some[0].flat.numel() * len(small_corpus.dev.distinct(3).positions)
    monkeypatch.setattr(ensemble, "MAX_WORK", 2.5 * work)
    read = []

    def reading() -> Iterator[MLP]:
        for model in some:
            read.append(model)
            yield model

    found = estimate_ensemble(reading(), small_corpus)

    assert found is not None and found.n_models == 2
    assert len(read) == 3


def test_one_model_makes_no_ensemble(small_corpus: Corpus) -> None:
    assert estimate_ensemble(models(small_corpus, 1), small_corpus) is None
    assert estimate_ensemble([], small_corpus) is None
