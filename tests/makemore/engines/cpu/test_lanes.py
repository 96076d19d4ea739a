"""Operations on SIMD vectors, compared with numpy."""

from __future__ import annotations

import numba
import numpy as np
import pytest

from makemore.engines.cpu.lanes import (
    BLOCK,
    LANES,
    at_least,
    at_most,
    fill,
    fill_block,
    first_lanes,
    largest,
    load,
    power_of_two,
    store,
    total,
)
from makemore.engines.cpu.memory import zeros

Array = np.ndarray

# Python cannot call parts of the kernel: they are compiled without the wrappers for it.


@numba.njit
def call_bounds(x: Array, lower: Array, upper: Array, limit: np.float32) -> None:
    value = load(x, 0, fill(np.float32(0)))
    store(lower, 0, at_least(value, limit))
    store(upper, 0, at_most(value, limit))


@numba.njit
def call_first_lanes(x: Array, result: Array, n: int, other: np.float32) -> None:
    store(result, 0, first_lanes(load(x, 0, fill(np.float32(0))), n, other))


@numba.njit
def call_power_of_two(x: Array, result: Array) -> None:
    store(result, 0, power_of_two(load(x, 0, fill(np.float32(0)))))


@numba.njit
def call_reductions(x: Array) -> tuple[float, float]:
    value = load(x, 0, fill_block(np.float32(0)))
    return total(value), largest(value)


def test_bounds_keep_nan() -> None:
    x, lower, upper = zeros(LANES), zeros(LANES), zeros(LANES)
    x[:5] = [-2, 1, 3, np.inf, np.nan]
    call_bounds(x, lower, upper, np.float32(1))

    np.testing.assert_array_equal(lower[:5], np.array([1, 1, 3, np.inf, np.nan], np.float32))
    np.testing.assert_array_equal(upper[:5], np.array([-2, 1, 1, 1, np.nan], np.float32))


# n is the number of lanes left in a row, so it may exceed the width.
@pytest.mark.parametrize("n", [0, 1, 11, LANES, LANES + 5])
def test_first_lanes_keeps_n_numbers(n: int) -> None:
    x, result = zeros(LANES), zeros(LANES)
    x[:] = np.arange(1, LANES + 1)
    call_first_lanes(x, result, n, np.float32(-7))

    assert np.array_equal(result, np.where(np.arange(LANES) < n, x, -7))


def test_power_of_two_is_exact() -> None:
    x, result = zeros(LANES), zeros(LANES)
    exponents = np.linspace(-126, 127, LANES).round()
    x[:] = 1.5 * 2**23 + exponents
    call_power_of_two(x, result)

    assert np.array_equal(result, 2.0**exponents)


def test_reductions_equal_numpy() -> None:
    x = zeros(BLOCK)
    x[:] = np.random.default_rng(0).integers(-100, 100, BLOCK)  # integers, so that the sum is exact

    assert call_reductions(x) == (x.sum(), x.max())
