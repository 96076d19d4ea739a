"""Functions of the CPU kernel's layers, compared with numpy and with `makemore.draws`.

The gradients of the layers are tested in test_kernel.py, all layers together.
"""

from __future__ import annotations

import numba
import numpy as np
import pytest

from makemore.draws import dropout_keep, dropout_threshold, step_keys, stream_key
from makemore.engines.cpu.lanes import LANES, fill, load, store
from makemore.engines.cpu.layers import exp, hidden_dropout, tanh
from makemore.engines.cpu.memory import padded, zeros

Array = np.ndarray


# Python cannot call parts of the kernel: they are compiled without the wrappers for it.


@numba.njit
def call_functions(x: Array, tanhs: Array, exps: Array) -> None:
    for k in range(0, x.size, LANES):
        store(tanhs, k, tanh(load(x, k, fill(np.float32(0)))))
        store(exps, k, exp(load(x, k, fill(np.float32(0)))))


@numba.njit
def call_dropout(
    h: Array, slope: Array, H: int, key: np.uint32, threshold: np.uint32, keep_scale: np.float32
) -> None:
    hidden_dropout(h, slope, H, key, threshold, keep_scale)


def test_tanh_and_exp_match_float64() -> None:
    x = zeros(160_000)
    x[:] = np.linspace(-20, 20, x.size)
    tanhs = zeros(x.size)
    exps = zeros(x.size)
    call_functions(x, tanhs, exps)

    wide = x.astype(np.float64)
    # Near 1 one unit in the last place of tanh is 6e-8; for small values the error is relative.
    assert np.abs(tanhs - np.tanh(wide)).max() < 3e-7
    np.testing.assert_allclose(tanhs, np.tanh(wide), rtol=5e-7)
    np.testing.assert_allclose(exps, np.exp(wide), rtol=2e-7)
    assert np.all(np.abs(tanhs) <= 1)


def test_tanh_and_exp_of_extreme_inputs() -> None:
    x = zeros(LANES)
    x[:6] = [np.inf, -np.inf, np.nan, 0.0, -80.0, -1e30]
    tanhs = zeros(LANES)
    exps = zeros(LANES)
    call_functions(x, tanhs, exps)

    np.testing.assert_allclose(tanhs[:6], [1, -1, np.nan, 0, -1, -1], rtol=5e-7)
    # exp returns e**-87 for all smaller inputs: a sum that contains e**0 does not change.
    np.testing.assert_allclose(
        exps[1:6], [np.exp(-87), np.nan, 1, np.exp(-80), np.exp(-87)], rtol=1e-6
    )


@pytest.mark.parametrize("dropout", [1e-12, 0.1, 0.5, 0.999, 1 - 1e-12])
@pytest.mark.parametrize(("B", "H"), [(1, 1), (5, 16), (32, 33)])
def test_dropout_equals_reference_draws(dropout: float, B: int, H: int) -> None:
    key = step_keys(stream_key(5, "dropout"), np.array([3]))[0]
    h = zeros(B, padded(H))
    slope = zeros(B, padded(H))
    h[:] = 0.5
    call_dropout(
        h, slope, H, key, np.uint32(dropout_threshold(dropout)), np.float32(1 / (1 - dropout))
    )

    keep = dropout_keep(5, 3, (B, H), dropout)
    assert np.array_equal(h[:, :H], keep * np.float32(0.5))
    np.testing.assert_allclose(slope[:, :H], keep * 0.75, rtol=1e-6)
