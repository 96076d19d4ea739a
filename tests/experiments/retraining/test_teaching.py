"""The teacher of a distillation, from its file."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from experiments.retraining.teaching import make_teacher, read_teacher
from makemore.checkpoint import save_checkpoint
from makemore.data import Corpus
from tests.makemore.teachers import BLOCK_SIZE, made_up_model


# Refusals are in test_distil.py.
def test_teacher_predicts_the_train_words(tmp_path: Path, small_corpus: Corpus) -> None:
    model = made_up_model(small_corpus)
    path = save_checkpoint(tmp_path / "t.safetensors", model, small_corpus.vocab)
    teacher = make_teacher(path, read_teacher(path, small_corpus), small_corpus, 0.7)

    X, _ = small_corpus.train.tensors(BLOCK_SIZE)
    found = teacher.table[teacher.rows]
    np.testing.assert_allclose(found, model(X).softmax(1).detach(), rtol=1e-4, atol=1e-7)
    assert teacher.record == {
        "source": "t.safetensors",
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "weight": 0.7,
    }
