"""Products and transposes of the CPU kernel, compared with numpy."""

from __future__ import annotations

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from makemore.engines.cpu.lanes import LANES
from makemore.engines.cpu.memory import padded, zeros
from makemore.engines.cpu.products import DOTS, matmul, matmul_transposed, transpose

Array = np.ndarray


def noise(*shape: int, seed: int = 0) -> Array:
    """Return an aligned array of normal numbers."""
    array = zeros(*shape)
    array[:] = np.random.default_rng(seed).standard_normal(shape)
    return array


# Python cannot call parts of the kernel: they are compiled without the wrappers for it.


@numba.njit
def call_matmul(c: Array, a: Array, b: Array) -> None:
    matmul(c, a, b)


@numba.njit
def call_matmul_transposed(c: Array, a: Array, b: Array) -> None:
    matmul_transposed(c, a, b)


@numba.njit
def call_transpose(c: Array, a: Array) -> None:
    transpose(c, a)


@settings(deadline=None, max_examples=40)
@given(
    M=st.integers(1, 40),
    K=st.integers(1, 50),
    N=st.integers(1, 7).map(lambda n: n * LANES),
    turned=st.booleans(),
)
def test_product_equals_numpy(M: int, K: int, N: int, turned: bool) -> None:
    a = noise(M, K, seed=1)
    b = noise(K, N, seed=2)
    c = noise(M + 1, N, seed=3)
    below = c[M].copy()
    call_matmul(c[:M], a.T.copy().T if turned else a, b)

    np.testing.assert_allclose(c[:M], a.astype(np.float64) @ b, rtol=1e-5, atol=1e-5)
    # Rows after the result are not written.
    assert np.array_equal(c[M], below)


@settings(deadline=None, max_examples=40)
@given(M=st.integers(1, 30), N=st.integers(1, 30), K=st.integers(1, 5).map(lambda n: n * LANES))
def test_product_with_transpose_equals_numpy(M: int, N: int, K: int) -> None:
    a = noise(M, K, seed=1)
    b = noise(N, K, seed=2)
    c = noise(M + 2 * DOTS, padded(N + DOTS), seed=3)
    before = c.copy()
    call_matmul_transposed(c, a, b)

    np.testing.assert_allclose(c[:M, :N], a.astype(np.float64) @ b.T, rtol=1e-5, atol=1e-5)
    # Less than one tile is written outside the result.
    rows = M + DOTS - 1
    columns = N + DOTS - 1
    assert np.array_equal(c[rows:], before[rows:])
    assert np.array_equal(c[:, columns:], before[:, columns:])


def test_product_bits_do_not_depend_on_tile() -> None:
    a = noise(23, 30, seed=1)
    b = noise(30, 3 * LANES, seed=2)
    c = zeros(23, 3 * LANES)
    row = zeros(1, LANES)
    call_matmul(c, a, b)

    for i in range(23):
        for j in range(0, 3 * LANES, LANES):
            call_matmul(row, a[i : i + 1], np.ascontiguousarray(b[:, j : j + LANES]))
            assert np.array_equal(row[0], c[i, j : j + LANES])


@pytest.mark.parametrize(("M", "N"), [(1, 16), (10, 48), (16, 32), (27, 16), (40, 80)])
def test_transpose_equals_numpy(M: int, N: int) -> None:
    a = noise(M, N)
    c = noise(N, padded(M))
    call_transpose(c, a)

    assert np.array_equal(c[:, :M], a.T)
    assert np.array_equal(c[:, M:], np.repeat(a[-1:].T, padded(M) - M, axis=1))
