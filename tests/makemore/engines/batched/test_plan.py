"""Plans of the batched engine, compared with `makemore.draws` and `makemore.schedule`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from makemore import draws
from makemore.config import Config
from makemore.data import Corpus
from makemore.engines.base import Envelope
from makemore.engines.batched.layout import Layout
from makemore.engines.batched.plan import Knobs, TrainSet, learning_rates, make_plan
from makemore.schedule import lr_at
from tests.makemore.engines.batched.runs import CPU


@pytest.mark.parametrize("schedule", ["constant", "step", "cosine"])
@pytest.mark.parametrize("max_steps", [1, 2, 7, 1000, 200_000])
def test_learning_rates_equal_schedule(schedule: Any, max_steps: int) -> None:
    config = Config(lr=0.0123, schedule=schedule, max_steps=max_steps)
    knobs = Knobs(2, CPU, torch.float64)
    knobs.admit(1, config, 0)
    knobs.upload()
    steps = np.unique(np.linspace(0, max_steps - 1, 3000).astype(np.int64))
    rates = learning_rates(knobs, torch.from_numpy(steps).unsqueeze(1).expand(-1, 2))
    assert (rates[:, 1].numpy() == lr_at(config, steps)).all()
    # A row without a model has a learning rate of 0.
    assert (rates[:, 0] == 0).all()


# Contexts and targets equal those of the reference; unused positions have the extra symbol V.
def test_plan_has_reference_examples(small_corpus: Corpus) -> None:
    V = len(small_corpus.vocab)
    config = Config(block_size=2, batch_size=3, n_embd=4, n_hidden=5, seed=11)
    layout = Layout(Envelope(block_size=4, n_embd=4, n_hidden=5, batch_size=6), V)
    knobs = Knobs(1, CPU, torch.float64)
    knobs.admit(0, config, 7)
    knobs.upload()
    plan = make_plan(2, knobs, TrainSet(small_corpus.train, CPU), layout, torch.float32)
    for step, inputs in zip((7, 8), plan.steps, strict=True):
        X, Y = small_corpus.train.tensors(2, draws.batch_rows(11, step, 3, len(small_corpus.train)))
        codes = inputs.codes.view(4, 6)  # (T, B)
        assert (codes[:2] == V).all()
        assert (codes[2:, :3].T == X).all()
        assert (inputs.targets[0, 0, :3] == Y).all()
    assert plan.weights[0, 0].tolist() == pytest.approx([1 / 3] * 3 + [0] * 3)
