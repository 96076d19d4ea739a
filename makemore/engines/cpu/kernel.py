"""The numba kernel of the CPU engine: all steps between two evaluations, and the exact mean over a split."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from makemore.draws import M1, M2, WEYL
from makemore.engines.cpu.compile import EntryPoint, inlined, source_number
from makemore.engines.cpu.layers import (
    activate,
    add_tables,
    column_sums,
    drop,
    exponentials,
    fill_tables,
    group,
    scatter,
    softmax_gradient,
    through_tables,
)
from makemore.engines.cpu.memory import Batch, Sizes, Step, Tables, Weights
from makemore.engines.cpu.products import matmul, transpose

Array = np.ndarray
f32, u32, u64 = np.float32, np.uint32, np.uint64


class Plan(NamedTuple):
    """What the S steps of a stretch are given.

    Attributes:
        done: steps done before.
        lrs: (S,) float32.
        batch_keys, dropout_keys: (S,) uint32, `draws.step_keys` of the two streams.
        threshold, kept: `draws.dropout_threshold`, and what a kept unit is multiplied by.
        weight_decay: float32.
        averaging: (S,) float32, `schedule.averaging_at`.
    """

    done: int
    lrs: Array
    batch_keys: Array
    dropout_keys: Array
    threshold: np.uint32
    kept: np.float32
    weight_decay: np.float32
    averaging: Array


@inlined
def draw_batch(
    batch: Batch, key: np.uint32, positions: Array, numbers: Array, stream: Array
) -> int:
    """Draw the examples of a step, as `draws.batch_rows`; return how many different contexts they have."""
    n = 0
    for i in range(batch.rows.size):
        x = u32(key + u32(u32(i) * u32(WEYL)))
        x = u32(u32(x ^ (x >> u32(16))) * u32(M1))
        x = u32(u32(x ^ (x >> u32(15))) * u32(M2))
        example = np.intp((u64(u32(x ^ (x >> u32(16)))) * u64(positions.size)) >> u64(32))
        row, number = np.intp(n), np.intp(numbers[example])
        if batch.row_of.size > 0 and batch.row_of[number] >= 0:
            row = np.intp(batch.row_of[number])
        else:
            batch.at[n], batch.counts[n], batch.numbers[n] = positions[example], 0, number
            if batch.row_of.size > 0:
                batch.row_of[number] = n
            n += 1
        batch.counts[row] += 1
        batch.rows[i], batch.targets[i] = row, stream[positions[example]]
    if batch.row_of.size > 0:
        for k in range(n):
            batch.row_of[batch.numbers[k]] = -1
    return n


@inlined
def gradient(
    w: Weights, g: Weights, batch: Batch, n: int, tables: Tables, s: Step, stream: Array, sizes: Sizes, plan: Plan,
    key: np.uint32,
) -> float:  # fmt: skip
    """Write the gradient of a batch of n contexts into g; return its mean loss (Bengio et al. 2003, eq. 1)."""
    E, H, V = sizes.E, sizes.H, sizes.V
    direct, dropping = w.Wd.shape[0] > 0, s.slope.size > 0
    rows, h, logits, dh = tables.rows[:n], s.h[:n], s.logits[:n], s.dh[:n]
    group(tables, batch.at[:n], stream, w.C)
    fill_tables(tables.P, w.W1, tables, E)
    activate(h, tables.P, rows, w.b1)
    if dropping:
        drop(h, s.slope, H, key, plan.threshold, plan.kept)
    matmul(logits, h, w.W2[:H])
    if direct:
        fill_tables(tables.Q, w.Wd, tables, E)
        add_tables(logits, tables.Q, rows)
    loss = softmax_gradient(logits, w.b2, batch, V)

    column_sums(g.b2, logits, n)
    matmul(g.W2[:H], h.T, logits)
    transpose(s.W2T, w.W2)
    matmul(dh, logits, s.W2T[:V])
    scatter(tables.P, tables.bases[-1], rows, dh, h, s.slope)
    column_sums(g.b1, tables.P, tables.bases[1])  # position 0 holds each example once
    g.C[:] = 0
    through_tables(g.W1, g.C, tables.P, w.W1, tables, s.dCr, E)
    if direct:
        scatter(tables.Q, tables.bases[-1], rows, logits, h[:0], s.slope[:0])
        through_tables(g.Wd, g.C, tables.Q, w.Wd, tables, s.dCr, E)
    return loss


# What follows has no sum of two products: a compiler may fuse either one with the sum, and code that was just compiled
# was seen to choose otherwise than the same code kept and loaded, so that two processes rounded differently.


@inlined
def sgd(p: Array, g: Array, lr: np.float32, weight_decay: np.float32) -> None:
    for k in range(p.size):
        p[k] -= lr * (g[k] + weight_decay * p[k])


@inlined
def adamw(
    p: Array, g: Array, m: Array, v: Array, n: int, lr: np.float32, weight_decay: np.float32
) -> None:
    """Step n (from 1) of AdamW with torch's defaults (Loshchilov & Hutter 2019, algorithm 2)."""
    decay = f32(1) - lr * weight_decay
    rate = f32(lr / (1 - 0.9**n))
    root = f32(1 / np.sqrt(1 - 0.999**n))
    for k in range(p.size):
        m[k] += f32(0.1) * (g[k] - m[k])
        v[k] += f32(0.001) * (g[k] * g[k] - v[k])
        p[k] = p[k] * decay - rate * m[k] / (np.sqrt(v[k]) * root + f32(1e-8))


@inlined
def average(a: Array, p: Array, weight: np.float32) -> None:
    for k in range(p.size):
        a[k] += weight * (p[k] - a[k])


def _make_train(sources: int) -> Callable[..., Any]:
    def train(
        stop: Array, stream: Array, positions: Array, numbers: Array, sizes: Sizes, plan: Plan,
        w: Weights, g: Weights, m: Array, v: Array, a: Array, batch: Batch, tables: Tables, s: Step,
    ) -> tuple[int, float]:  # fmt: skip
        """Train a step for each of `plan.lrs`; return the steps done and the sum of their losses.

        Ends early when `stop[0]` is set, and after a loss that is inf or nan. AdamW where m and v are not empty, an
        average of the weights where a is not.
        """
        _ = sources
        losses = 0.0
        for i in range(plan.lrs.size):
            if stop[0]:
                return i, losses
            n = draw_batch(batch, plan.batch_keys[i], positions, numbers, stream)
            loss = gradient(w, g, batch, n, tables, s, stream, sizes, plan, plan.dropout_keys[i])
            losses += loss
            if not np.isfinite(loss):
                return i + 1, losses
            if m.size > 0:
                adamw(w.flat, g.flat, m, v, plan.done + i + 1, plan.lrs[i], plan.weight_decay)
            else:
                sgd(w.flat, g.flat, plan.lrs[i], plan.weight_decay)
            if a.size > 0:
                average(a, w.flat, plan.averaging[i])
        return plan.lrs.size, losses

    return train


def _make_mean(sources: int) -> Callable[..., Any]:
    def mean(
        stop: Array, stream: Array, positions: Array, offsets: Array, targets: Array, counts: Array,
        sizes: Sizes, w: Weights, tables: Tables, h: Array, logits: Array,
    ) -> float:  # fmt: skip
        """Exact mean cross-entropy over a split, given as `data.Distinct`: each different context is computed once.

        Tables are made for as many contexts at a time as they have rows, hidden units and logits for `h.shape[0]`.
        """
        _ = sources
        chunk, block = tables.rows.shape[0], h.shape[0]
        loss, n = 0.0, 0
        for begin in range(0, positions.size, chunk):
            at = positions[begin : begin + chunk]
            group(tables, at, stream, w.C)
            fill_tables(tables.P, w.W1, tables, sizes.E)
            if w.Wd.shape[0] > 0:
                fill_tables(tables.Q, w.Wd, tables, sizes.E)
            for first in range(0, at.size, block):
                if stop[0]:
                    return np.nan
                size = min(block, at.size - first)
                rows = tables.rows[first : first + size]
                activate(h[:size], tables.P, rows, w.b1)
                matmul(logits[:size], h[:size], w.W2[: sizes.H])
                if w.Wd.shape[0] > 0:
                    add_tables(logits[:size], tables.Q, rows)
                for i in range(size):
                    pairs = range(offsets[begin + first + i], offsets[begin + first + i + 1])
                    here = 0
                    for k in pairs:
                        y = np.intp(targets[k])
                        loss -= counts[k] * np.float64(logits[i, y] + w.b2[y])
                        here += counts[k]
                    normaliser, bound = exponentials(logits[i], w.b2, sizes.V)
                    loss += here * (np.log(np.float64(normaliser)) + bound)
                    n += here
        return loss / n

    return mean


_SOURCES = source_number()
train, mean = EntryPoint(_make_train(_SOURCES)), EntryPoint(_make_mean(_SOURCES))
