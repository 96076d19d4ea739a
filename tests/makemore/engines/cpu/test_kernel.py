"""The parts of the CPU kernel, each against numpy or torch."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from makemore.config import Config
from makemore.data import Corpus
from makemore.draws import batch_rows, dropout_keep, dropout_threshold, step_keys, stream_key
from makemore.engines.cpu import kernel
from makemore.engines.cpu.lanes import LANES, fill, load, store
from makemore.engines.cpu.layers import drop, exp, tanh
from makemore.engines.cpu.memory import Batch, make_batch, padded, read_model, write_model, zeros
from makemore.engines.cpu.products import DOTS, matmul, matmul_transposed, transpose
from makemore.engines.cpu.slot import Slot, number_contexts
from makemore.model import MLP
from tests.makemore.engines.reference_engine import ReferenceModel

Array = np.ndarray
BASE = Config(
    block_size=3, n_embd=10, n_hidden=200, batch_size=32, max_steps=10, init="kaiming", seed=3
)
TABLE: list[dict[str, Any]] = [
    {},
    {"block_size": 1, "n_embd": 1, "n_hidden": 2, "batch_size": 1},
    {"block_size": 8, "n_embd": 24, "n_hidden": 65, "batch_size": 256, "direct": True},
    {
        "block_size": 10,
        "n_embd": 17,
        "n_hidden": 16,
        "batch_size": 3,
        "direct": True,
        "dropout": 0.3,
    },
    {"n_embd": 2, "n_hidden": 15, "batch_size": 33, "dropout": 0.5, "init": "lecture"},
]


def noise(*shape: int, seed: int = 0) -> Array:
    """A padded array of normal numbers."""
    array = zeros(*shape)
    array[:] = np.random.default_rng(seed).standard_normal(shape)
    return array


# Python cannot call the kernel's parts, since they are compiled without the wrappers for that.


@numba.njit
def call_matmul(c: Array, a: Array, b: Array) -> None:
    matmul(c, a, b)


@numba.njit
def call_matmul_transposed(c: Array, a: Array, b: Array) -> None:
    matmul_transposed(c, a, b)


@numba.njit
def call_transpose(c: Array, a: Array) -> None:
    transpose(c, a)


@numba.njit
def call_functions(x: Array, tanhs: Array, exps: Array) -> None:
    for k in range(0, x.size, LANES):
        store(tanhs, k, tanh(load(x, k, fill(np.float32(0)))))
        store(exps, k, exp(load(x, k, fill(np.float32(0)))))


@numba.njit
def call_drop(
    h: Array, slope: Array, H: int, key: np.uint32, threshold: np.uint32, kept: np.float32
) -> None:
    drop(h, slope, H, key, threshold, kept)


@numba.njit
def call_draw_batch(
    batch: Batch, key: np.uint32, positions: Array, numbers: Array, stream: Array
) -> int:
    return kernel.draw_batch(batch, key, positions, numbers, stream)


# --- products


@settings(deadline=None, max_examples=40)
@given(
    M=st.integers(1, 40),
    K=st.integers(1, 50),
    N=st.integers(1, 7).map(lambda n: n * LANES),
    turned=st.booleans(),
)
def test_a_product_is_that_of_numpy(M: int, K: int, N: int, turned: bool) -> None:
    a, b, c = noise(M, K, seed=1), noise(K, N, seed=2), noise(M + 1, N, seed=3)
    below = c[M].copy()
    call_matmul(c[:M], a.T.copy().T if turned else a, b)

    np.testing.assert_allclose(c[:M], a.astype(np.float64) @ b, rtol=1e-5, atol=1e-5)
    # Nothing is written beyond the rows asked for.
    assert np.array_equal(c[M], below)


@settings(deadline=None, max_examples=40)
@given(M=st.integers(1, 30), N=st.integers(1, 30), K=st.integers(1, 5).map(lambda n: n * LANES))
def test_a_product_with_a_transpose_is_that_of_numpy(M: int, N: int, K: int) -> None:
    a, b, c = (
        noise(M, K, seed=1),
        noise(N, K, seed=2),
        noise(M + 2 * DOTS, padded(N + DOTS), seed=3),
    )
    before = c.copy()
    call_matmul_transposed(c, a, b)

    np.testing.assert_allclose(c[:M, :N], a.astype(np.float64) @ b.T, rtol=1e-5, atol=1e-5)
    # What is written beyond is less than a tile.
    rows, columns = M + DOTS - 1, N + DOTS - 1
    assert np.array_equal(c[rows:], before[rows:]) and np.array_equal(
        c[:, columns:], before[:, columns:]
    )


def test_an_element_of_a_product_has_the_same_bits_in_every_tile() -> None:
    a, b = noise(23, 30, seed=1), noise(30, 3 * LANES, seed=2)
    c, row = zeros(23, 3 * LANES), zeros(1, LANES)
    call_matmul(c, a, b)

    for i in range(23):
        for j in range(0, 3 * LANES, LANES):
            call_matmul(row, a[i : i + 1], np.ascontiguousarray(b[:, j : j + LANES]))
            assert np.array_equal(row[0], c[i, j : j + LANES])


@pytest.mark.parametrize(("M", "N"), [(1, 16), (10, 48), (16, 32), (27, 16), (40, 80)])
def test_a_transpose_is_that_of_numpy(M: int, N: int) -> None:
    a, c = noise(M, N), noise(N, padded(M))
    call_transpose(c, a)

    assert np.array_equal(c[:, :M], a.T)
    assert np.array_equal(c[:, M:], np.repeat(a[-1:].T, padded(M) - M, axis=1))


# --- functions


def test_tanh_and_exp_are_those_of_float64() -> None:
    x = zeros(160_000)
    x[:] = np.linspace(-20, 20, x.size)
    tanhs, exps = zeros(x.size), zeros(x.size)
    call_functions(x, tanhs, exps)

    wide = x.astype(np.float64)
    # One unit in the last place is 6e-8 of tanh near 1; below, the error is relative.
    assert np.abs(tanhs - np.tanh(wide)).max() < 3e-7
    np.testing.assert_allclose(tanhs, np.tanh(wide), rtol=5e-7)
    np.testing.assert_allclose(exps, np.exp(wide), rtol=2e-7)
    assert np.all(np.abs(tanhs) <= 1)


def test_tanh_and_exp_of_extremes() -> None:
    x = zeros(LANES)
    x[:6] = [np.inf, -np.inf, np.nan, 0.0, -80.0, -1e30]
    tanhs, exps = zeros(LANES), zeros(LANES)
    call_functions(x, tanhs, exps)

    np.testing.assert_allclose(tanhs[:6], [1, -1, np.nan, 0, -1, -1], rtol=5e-7)
    # Far below 0 it stops at e**-87, which no sum with an e**0 in it can see.
    np.testing.assert_allclose(
        exps[1:6], [np.exp(-87), np.nan, 1, np.exp(-80), np.exp(-87)], rtol=1e-6
    )


# --- draws


@pytest.mark.parametrize("merged", [True, False])
@pytest.mark.parametrize("step", [0, 1, 199_999, 2**32 - 1])
def test_batches_are_those_of_draws(corpus: Corpus, step: int, merged: bool) -> None:
    train, rows = corpus.train, batch_rows(11, step, 300, len(corpus.train))
    numbers, stream = number_contexts(train, 3), train.stream.astype(np.uint16)
    batch = make_batch(300, int(numbers.max()) + 1 if merged else 0)
    n = call_draw_batch(
        batch,
        step_keys(stream_key(11, "batch"), np.array([step]))[0],
        train.positions,
        numbers,
        stream,
    )

    # Each example's row stands for a context equal to its own, and each context has one row.
    contexts = train.contexts(3, rows)
    windows = np.stack([train.stream[at - 3 : at] for at in batch.at[:n]])
    assert np.array_equal(windows[batch.rows], contexts)
    assert np.array_equal(batch.targets, train.targets[rows])
    assert np.array_equal(batch.counts[:n], np.bincount(batch.rows))
    assert n == (len(np.unique(contexts, axis=0)) if merged else 300)
    assert np.all(batch.row_of == -1)


@pytest.mark.parametrize("block_size", [1, 3, 32])
def test_examples_share_a_number_where_they_share_a_context(
    corpus: Corpus, block_size: int
) -> None:
    numbers = number_contexts(corpus.dev, block_size)
    contexts = corpus.dev.contexts(block_size)

    different, inverse = np.unique(contexts, axis=0, return_inverse=True)
    pairs = np.unique(np.stack([numbers, inverse.ravel()]), axis=1)
    assert numbers.dtype == np.int32 and pairs.shape[1] == len(different) == numbers.max() + 1


@pytest.mark.parametrize("dropout", [1e-12, 0.1, 0.5, 0.999, 1 - 1e-12])
@pytest.mark.parametrize(("B", "H"), [(1, 1), (5, 16), (32, 33)])
def test_dropout_is_that_of_draws(dropout: float, B: int, H: int) -> None:
    key = step_keys(stream_key(5, "dropout"), np.array([3]))[0]
    h, slope = zeros(B, padded(H)), zeros(B, padded(H))
    h[:] = 0.5
    call_drop(
        h, slope, H, key, np.uint32(dropout_threshold(dropout)), np.float32(1 / (1 - dropout))
    )

    keep = dropout_keep(5, 3, (B, H), dropout)
    assert np.array_equal(h[:, :H], keep * np.float32(0.5))
    np.testing.assert_allclose(slope[:, :H], keep * 0.75, rtol=1e-6)


# --- gradients and steps


@pytest.mark.parametrize("changes", TABLE)
def test_gradients_are_those_of_autograd(small_corpus: Corpus, changes: dict[str, Any]) -> None:
    config = BASE.replace(**changes)
    slot, true = Slot(config, small_corpus), ReferenceModel(config, small_corpus)
    loss = slot.run(1)

    expected = true.model.loss(*true.batch(), true.keep())
    expected.backward()
    gradient = MLP(config, len(small_corpus.vocab))
    write_model(slot.gradient, gradient)
    assert loss == pytest.approx(expected.item(), rel=1e-6)
    for (name, ours), parameter in zip(
        gradient.named_parameters(), true.model.parameters(), strict=True
    ):
        assert parameter.grad is not None
        error = torch.linalg.norm(ours - parameter.grad) / torch.linalg.norm(parameter.grad)
        assert error < 1e-5, name


@pytest.mark.parametrize("changes", TABLE)
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_steps_are_those_of_torch(
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
    slot, true = Slot(config, small_corpus), ReferenceModel(config, small_corpus)
    losses = slot.run(6) + slot.run(3)

    assert losses == pytest.approx(sum(true.train_step() for _ in range(9)), rel=1e-5)
    ours = MLP(config, len(small_corpus.vocab))
    write_model(slot.weights, ours)
    error = torch.linalg.norm(ours.flat - true.model.flat) / torch.linalg.norm(true.model.flat)
    assert error < 1e-5


@pytest.mark.parametrize("changes", TABLE)
def test_padding_stays_zero(small_corpus: Corpus, changes: dict[str, Any]) -> None:
    config = BASE.replace(optimizer="adamw", lr=0.01, weight_decay=0.1, **changes)
    slot = Slot(config, small_corpus)
    slot.run(10)
    model = MLP(config, len(small_corpus.vocab))
    write_model(slot.weights, model)
    trained = slot.weights.flat.copy()
    slot.weights.flat[:] = 0
    read_model(slot.weights, model)

    assert np.array_equal(slot.weights.flat, trained)


def test_a_loss_that_is_not_finite_ends_the_stretch(small_corpus: Corpus) -> None:
    slot = Slot(BASE.replace(lr=1e38), small_corpus)

    assert not np.isfinite(slot.run(10))
    assert slot.steps_done < 10
