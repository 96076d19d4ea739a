"""Draws of the batched engine, equal to `makemore.draws` bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from makemore import draws
from makemore.engines.batched.draws import Dropout, batch_rows, dropout_keep, mix, signed, step_keys


def words(bits: np.ndarray) -> torch.Tensor:
    """Return uint32 values as an int32 tensor with the same bits."""
    return torch.from_numpy(bits.astype(np.uint32).view(np.int32))


# The corner cases of 32 bits, where a shift or a product would fail first, and random words.
def test_mix_equals_reference_bits() -> None:
    corners = np.array([0, 1, 2**15, 2**16 - 1, 2**16, 2**31 - 1, 2**31, 2**32 - 1], np.uint32)
    bits = np.r_[corners, np.random.default_rng(0).integers(0, 2**32, 10_000, np.uint32)]
    assert (mix(words(bits)).numpy().view(np.uint32) == draws.mix(bits)).all()


@given(
    seed=st.integers(0, 2**63 - 1),
    step=st.integers(0, 2**31 - 1),
    n_examples=st.integers(1, 2**31 - 1),
)
@settings(deadline=None, max_examples=30)
def test_batches_equal_reference(seed: int, step: int, n_examples: int) -> None:
    key = torch.tensor([signed(draws.stream_key(seed, "batch"))], dtype=torch.int32)
    keys = step_keys(key, torch.tensor([[step]], dtype=torch.int32))
    ours = batch_rows(keys, 33, n_examples)[0, 0]
    assert ours.tolist() == draws.batch_rows(seed, step, 33, n_examples).tolist()


def check_dropout(seed: int, step: int, dropout: float) -> None:
    """Check two models of different hidden sizes: each uses the draws for its own (B, H)."""
    B = 5
    sizes = (7, 4)
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
def test_dropout_equals_reference(seed: int, step: int, dropout: float) -> None:
    check_dropout(seed, step, dropout)


# A draw that equals the threshold keeps its unit, below and above the sign bit of an int32.
@pytest.mark.parametrize("unit", range(8))
def test_dropout_keeps_draw_equal_to_threshold(unit: int) -> None:
    bits = draws.uniform_bits(
        int(draws.step_keys(draws.stream_key(9, "dropout"), np.array([0]))[0]), 8
    )
    assert (bits < 2**31).any() and (bits >= 2**31).any()
    check_dropout(9, 0, int(bits[unit]) / 2**32)
