"""The exact mean loss of a user's model over a split."""

from __future__ import annotations

import math

import pytest
import torch

from makemore.data import Corpus
from makemore.evaluation import evaluate, mean_loss
from makemore.models import Network, build
from tests.own_model import OwnConfig, OwnModel


def test_evaluation_is_the_mean_over_all_examples(corpus: Corpus) -> None:
    config = OwnConfig(block_size=2, n_hidden=12)
    V = len(corpus.vocab)
    model = Network(build(OwnModel, config, V), config, V)
    X, Y = corpus.dev.tensors(2)
    with torch.no_grad():
        expected = torch.nn.functional.cross_entropy(model(X).double(), Y).item()

    assert evaluate(model, corpus.dev) == pytest.approx(expected, rel=1e-6)


def test_stopped_evaluation_is_nan(small_corpus: Corpus) -> None:
    config = OwnConfig()
    module = build(OwnModel, config, len(small_corpus.vocab))

    assert math.isnan(mean_loss(module, small_corpus.dev, 3, stopped=lambda: True))
