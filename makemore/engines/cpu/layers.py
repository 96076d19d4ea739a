"""The layers of the model, forward and backward, as parts of the CPU kernel.

The first layer is linear in the embeddings, so it is computed by symbol and not by example: with W1 cut into a block
for each position, emb @ W1 is a sum over positions t of table rows P[t, x_t], P = C @ W1_t. A batch of 256 names holds
about 20 different symbols at a position, which makes the layer's products ten times smaller, forward and backward; the
rest are additions of rows. With B examples and V symbols a table never has more than min(V, B) rows a position.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from makemore.engines.cpu.compile import inlined
from makemore.engines.cpu.lanes import (
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
from makemore.engines.cpu.memory import Batch, Tables
from makemore.engines.cpu.products import matmul, matmul_transposed

Array = np.ndarray
f32 = np.float32


@inlined
def tanh(x: Any) -> Any:
    """The odd 13/6 rational minimax approximation of Eigen's float32 tanh; its error is below 3e-7."""
    x = at_most(at_least(x, f32(-7.90531110763549805)), f32(7.90531110763549805))
    s = x * x
    p = f32(2.00018790482477e-13) + s * f32(-2.76076847742355e-16)
    p = f32(1.48572235717979e-05) + s * (
        f32(5.12229709037114e-08) + s * (f32(-8.60467152213735e-11) + s * p)
    )
    p = x * (f32(4.89352455891786e-03) + s * (f32(6.37261928875436e-04) + s * p))
    q = f32(1.18534705686654e-04) + s * f32(1.19825839466702e-06)
    return p / (f32(4.89352518554385e-03) + s * (f32(2.26843463243900e-03) + s * q))


@inlined
def exp(x: Any) -> Any:
    """e**x = 2**n * e**r for x <= 88, by the polynomial of Cephes' expf (Moshier 1992); e**-87 below -87."""
    x = at_least(x, f32(-87))
    shifted = x * f32(1.44269504088896341) + f32(
        12582912
    )  # 1.5 * 2**23: the sum's last bit is worth 1
    n = shifted - f32(12582912)
    r = (x - n * f32(0.693359375)) - n * f32(-2.12194440e-4)  # n * ln 2 in two parts
    p = f32(1.3981999507e-3) + r * f32(1.9875691500e-4)
    p = f32(4.1665795894e-2) + r * (f32(8.3334519073e-3) + r * p)
    p = f32(5.0000001201e-1) + r * (f32(1.6666665459e-1) + r * p)
    return (f32(1) + (r + (r * r) * p)) * power_of_two(shifted)


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
def drop(
    h: Array, slope: Array, H: int, key: np.uint32, threshold: np.uint32, kept: np.float32
) -> None:
    """Silence hidden units, and note the slope of what is left: keep * (1 - tanh**2)."""
    for i in range(h.shape[0]):
        for j in range(0, h.shape[1], LANES):
            keep = drawn_keep(key, i * H + j, threshold, kept, fill(f32(0)))
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
def softmax_gradient(logits: Array, b2: Array, batch: Batch, V: int) -> float:
    """Replace the logits of each context by the gradient of the batch's mean loss; return that loss."""
    share = f32(1) / f32(batch.rows.size)
    loss, product = 0.0, 1.0
    for i in range(batch.rows.size):
        y = batch.targets[i]
        loss -= logits[batch.rows[i], y] + b2[y]
    for k in range(logits.shape[0]):
        row = logits[k]
        normaliser, bound = exponentials(row, b2, V)
        loss += batch.counts[k] * bound
        for _ in range(batch.counts[k]):  # a logarithm costs more than many products
            product *= normaliser
            if product > 1e100:
                loss += np.log(product)
                product = 1.0
        scale = share * f32(batch.counts[k]) / normaliser
        for j in range(0, row.size, LANES):
            store(row, j, load(row, j, fill(f32(0))) * scale)
    for i in range(batch.rows.size):
        logits[batch.rows[i], batch.targets[i]] -= share
    return (loss + np.log(product)) / batch.rows.size


@inlined
def column_sums(out: Array, rows: Array, n: int) -> None:
    for j in range(0, out.size, LANES):
        x = fill(f32(0))
        for i in range(n):
            x = x + load(rows[i], j, x)
        store(out, j, x)


@inlined
def _scatter_columns(
    tables: Array, n: int, rows: Array, d: Array, h: Array, slope: Array, j: int, like: Any
) -> None:
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
def through_tables(
    dW: Array, dC: Array, dP: Array, W: Array, tables: Tables, dCr: Array, E: int
) -> None:
    """From the gradient dP of a layer's tables to those of its weights and of the embeddings."""
    bases = tables.bases
    for t in range(bases.size - 1):
        first, end = bases[t], bases[t + 1]
        matmul(dW[t * E : (t + 1) * E], tables.Cr[first:end].T, dP[first:end])
        matmul_transposed(dCr[first:], dP[first:end], W[t * E : (t + 1) * E])
    for r in range(bases[-1]):
        row = dC[tables.symbols[r]]
        for e in range(E):
            row[e] += dCr[r, e]
