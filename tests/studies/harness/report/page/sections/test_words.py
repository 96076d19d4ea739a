"""Sections 6 and 7: words that are not in train, and sampled names."""

from __future__ import annotations

import pytest

from makemore.config import Config
from makemore.counts import unseen_words as words_not_in_train
from makemore.data import Corpus
from makemore.model import MLP
from makemore.sampling import score_words
from studies.harness.report.judge.findings import check_model
from studies.harness.report.page.sections.words import samples, unseen_words


def test_loss_on_words_not_in_train_is_shown(corpus: Corpus) -> None:
    model = MLP(Config(block_size=3, n_embd=4, n_hidden=16, init="kaiming"), len(corpus.vocab))
    check = check_model(corpus, model)

    section = unseen_words(check)

    new = words_not_in_train(corpus)
    lengths = [len(word) + 1 for word in new]
    expected = float((score_words(model, corpus.vocab, new) * lengths).sum() / sum(lengths))
    assert check.new_loss == pytest.approx(expected)
    assert f"{len(new):,} of {check.n_dev:,} dev words" in section
    assert f"<td>{check.dev_loss:.4f}</td><td>{expected:.4f}</td>" in section
    assert f"<li>{check.words[0]}</li>" in samples(check)


def test_missing_model_is_reported(small_corpus: Corpus) -> None:
    check = check_model(small_corpus, None)

    assert "so its loss on them is unknown" in unseen_words(check)
    assert "so no names were sampled" in samples(check)


def test_missing_words_are_reported() -> None:
    for section in (unseen_words(None), samples(None)):
        assert "The file of words was not available" in section
