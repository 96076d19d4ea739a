from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from makemore import draws
from makemore.config import Config
from makemore.data import Corpus
from makemore.engines.base import Envelope
from makemore.engines.batched.draws import Dropout, batch_rows, dropout_keep, mix, signed, step_keys
from makemore.engines.batched.layout import Layout
from makemore.engines.batched.plan import Knobs, TrainSet, learning_rates, make_plan
from makemore.schedule import lr_at

CPU = torch.device("cpu")


def words(bits: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(bits.astype(np.uint32).view(np.int32))


# The corners of 32 bits, where a shift or a product would go wrong first, and many words between.
def test_mix_equals_the_reference_bit_for_bit() -> None:
    corners = np.array([0, 1, 2**15, 2**16 - 1, 2**16, 2**31 - 1, 2**31, 2**32 - 1], np.uint32)
    bits = np.r_[corners, np.random.default_rng(0).integers(0, 2**32, 10_000, np.uint32)]
    assert (mix(words(bits)).numpy().view(np.uint32) == draws.mix(bits)).all()


@given(
    seed=st.integers(0, 2**63 - 1),
    step=st.integers(0, 2**31 - 1),
    n_examples=st.integers(1, 2**31 - 1),
)
@settings(deadline=None, max_examples=30)
def test_batches_equal_the_reference(seed: int, step: int, n_examples: int) -> None:
    key = torch.tensor([signed(draws.stream_key(seed, "batch"))], dtype=torch.int32)
    keys = step_keys(key, torch.tensor([[step]], dtype=torch.int32))
    ours = batch_rows(keys, 33, n_examples)[0, 0]
    assert ours.tolist() == draws.batch_rows(seed, step, 33, n_examples).tolist()


def check_dropout(seed: int, step: int, dropout: float) -> None:
    """Two models of different hidden sizes side by side: each has the draws of its own (B, H), not the envelope's."""
    B, sizes = 5, (7, 4)
    key = torch.tensor([signed(draws.stream_key(seed, "dropout"))] * 2, dtype=torch.int32)
    keys = step_keys(key, torch.tensor([[step]], dtype=torch.int32))[0]
    dropouts = Dropout(
        torch.tensor(sizes, dtype=torch.int32).view(2, 1, 1),
        torch.full((2, 1, 1), signed(draws.dropout_threshold(dropout)), dtype=torch.int32),
        torch.full((2, 1, 1), float(np.float32(1 / (1 - dropout)))),
    )
    bits, scratch = torch.zeros(2, 2, B, max(sizes), dtype=torch.int32)
    keep = torch.empty(2, B, max(sizes))
    dropout_keep(keys, dropouts, bits, scratch, keep)
    for i, H in enumerate(sizes):
        assert (keep[i, :, :H].numpy() == draws.dropout_keep(seed, step, (B, H), dropout)).all()


@given(seed=st.integers(0, 2**63 - 1), step=st.integers(0, 10**6), dropout=st.floats(0, 0.999))
@settings(deadline=None, max_examples=30)
def test_dropout_equals_the_reference(seed: int, step: int, dropout: float) -> None:
    check_dropout(seed, step, dropout)


# A draw that equals the threshold keeps its unit, on both sides of the sign bit of an int32.
@pytest.mark.parametrize("unit", range(8))
def test_dropout_keeps_a_draw_that_equals_the_threshold(unit: int) -> None:
    bits = draws.uniform_bits(
        int(draws.step_keys(draws.stream_key(9, "dropout"), np.array([0]))[0]), 8
    )
    assert (bits < 2**31).any() and (bits >= 2**31).any()
    check_dropout(9, 0, int(bits[unit]) / 2**32)


@pytest.mark.parametrize("schedule", ["constant", "step", "cosine"])
@pytest.mark.parametrize("max_steps", [1, 2, 7, 1000, 200_000])
def test_learning_rates_equal_those_of_the_schedule(schedule: Any, max_steps: int) -> None:
    config = Config(lr=0.0123, schedule=schedule, max_steps=max_steps)
    knobs = Knobs(2, CPU, torch.float64)
    knobs.admit(1, config, 0)
    knobs.upload()
    steps = np.unique(np.linspace(0, max_steps - 1, 3000).astype(np.int64))
    rates = learning_rates(knobs, torch.from_numpy(steps).unsqueeze(1).expand(-1, 2))
    assert (rates[:, 1].numpy() == lr_at(config, steps)).all()
    # The row that holds no model does not move.
    assert (rates[:, 0] == 0).all()


# A plan's contexts and targets are those that the reference's rows choose; unused positions hold the extra symbol.
def test_a_plan_holds_the_examples_of_the_reference(small_corpus: Corpus) -> None:
    V, config = (
        len(small_corpus.vocab),
        Config(block_size=2, batch_size=3, n_embd=4, n_hidden=5, seed=11),
    )
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
