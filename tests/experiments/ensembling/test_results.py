"""Selection of an ensemble from candidates, and its losses on words."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from experiments.ensembling.candidates import Candidate
from experiments.ensembling.results import PAIRS, Selected, measure_test, select_ensemble
from makemore.config import Config
from makemore.data import Corpus, Examples
from makemore.errors import UserError
from makemore.model import MLP
from makemore.sampling import score_words
from makemore.selection import ALONE, ENSEMBLE, ENSEMBLE_MIXED
from makemore.words import split_words


@pytest.fixture
def selected(small_corpus: Corpus) -> Selected:
    """An ensemble of untrained models."""
    config = Config(block_size=3, n_embd=2, n_hidden=4, init="kaiming")
    models = [MLP(config.replace(seed=seed), len(small_corpus.vocab)) for seed in range(5)]
    candidates = [Candidate("made-up", number, 3.0, model) for number, model in enumerate(models)]
    return select_ensemble(candidates, small_corpus, size=4, with_counts=True)


def test_members_have_the_weights_of_their_picks(selected: Selected, small_corpus: Corpus) -> None:
    ensemble = selected.ensemble(small_corpus, {})

    picks = [n for _, n in selected.members]
    assert picks == sorted(picks, reverse=True) and 1 <= sum(picks) <= 4
    assert ensemble.weights == tuple(n / sum(picks) for n in picks)
    assert ensemble.models == tuple(candidate.model for candidate, _ in selected.members)
    assert selected.dev_loss == selected.dev.losses[ENSEMBLE_MIXED]


def test_test_losses_are_those_of_the_ensemble(
    selected: Selected, small_corpus: Corpus, words: list[str]
) -> None:
    test = split_words(words).test
    lengths = np.array([len(word) + 1 for word in test])

    measured = measure_test(selected, small_corpus, test)

    ensemble = selected.ensemble(small_corpus, {})
    for name, model in ((ENSEMBLE_MIXED, ensemble), (ALONE, selected.best.model)):
        scores = score_words(model, small_corpus.vocab, test)
        loss = float(scores @ lengths / lengths.sum())
        assert measured.losses[name] == pytest.approx(loss, abs=1e-6)
    assert [difference.names for difference in measured.differences] == list(PAIRS)
    first = measured.differences[0]
    expected = measured.losses[ENSEMBLE] - measured.losses[ALONE]
    assert first.loss == pytest.approx(expected)


def test_one_dev_word_is_refused(selected: Selected, small_corpus: Corpus) -> None:
    dev = Examples.of(["anna", "anna"], small_corpus.vocab)
    corpus = dataclasses.replace(small_corpus, dev=dev)

    with pytest.raises(UserError, match="fewer than 2 different words"):
        select_ensemble(selected.candidates, corpus, size=4, with_counts=False)
