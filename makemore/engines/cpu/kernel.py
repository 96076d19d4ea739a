"""The CPU kernel: all training steps between two evaluations, and the exact mean loss over a split.

`train` repeats one step:

    draw_batch     draws the examples and merges those with equal contexts
    gradient
      forward      embeddings -> hidden units -> logits
      layers.loss_and_logits_gradient
      backward     gradients of W2 and b2, then of the first layer (b1, W1, C), then of Wd
    sgd or adamw   updates the weights
    average        updates the average of the weights

The first layer's gradient is at the end of `backward`: `layers.scatter_to_tables` and
`layers.first_layer_gradient`. The arithmetic of single layers is in `layers`, matrix products are
in `products`, all arrays are in `memory`. `mean` is the evaluation.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from makemore.draws import M1, M2, WEYL
from makemore.engines.cpu.compile import EntryPoint, inlined, source_number
from makemore.engines.cpu.layers import (
    add_direct_connections,
    column_sums,
    exponentials,
    fill_tables,
    first_layer_gradient,
    gather_symbols,
    hidden_dropout,
    hidden_units,
    loss_and_logits_gradient,
    scatter_to_tables,
)
from makemore.engines.cpu.memory import Batch, Sizes, SoftTargets, Tables, Weights, Work
from makemore.engines.cpu.products import matmul, transpose

Array = np.ndarray
f32, u32, u64 = np.float32, np.uint32, np.uint64


class Plan(NamedTuple):
    """The inputs of S steps.

    Attributes:
        steps_done: steps done before them.
        lrs: (S,) float32.
        batch_keys, dropout_keys: (S,) uint32, `draws.step_keys` of the two streams.
        threshold: `draws.dropout_threshold`.
        keep_scale: factor of a hidden unit that dropout keeps.
        weight_decay: float32.
        averaging: (S,) float32, `schedule.averaging_at`.
    """

    steps_done: int
    lrs: Array
    batch_keys: Array
    dropout_keys: Array
    threshold: np.uint32
    keep_scale: np.float32
    weight_decay: np.float32
    averaging: Array


@inlined
def draw_batch(
    batch: Batch, key: np.uint32, positions: Array, numbers: Array, stream: Array
) -> int:
    """Draw the examples of a step as `draws.batch_rows` does; return the number of rows in use."""
    n = 0
    for i in range(batch.rows.size):
        x = u32(key + u32(u32(i) * u32(WEYL)))
        x = u32(u32(x ^ (x >> u32(16))) * u32(M1))
        x = u32(u32(x ^ (x >> u32(15))) * u32(M2))
        example = np.intp((u64(u32(x ^ (x >> u32(16)))) * u64(positions.size)) >> u64(32))
        row, number = np.intp(n), np.intp(numbers[example])
        if batch.row_of_context.size > 0 and batch.row_of_context[number] >= 0:
            row = np.intp(batch.row_of_context[number])
        else:
            batch.positions[n], batch.counts[n], batch.numbers[n] = positions[example], 0, number
            if batch.row_of_context.size > 0:
                batch.row_of_context[number] = n
            n += 1
        batch.counts[row] += 1
        batch.rows[i], batch.targets[i] = row, stream[positions[example]]
        if batch.examples.size > 0:
            batch.examples[i] = example
    if batch.row_of_context.size > 0:
        for k in range(n):
            batch.row_of_context[batch.numbers[k]] = -1
    return n


@inlined
def forward(
    w: Weights, batch: Batch, n: int, tables: Tables, work: Work, stream: Array, sizes: Sizes,
    plan: Plan, key: np.uint32,
) -> None:  # fmt: skip
    """Write the logits, without b2, of n contexts into work.logits (Bengio et al. 2003, eq. 1)."""
    rows, h, logits = tables.rows[:n], work.h[:n], work.logits[:n]
    gather_symbols(tables, batch.positions[:n], stream, w.C)
    fill_tables(tables.P, w.W1, tables, sizes.E)
    hidden_units(h, tables.P, rows, w.b1)
    if work.slope.size > 0:
        hidden_dropout(h, work.slope, sizes.H, key, plan.threshold, plan.keep_scale)
    matmul(logits, h, w.W2[: sizes.H])
    if w.Wd.shape[0] > 0:
        fill_tables(tables.Q, w.Wd, tables, sizes.E)
        add_direct_connections(logits, tables.Q, rows)


@inlined
def backward(w: Weights, g: Weights, n: int, tables: Tables, work: Work, sizes: Sizes) -> None:
    """Write the gradients of all parameters into g, from the logits' gradient in work.logits."""
    E, H, V = sizes.E, sizes.H, sizes.V
    rows, h, logits, dh = tables.rows[:n], work.h[:n], work.logits[:n], work.dh[:n]
    n_table_rows = tables.starts[-1]

    # The output layer: b2 and W2, then the hidden units.
    column_sums(g.b2, logits, n)
    matmul(g.W2[:H], h.T, logits)
    transpose(work.W2T, w.W2)
    matmul(dh, logits, work.W2T[:V])

    # The first layer: b1, W1 and C. Position 0 of the tables holds each example once, so the sum
    # over its rows is the gradient of b1.
    scatter_to_tables(tables.P, n_table_rows, rows, dh, h, work.slope)
    column_sums(g.b1, tables.P, tables.starts[1])
    g.C[:] = 0
    first_layer_gradient(g.W1, g.C, tables.P, w.W1, tables, work.dembeddings, E)

    # The direct connections: Wd, and their share of C.
    if w.Wd.shape[0] > 0:
        scatter_to_tables(tables.Q, n_table_rows, rows, logits, h[:0], work.slope[:0])
        first_layer_gradient(g.Wd, g.C, tables.Q, w.Wd, tables, work.dembeddings, E)


@inlined
def gradient(
    w: Weights, g: Weights, batch: Batch, n: int, tables: Tables, work: Work, stream: Array,
    sizes: Sizes, plan: Plan, key: np.uint32, soft: SoftTargets,
) -> float:  # fmt: skip
    """Write the gradient of a batch of n contexts into g; return the batch's mean loss in nats."""
    forward(w, batch, n, tables, work, stream, sizes, plan, key)
    loss = loss_and_logits_gradient(work.logits[:n], w.b2, batch, sizes.V, soft)
    backward(w, g, n, tables, work, sizes)
    return loss


# The updates below contain no sum of two products. The compiler may fuse either product with such a
# sum, and newly compiled code was seen to choose differently from the same code loaded from the
# cache, so that two processes rounded differently.


@inlined
def sgd(p: Array, g: Array, lr: np.float32, weight_decay: np.float32) -> None:
    """Update parameters p by a step of SGD with weight decay."""
    for k in range(p.size):
        p[k] -= lr * (g[k] + weight_decay * p[k])


@inlined
def adamw(
    p: Array, g: Array, m: Array, v: Array, n: int, lr: np.float32, weight_decay: np.float32
) -> None:
    """Update p by step n (from 1) of AdamW (Loshchilov & Hutter 2019, alg. 2; torch's defaults)."""
    decay = f32(1) - lr * weight_decay
    rate = f32(lr / (1 - 0.9**n))
    root = f32(1 / np.sqrt(1 - 0.999**n))
    for k in range(p.size):
        m[k] += f32(0.1) * (g[k] - m[k])
        v[k] += f32(0.001) * (g[k] * g[k] - v[k])
        p[k] = p[k] * decay - rate * m[k] / (np.sqrt(v[k]) * root + f32(1e-8))


@inlined
def average(a: Array, p: Array, weight: np.float32) -> None:
    """Move the average a towards the parameters p."""
    for k in range(p.size):
        a[k] += weight * (p[k] - a[k])


def _make_train(sources: int) -> Callable[..., Any]:
    def train(
        stop: Array, stream: Array, positions: Array, numbers: Array, sizes: Sizes, plan: Plan,
        w: Weights, g: Weights, m: Array, v: Array, a: Array,
        batch: Batch, tables: Tables, work: Work, soft: SoftTargets,
    ) -> tuple[int, float]:  # fmt: skip
        """Train one step for each of `plan.lrs`; return the steps done and the sum of their losses.

        Ends early if `stop[0]` is set, and after a loss that is inf or nan. Uses AdamW if m and v
        are not empty, else SGD. Updates an average of the weights if `a` is not empty.
        """
        _ = sources  # part of the cache key
        losses = 0.0
        for i in range(plan.lrs.size):
            if stop[0]:
                return i, losses
            n = draw_batch(batch, plan.batch_keys[i], positions, numbers, stream)
            key = plan.dropout_keys[i]
            loss = gradient(w, g, batch, n, tables, work, stream, sizes, plan, key, soft)
            losses += loss
            if not np.isfinite(loss):
                return i + 1, losses
            if m.size > 0:
                step = plan.steps_done + i + 1
                adamw(w.flat, g.flat, m, v, step, plan.lrs[i], plan.weight_decay)
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
        """Return the exact mean cross-entropy over a split, given as the fields of `data.Distinct`.

        Each distinct context is computed once. The tables are filled for as many contexts at a time
        as they have rows; hidden units and logits are computed for `h.shape[0]` contexts at a time.
        """
        _ = sources  # part of the cache key
        chunk, block = tables.rows.shape[0], h.shape[0]
        loss, n = 0.0, 0
        for begin in range(0, positions.size, chunk):
            at = positions[begin : begin + chunk]
            gather_symbols(tables, at, stream, w.C)
            fill_tables(tables.P, w.W1, tables, sizes.E)
            if w.Wd.shape[0] > 0:
                fill_tables(tables.Q, w.Wd, tables, sizes.E)
            for first in range(0, at.size, block):
                if stop[0]:
                    return np.nan
                size = min(block, at.size - first)
                rows = tables.rows[first : first + size]
                hidden_units(h[:size], tables.P, rows, w.b1)
                matmul(logits[:size], h[:size], w.W2[: sizes.H])
                if w.Wd.shape[0] > 0:
                    add_direct_connections(logits[:size], tables.Q, rows)
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
train = EntryPoint(_make_train(_SOURCES))
mean = EntryPoint(_make_mean(_SOURCES))
