"""Teachers: the soft targets of a train split, their record, and refused input."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from makemore import teacher as module
from makemore.data import Corpus
from makemore.errors import UserError
from makemore.teacher import Teacher
from tests.makemore.teachers import BLOCK_SIZE, made_up_model, taught


@pytest.mark.parametrize("chunk", [7, 8192])
def test_each_example_has_its_prediction(
    corpus: Corpus, monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    monkeypatch.setattr(module, "CHUNK", chunk)
    part = dataclasses.replace(corpus, train=corpus.dev)
    model = made_up_model(corpus)
    teacher = Teacher.of(model, part, 0.5)

    X, _ = corpus.dev.tensors(BLOCK_SIZE)
    expected = model(X).softmax(1).detach().numpy()
    np.testing.assert_allclose(teacher.table[teacher.rows], expected, rtol=1e-4, atol=1e-7)
    # Each distinct context has one row.
    assert teacher.table.dtype == np.float32
    assert len(teacher.table) == len(np.unique(X.numpy(), axis=0)) < len(corpus.dev)


def test_targets_mix_truth_and_predictions(small_corpus: Corpus) -> None:
    teacher = taught(small_corpus, 0.25).teacher
    assert teacher is not None
    examples = np.array([5, 0, 5, 90])
    symbols = small_corpus.train.targets[examples]
    targets = teacher.targets(examples, symbols)

    for row, example, symbol in zip(targets, examples, symbols, strict=True):
        expected = 0.25 * teacher.table[teacher.rows[example]]
        expected[symbol] += 0.75
        np.testing.assert_allclose(row, expected, rtol=1e-6)
    np.testing.assert_allclose(targets.sum(1), 1, rtol=1e-5)


def test_record_names_file_and_weight(small_corpus: Corpus) -> None:
    teacher = taught(small_corpus, 0.25).teacher
    assert teacher is not None
    assert teacher.record == {"source": "made up", "sha256": "0" * 64, "weight": 0.25}


@pytest.mark.parametrize("weight", [-0.1, 1.1, float("nan")])
def test_weight_outside_unit_interval_is_refused(small_corpus: Corpus, weight: float) -> None:
    with pytest.raises(UserError, match=f"must be between 0 and 1, but got {weight}"):
        taught(small_corpus, weight)


def test_teacher_of_other_split_is_refused(small_corpus: Corpus) -> None:
    with pytest.raises(ValueError, match="another train split"):
        dataclasses.replace(taught(small_corpus, 0.5), train=small_corpus.dev)
