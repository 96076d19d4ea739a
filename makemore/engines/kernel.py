"""The numba kernel of the CPU engine: all steps between two evaluations, and the exact mean over a split.

The first layer is linear in the embeddings, so it is computed by symbol and not by example: with W1 cut into a block
for each position, emb @ W1 is a sum over positions t of table rows P[t, x_t], P = C @ W1_t. A batch of 256 names holds
about 25 different symbols at a position, which makes the layer's products ten times smaller, forward and backward; the
rest are additions of rows. With B examples and V symbols a table never has more than min(V, B) rows a position.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from makemore.draws import M1, M2, WEYL
from makemore.engines.kernel_compile import EntryPoint, inlined, source_number
from makemore.engines.kernel_lanes import (
    BLOCK,
    LANES,
    at_least,
    at_most,
    drawn_keep,
    fill,
    fill_block,
    first_lanes,
    largest,
    load,
    power_of_two,
    store,
    total,
)
from makemore.engines.kernel_memory import Sizes, Step, Tables, Weights
from makemore.engines.kernel_products import matmul, transpose

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
    """

    done: int
    lrs: Array
    batch_keys: Array
    dropout_keys: Array
    threshold: np.uint32
    kept: np.float32
    weight_decay: np.float32


@inlined
def tanh(x: Any) -> Any:
    """The odd 13/6 rational minimax approximation of Eigen's float32 tanh; its error is below 3e-7."""
    x = at_most(at_least(x, f32(-7.90531110763549805)), f32(7.90531110763549805))
    s = x * x
    p = f32(2.00018790482477e-13) + s * f32(-2.76076847742355e-16)
    p = f32(1.48572235717979e-05) + s * (f32(5.12229709037114e-08) + s * (f32(-8.60467152213735e-11) + s * p))
    p = x * (f32(4.89352455891786e-03) + s * (f32(6.37261928875436e-04) + s * p))
    q = f32(1.18534705686654e-04) + s * f32(1.19825839466702e-06)
    return p / (f32(4.89352518554385e-03) + s * (f32(2.26843463243900e-03) + s * q))


@inlined
def exp(x: Any) -> Any:
    """e**x = 2**n * e**r for x <= 88, by the polynomial of Cephes' expf (Moshier 1992); e**-87 below -87."""
    x = at_least(x, f32(-87))
    shifted = x * f32(1.44269504088896341) + f32(12582912)  # 1.5 * 2**23: the sum's last bit is worth 1
    n = shifted - f32(12582912)
    r = (x - n * f32(0.693359375)) - n * f32(-2.12194440e-4)  # n * ln 2 in two parts
    p = f32(1.3981999507e-3) + r * f32(1.9875691500e-4)
    p = f32(4.1665795894e-2) + r * (f32(8.3334519073e-3) + r * p)
    p = f32(5.0000001201e-1) + r * (f32(1.6666665459e-1) + r * p)
    return (f32(1) + (r + (r * r) * p)) * power_of_two(shifted)


@inlined
def draw_batch(at: Array, key: np.uint32, positions: Array) -> None:
    """Where the examples of a step stand in the stream: `draws.batch_rows`."""
    for i in range(at.size):
        x = u32(key + u32(u32(i) * u32(WEYL)))
        x = u32(u32(x ^ (x >> u32(16))) * u32(M1))
        x = u32(u32(x ^ (x >> u32(15))) * u32(M2))
        at[i] = positions[np.intp((u64(u32(x ^ (x >> u32(16)))) * u64(positions.size)) >> u64(32))]


@inlined
def group(tables: Tables, at: Array, stream: Array, C: Array) -> None:
    """Give each different symbol at each position a row, and gather the rows' embeddings."""
    symbols, row_of, rows = tables.symbols, tables.row_of, tables.rows
    T = rows.shape[1]
    n = 0
    for t in range(T):
        tables.bases[t] = n
        for i in range(at.size):
            symbol = np.intp(stream[at[i] - T + t])
            if row_of[symbol] < 0:
                row_of[symbol] = n
                symbols[n] = symbol
                for e in range(C.shape[1]):
                    tables.Cr[n, e] = C[symbol, e]
                n += 1
            rows[i, t] = row_of[symbol]
        for r in range(tables.bases[t], n):
            row_of[symbols[r]] = -1
    tables.bases[T] = n


@inlined
def fill_tables(P: Array, W: Array, tables: Tables, E: int) -> None:
    for t in range(tables.bases.size - 1):
        first, end = tables.bases[t], tables.bases[t + 1]
        matmul(P[first:end], tables.Cr[first:end], W[t * E : (t + 1) * E])


@inlined
def _activate_columns(h: Array, P: Array, rows: Array, b1: Array, j: int, like: Any) -> None:
    for i in range(h.shape[0]):
        x = load(b1, j, like)
        for t in range(rows.shape[1]):
            x = x + load(P[rows[i, t]], j, like)
        store(h[i], j, tanh(x))


@inlined
def activate(h: Array, P: Array, rows: Array, b1: Array) -> None:
    """h = tanh(b1 + the sum of each example's table rows), a block of columns at a time: its table stays in L1."""
    whole = b1.size // BLOCK * BLOCK
    for j in range(0, whole, BLOCK):
        _activate_columns(h, P, rows, b1, j, fill_block(f32(0)))
    for j in range(whole, b1.size, LANES):
        _activate_columns(h, P, rows, b1, j, fill(f32(0)))


@inlined
def drop(h: Array, slope: Array, H: int, key: np.uint32, plan: Plan) -> None:
    """Silence hidden units, and note the slope of what is left: keep * (1 - tanh**2)."""
    for i in range(h.shape[0]):
        for j in range(0, h.shape[1], LANES):
            keep = drawn_keep(key, i * H + j, plan.threshold, plan.kept, fill(f32(0)))
            x = load(h[i], j, keep)
            store(slope[i], j, keep - keep * (x * x))
            store(h[i], j, keep * x)


@inlined
def add_tables(logits: Array, Q: Array, rows: Array) -> None:
    """Add the direct connections."""
    for i in range(logits.shape[0]):
        for j in range(0, logits.shape[1], LANES):
            x = load(logits[i], j, fill(f32(0)))
            for t in range(rows.shape[1]):
                x = x + load(Q[rows[i, t]], j, x)
            store(logits[i], j, x)


@inlined
def exponentials(row: Array, b2: Array, V: int) -> tuple[np.float32, np.float32]:
    """Replace logits (V+,) by exp(logit + bias - largest), 0 in the padding; return their sum and the largest."""
    top = fill(f32(-np.inf))
    for j in range(0, row.size, LANES):
        x = first_lanes(load(row, j, top) + load(b2, j, top), V - j, f32(-np.inf))
        store(row, j, x)
        top = at_least(x, top)
    bound = largest(top)
    sums = fill(f32(0))
    for j in range(0, row.size, LANES):
        x = first_lanes(exp(load(row, j, top) - bound), V - j, f32(0))
        store(row, j, x)
        sums = sums + x
    return total(sums), bound


@inlined
def softmax_gradient(logits: Array, b2: Array, stream: Array, at: Array, V: int) -> float:
    """Replace logits by the gradient of the mean loss; return that loss."""
    share = f32(1) / f32(at.size)
    loss, product = 0.0, 1.0
    for i in range(at.size):
        row, y = logits[i], np.intp(stream[at[i]])
        correct = row[y] + b2[y]
        normaliser, bound = exponentials(row, b2, V)
        loss -= correct - bound
        product *= normaliser  # at most V**8 < 2**128 before its logarithm is taken: one for eight examples
        if i % 8 == 7:
            loss += np.log(product)
            product = 1.0
        scale = share / normaliser
        for j in range(0, row.size, LANES):
            store(row, j, load(row, j, fill(f32(0))) * scale)
        row[y] -= share
    return (loss + np.log(product)) / at.size


@inlined
def column_sums(out: Array, rows: Array, n: int) -> None:
    for j in range(0, out.size, LANES):
        x = fill(f32(0))
        for i in range(n):
            x = x + load(rows[i], j, x)
        store(out, j, x)


@inlined
def _scatter_columns(tables: Array, n: int, rows: Array, d: Array, h: Array, slope: Array, j: int, like: Any) -> None:
    for r in range(n):
        store(tables[r], j, like)
    for i in range(rows.shape[0]):
        x = load(d[i], j, like)
        if slope.size > 0:
            x = x * load(slope[i], j, like)
        elif h.size > 0:
            y = load(h[i], j, like)
            x = x * (f32(1) - y * y)
        for t in range(rows.shape[1]):
            row = tables[rows[i, t]]
            store(row, j, load(row, j, like) + x)


@inlined
def scatter(tables: Array, n: int, rows: Array, d: Array, h: Array, slope: Array) -> None:
    """Add each example's gradient d, times the slope of its tanh, to its table rows; an empty h means no tanh."""
    N = d.shape[1]
    whole = N // BLOCK * BLOCK
    for j in range(0, whole, BLOCK):
        _scatter_columns(tables, n, rows, d, h, slope, j, fill_block(f32(0)))
    for j in range(whole, N, LANES):
        _scatter_columns(tables, n, rows, d, h, slope, j, fill(f32(0)))


@inlined
def through_tables(dW: Array, dC: Array, dP: Array, W: Array, WT: Array, tables: Tables, dCr: Array, E: int) -> None:
    """From the gradient dP of a layer's tables to those of its weights and of the embeddings."""
    bases = tables.bases
    for t in range(bases.size - 1):
        first, end = bases[t], bases[t + 1]
        matmul(dW[t * E : (t + 1) * E], tables.Cr[first:end].T, dP[first:end])
        transpose(WT[t], W[t * E : (t + 1) * E])
        matmul(dCr[first:end], dP[first:end], WT[t])
    for r in range(bases[-1]):
        row = dC[tables.symbols[r]]
        for e in range(E):
            row[e] += dCr[r, e]


@inlined
def gradient(
    w: Weights, g: Weights, tables: Tables, s: Step, stream: Array, sizes: Sizes, key: np.uint32, plan: Plan
) -> float:
    """Write the gradient of the examples at `tables.at` into g; return their mean loss (Bengio et al. 2003, eq. 1)."""
    E, H, V = sizes.E, sizes.H, sizes.V
    direct, B = w.Wd.shape[0] > 0, tables.at.size
    group(tables, tables.at, stream, w.C)
    n = tables.bases[-1]
    fill_tables(tables.P, w.W1, tables, E)
    activate(s.h, tables.P, tables.rows, w.b1)
    if s.slope.size > 0:
        drop(s.h, s.slope, H, key, plan)
    matmul(s.logits, s.h, w.W2[:H])
    if direct:
        fill_tables(tables.Q, w.Wd, tables, E)
        add_tables(s.logits, tables.Q, tables.rows)
    loss = softmax_gradient(s.logits, w.b2, stream, tables.at, V)

    column_sums(g.b2, s.logits, B)
    matmul(g.W2[:H], s.h.T, s.logits)
    transpose(s.W2T, w.W2)
    matmul(s.dh, s.logits, s.W2T[:V])
    scatter(tables.P, n, tables.rows, s.dh, s.h, s.slope)
    column_sums(g.b1, tables.P, tables.bases[1])  # position 0 holds each example once
    g.C[:] = 0
    through_tables(g.W1, g.C, tables.P, w.W1, s.W1T, tables, s.dCr, E)
    if direct:
        scatter(tables.Q, n, tables.rows, s.logits, s.h[:0], s.slope[:0])
        through_tables(g.Wd, g.C, tables.Q, w.Wd, s.WdT, tables, s.dCr, E)
    return loss


@inlined
def sgd(p: Array, g: Array, lr: np.float32, weight_decay: np.float32) -> None:
    decay = f32(1) - lr * weight_decay
    for k in range(p.size):
        p[k] = p[k] * decay - lr * g[k]


@inlined
def adamw(p: Array, g: Array, m: Array, v: Array, n: int, lr: np.float32, weight_decay: np.float32) -> None:
    """Step n (from 1) of AdamW with torch's defaults (Loshchilov & Hutter 2019, algorithm 2)."""
    decay = f32(1) - lr * weight_decay
    rate = f32(lr / (1 - 0.9**n))
    root = f32(1 / np.sqrt(1 - 0.999**n))
    for k in range(p.size):
        m[k] = f32(0.9) * m[k] + f32(0.1) * g[k]
        v[k] = f32(0.999) * v[k] + f32(0.001) * (g[k] * g[k])
        p[k] = p[k] * decay - rate * m[k] / (np.sqrt(v[k]) * root + f32(1e-8))


def _make_train(sources: int) -> Callable[..., Any]:
    def train(
        stop: Array, stream: Array, positions: Array, sizes: Sizes, plan: Plan,
        w: Weights, g: Weights, m: Array, v: Array, tables: Tables, s: Step,
    ) -> tuple[int, float]:  # fmt: skip
        """Train a step for each of `plan.lrs`; return the steps done and the sum of their losses.

        Ends early when `stop[0]` is set, and after a loss that is inf or nan. AdamW where m and v are not empty.
        """
        _ = sources
        losses = 0.0
        for i in range(plan.lrs.size):
            if stop[0]:
                return i, losses
            draw_batch(tables.at, plan.batch_keys[i], positions)
            loss = gradient(w, g, tables, s, stream, sizes, plan.dropout_keys[i], plan)
            losses += loss
            if not np.isfinite(loss):
                return i + 1, losses
            if m.size > 0:
                adamw(w.flat, g.flat, m, v, plan.done + i + 1, plan.lrs[i], plan.weight_decay)
            else:
                sgd(w.flat, g.flat, plan.lrs[i], plan.weight_decay)
        return plan.lrs.size, losses

    return train


def _make_mean(sources: int) -> Callable[..., Any]:
    def mean(
        stop: Array, stream: Array, positions: Array, offsets: Array, targets: Array, counts: Array,
        sizes: Sizes, w: Weights, tables: Tables, h: Array, logits: Array,
    ) -> float:  # fmt: skip
        """Exact mean cross-entropy over a split, given as `data.Distinct`: each different context is computed once.

        Tables are made for `tables.at.size` contexts at a time, hidden units and logits for `h.shape[0]`.
        """
        _ = sources
        chunk, block = tables.at.size, h.shape[0]
        loss, n = 0.0, 0
        for begin in range(0, positions.size, chunk):
            at = tables.at[: min(chunk, positions.size - begin)]
            for i in range(at.size):
                at[i] = positions[begin + i]
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


_SOURCES = source_number("../draws.py", "kernel_compile.py", "kernel_lanes.py", "kernel_products.py")
train, mean = EntryPoint(_make_train(_SOURCES)), EntryPoint(_make_mean(_SOURCES))
