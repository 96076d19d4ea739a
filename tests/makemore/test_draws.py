"""Random draws that all engines share."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from makemore.draws import (
    batch_rows,
    dropout_keep,
    dropout_threshold,
    mix,
    step_keys,
    stream_key,
    uniform_bits,
)


def lowbias32(x: int) -> int:
    """Return the hash as printed in Wellons' article, with Python's integers."""
    x ^= x >> 16
    x = x * 0x7FEB352D % 2**32
    x ^= x >> 15
    x = x * 0x846CA68B % 2**32
    return x ^ x >> 16


@given(st.integers(0, 2**32 - 1))
def test_mix_is_lowbias32(x: int) -> None:
    assert mix(np.array([x]))[0] == lowbias32(x)


def test_mix_permutes() -> None:
    # A permutation of the 32-bit numbers never gives two numbers the same hash.
    assert len(np.unique(mix(np.arange(100_000, dtype=np.uint32)))) == 100_000


def test_draws_of_a_seed_are_golden() -> None:
    # Golden values of this project: other draws would train other models from the same config.
    assert stream_key(2147483647, "batch") == 1926950122
    assert batch_rows(2147483647, 0, 5, 182_625).tolist() == [88011, 93786, 2549, 148524, 24282]


def test_batches_depend_on_seed_and_step_only() -> None:
    drawn = {tuple(batch_rows(seed, step, 8, 1000)) for seed in range(20) for step in range(20)}

    assert len(drawn) == 400
    assert tuple(batch_rows(3, 4, 8, 1000)) in drawn


def test_larger_batch_begins_with_the_smaller_one() -> None:
    assert np.array_equal(batch_rows(1, 2, 64, 1000)[:10], batch_rows(1, 2, 10, 1000))


def test_examples_are_drawn_equally_often() -> None:
    rows = np.concatenate([batch_rows(0, step, 100, 50) for step in range(1000)])
    counts = np.bincount(rows, minlength=50)

    # 2,000 each with a standard deviation of 44. Chi squared of 49 degrees of freedom exceeds 95
    # once in 10,000.
    assert len(counts) == 50 and ((counts - 2000) ** 2 / 2000).sum() < 95


def test_steps_and_streams_are_uncorrelated() -> None:
    keys = step_keys(stream_key(0, "batch"), np.arange(2))
    other = step_keys(stream_key(0, "dropout"), np.arange(1))
    draws = [uniform_bits(int(key), 10_000).astype(np.float64) for key in (*keys, *other)]

    # The standard deviation of a correlation of 10,000 pairs is 0.01.
    assert np.abs(np.corrcoef(draws) - np.eye(3)).max() < 0.04


@pytest.mark.parametrize("dropout", [0.0, 0.1, 0.5, 0.9])
def test_dropout_zeroes_its_share_and_keeps_the_mean(dropout: float) -> None:
    keep = dropout_keep(7, 3, (200, 500), dropout)

    assert keep.dtype == np.float32
    assert set(np.unique(keep)) <= {np.float32(0), np.float32(1 / (1 - dropout))}
    # Standard deviations: at most 0.0016 of the share, 0.01 of the mean.
    assert (keep == 0).mean() == pytest.approx(dropout, abs=0.007)
    assert keep.mean() == pytest.approx(1, abs=0.04)


def test_threshold_fits_into_uint32() -> None:
    assert dropout_threshold(0.0) == 0
    assert dropout_threshold(0.5) == 2**31
    assert dropout_threshold(1 - 1e-16) == 2**32 - 1
