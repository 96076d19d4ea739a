"""The words and the soft targets that a teacher adds to a corpus."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from experiments.retraining.teaching import Remembering, read_teacher, teach
from makemore.checkpoint import save_checkpoint
from makemore.counts import list_words
from makemore.data import Corpus
from makemore.model import MLP
from makemore.sampling import sample_words
from tests.makemore.teachers import BLOCK_SIZE, made_up_model


def test_sampled_words_follow_the_train_words(tmp_path: Path, small_corpus: Corpus) -> None:
    model = made_up_model(small_corpus)
    path = save_checkpoint(tmp_path / "t.safetensors", model, small_corpus.vocab)
    trained = read_teacher(path, small_corpus)
    taught = teach(small_corpus, path, trained, 0.7, sampled=9, seed=5)

    words = list_words(small_corpus.train, small_corpus.vocab)
    words += sample_words(model, small_corpus.vocab, 9, seed=5)
    assert list_words(taught.train, taught.vocab) == words
    # The dev words, which are evaluated, are the same.
    assert taught.dev is small_corpus.dev
    assert taught.teacher is not None and taught.teacher.weight == 0.7
    X, _ = taught.train.tensors(BLOCK_SIZE)
    found = taught.teacher.table[taught.teacher.rows]
    np.testing.assert_allclose(found, model(X).softmax(1).detach(), rtol=1e-4, atol=1e-7)


def test_each_context_is_predicted_once(small_corpus: Corpus) -> None:
    predicted = []

    class Counted(MLP):
        def forward(self, X: torch.Tensor, keep: torch.Tensor | None = None) -> torch.Tensor:
            predicted.append(len(X))
            return super().forward(X, keep)

    model = Counted(made_up_model(small_corpus).config, len(small_corpus.vocab))
    remembering = Remembering(model)
    X, _ = small_corpus.train.tensors(BLOCK_SIZE)
    different = len(np.unique(X.numpy(), axis=0))

    found = torch.cat([remembering(X[:50]), remembering(X), remembering(X)])
    assert sum(predicted) == different < len(X)
    expected = model(torch.cat([X[:50], X, X]))
    torch.testing.assert_close(found, expected.detach(), rtol=1e-4, atol=1e-5)
