"""Diagnostics of the lecture's two initialisations."""

from __future__ import annotations

import math

import pytest

from makemore.config import Config
from makemore.data import Corpus
from makemore.diagnostics import diagnose
from makemore.engines import EvalPoint
from makemore.model import MLP

POINT = EvalPoint(step=1, minibatch_loss=3.0, dev_loss=3.0, lr=0.1)


def test_lectures_weights_saturate_and_start_high(corpus: Corpus) -> None:
    found = diagnose(MLP(Config(init="lecture"), 27), POINT, corpus)

    assert found["init_loss"] > 5 * math.log(27) and found["tanh_saturation"] > 0.3


def test_scaled_weights_start_at_the_uniform_loss(corpus: Corpus) -> None:
    found = diagnose(MLP(Config(init="kaiming"), 27), POINT, corpus)

    assert found["init_loss"] == pytest.approx(math.log(27), abs=0.05)
    assert found["tanh_saturation"] < 0.2


def test_update_ratio_is_log10_of_the_lr(corpus: Corpus) -> None:
    model = MLP(Config(init="kaiming"), 27)
    slow, fast = (
        diagnose(model, EvalPoint(1, 3.0, 3.0, lr), corpus)["log10_update_ratio"]
        for lr in (0.01, 0.1)
    )

    assert fast - slow == pytest.approx(1.0, abs=1e-5)


def test_update_ratio_of_zero_is_left_out(corpus: Corpus) -> None:
    found = diagnose(MLP(Config(init="kaiming"), 27), EvalPoint(1, 3.0, 3.0, lr=0.0), corpus)

    assert set(found) == {"init_loss", "tanh_saturation"}
