"""The exact mean loss over a split, compared with torch in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from makemore.config import Config
from makemore.data import Corpus, Examples
from makemore.engines.autograd import AutogradSlot
from makemore.engines.cpu.evaluation import evaluate
from makemore.engines.cpu.slot import Slot
from makemore.model import MLP
from makemore.words import Vocab

BASE = Config(block_size=3, n_embd=10, n_hidden=200, batch_size=32, init="kaiming", seed=3)
TABLE: list[dict[str, Any]] = [
    {},
    {"block_size": 1, "n_embd": 1, "n_hidden": 1},
    {"block_size": 8, "n_embd": 24, "n_hidden": 65, "direct": True},
    {"block_size": 32, "n_embd": 17, "n_hidden": 16, "dropout": 0.5, "init": "lecture"},
]


@pytest.fixture(scope="module")
def many_letters() -> Corpus:
    """A corpus with 400 different characters."""
    letters = [chr(0x4E00 + k) for k in range(400)]
    draw = np.random.default_rng(0)
    words = ["".join(draw.choice(letters, 3 + k % 5)) for k in range(300)] + ["".join(letters)]
    vocab = Vocab.of(words)
    return Corpus(
        vocab, Examples.of(words, vocab), Examples.of(words[:50], vocab), "0" * 64, "many letters"
    )


def exact_mean(model: MLP, examples: Examples) -> float:
    """Return the mean loss computed by torch in float64."""
    X, Y = examples.tensors(model.config.block_size)
    with torch.no_grad():
        return model.double().loss(X, Y).item()


@pytest.mark.parametrize("changes", TABLE)
def test_evaluation_is_exact_mean(small_corpus: Corpus, changes: dict[str, Any]) -> None:
    model = MLP(BASE.replace(**changes), len(small_corpus.vocab))

    for examples in (small_corpus.dev, small_corpus.train):
        assert evaluate(model, examples) == pytest.approx(exact_mean(model, examples), rel=1e-6)


def test_evaluation_of_extreme_logits(small_corpus: Corpus) -> None:
    model = MLP(BASE.replace(init="lecture"), len(small_corpus.vocab))
    with torch.no_grad():
        model.W2.mul_(30)  # logits hundreds of nats apart, where float32's exp underflows

    assert evaluate(model, small_corpus.dev) == pytest.approx(
        exact_mean(model, small_corpus.dev), rel=1e-6
    )
    assert exact_mean(model, small_corpus.dev) > 100


def test_evaluation_bits_do_not_depend_on_chunks(
    corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = MLP(BASE.replace(direct=True), len(corpus.vocab))
    whole = evaluate(model, corpus.dev)
    monkeypatch.setattr("makemore.engines.cpu.evaluation.EVAL_CHUNK", 1000)
    monkeypatch.setattr("makemore.engines.cpu.evaluation.EVAL_BLOCK", 7)

    assert evaluate(model, corpus.dev) == whole


def test_vocabulary_of_hundreds_of_symbols(many_letters: Corpus) -> None:
    config = BASE.replace(max_steps=20, eval_interval=20, batch_size=16)
    slot = Slot(config, many_letters)
    true = AutogradSlot(config, many_letters)
    losses = slot.run(20)

    assert many_letters.train.stream.dtype == np.uint16
    assert losses == pytest.approx(true.run(20), rel=1e-5)
    model = true.model
    assert isinstance(model, MLP)
    assert evaluate(model, many_letters.dev) == pytest.approx(
        exact_mean(model, many_letters.dev), rel=1e-6
    )
