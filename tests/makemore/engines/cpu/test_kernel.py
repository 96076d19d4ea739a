"""The CPU kernel: draws, gradients and steps, compared with autograd."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import pytest
import torch

from makemore.config import Config
from makemore.data import Corpus
from makemore.draws import batch_rows, step_keys, stream_key
from makemore.engines.autograd import AutogradSlot
from makemore.engines.cpu import kernel
from makemore.engines.cpu.memory import Batch, make_batch, write_model
from makemore.engines.cpu.slot import Slot, number_contexts
from makemore.model import MLP
from tests.makemore.engines.table import VARIANTS
from tests.makemore.teachers import taught

Array = np.ndarray


BASE = Config(
    block_size=3, n_embd=10, n_hidden=200, batch_size=32, max_steps=10, init="kaiming", seed=3
)


# Python cannot call parts of the kernel: they are compiled without the wrappers for it.


@numba.njit
def call_draw_batch(
    batch: Batch, key: np.uint32, positions: Array, numbers: Array, stream: Array
) -> int:
    return kernel.draw_batch(batch, key, positions, numbers, stream)


@pytest.mark.parametrize("merged", [True, False])
@pytest.mark.parametrize("step", [0, 1, 199_999, 2**32 - 1])
def test_batch_equals_reference_draws(corpus: Corpus, step: int, merged: bool) -> None:
    train = corpus.train
    rows = batch_rows(11, step, 300, len(train))
    numbers = number_contexts(train, 3)
    stream = train.stream.astype(np.uint16)
    batch = make_batch(300, int(numbers.max()) + 1 if merged else 0, taught=True)
    key = step_keys(stream_key(11, "batch"), np.array([step]))[0]
    n = call_draw_batch(batch, key, train.positions, numbers, stream)

    # Each example's row has the example's context; with merging each context has one row.
    contexts = train.contexts(3, rows)
    windows = np.stack([train.stream[end - 3 : end] for end in batch.positions[:n]])
    assert np.array_equal(windows[batch.rows], contexts)
    assert np.array_equal(batch.examples, rows)
    assert np.array_equal(batch.targets, train.targets[rows])
    assert np.array_equal(batch.counts[:n], np.bincount(batch.rows))
    assert n == (len(np.unique(contexts, axis=0)) if merged else 300)
    assert np.all(batch.row_of_context == -1)


# The reported loss is that of the true targets, the gradient that of the mixed ones.
@pytest.mark.parametrize("weight", [None, 0.3, 1.0])
@pytest.mark.parametrize("changes", VARIANTS)
def test_gradients_match_autograd(
    small_corpus: Corpus, changes: dict[str, Any], weight: float | None
) -> None:
    corpus = small_corpus if weight is None else taught(small_corpus, weight)
    config = BASE.replace(**changes)
    slot = Slot(config, corpus)
    true = AutogradSlot(config, corpus)
    loss = slot.run(1)

    expected, objective = true.losses_of_batch()
    objective.backward()
    gradient = MLP(config, len(small_corpus.vocab))
    write_model(slot.gradient, gradient)
    assert loss == pytest.approx(expected.item(), rel=1e-6)
    for (name, ours), parameter in zip(
        gradient.named_parameters(), true.model.parameters(), strict=True
    ):
        assert parameter.grad is not None
        error = torch.linalg.norm(ours - parameter.grad) / torch.linalg.norm(parameter.grad)
        assert error < 1e-5, name


@pytest.mark.parametrize("changes", VARIANTS)
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_steps_match_torch_optimizers(
    small_corpus: Corpus, changes: dict[str, Any], optimizer: str
) -> None:
    lr = {"sgd": 0.05, "adamw": 0.01}[optimizer]
    config = BASE.replace(
        **{
            **changes,
            "init": "kaiming",
            "optimizer": optimizer,
            "lr": lr,
            "schedule": "cosine",
            "weight_decay": 0.3,
        }
    )
    slot = Slot(config, small_corpus)
    true = AutogradSlot(config, small_corpus)
    losses = slot.run(6) + slot.run(3)

    assert losses == pytest.approx(true.run(9), rel=1e-5)
    ours = MLP(config, len(small_corpus.vocab))
    write_model(slot.weights, ours)
    assert isinstance(true.model, MLP)
    error = torch.linalg.norm(ours.flat - true.model.flat) / torch.linalg.norm(true.model.flat)
    assert error < 1e-5


def test_infinite_loss_stops_training(small_corpus: Corpus) -> None:
    slot = Slot(BASE.replace(lr=1e38), small_corpus)

    assert not np.isfinite(slot.run(10))
    assert slot.steps_done < 10
