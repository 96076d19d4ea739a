"""The layers of the model, forward and backward, as parts of the CPU kernel.

The first layer is linear in the embeddings, so it is computed per symbol and not per example. W1 is
cut into one block W1_t for each position t. Then emb @ W1 is the sum over t of the table rows
P[t, x_t], where P = C @ W1_t. A batch of 256 names has about 20 distinct symbols at a position.
This makes the layer's products ten times smaller, forward and backward; the rest are additions of
rows. With B examples and V symbols a table never has more than min(V, B) rows for a position. The
direct connections Wd are computed in the same way, with the table Q.

Forward, in the order in which `kernel.forward` calls them:

    gather_symbols            the distinct symbols at each position, and their embeddings
    fill_tables               P = embeddings @ W1_t; Q with Wd
    hidden_units              h = tanh(b1 + sum of rows of P)
    hidden_dropout            h * keep
    add_direct_connections    logits + sum of rows of Q
    loss_and_logits_gradient  softmax and cross-entropy, and their gradient

Backward, in the order in which `kernel.backward` calls them:

    column_sums               gradient of a bias
    scatter_to_tables         gradient of P, through the tanh, or of Q
    first_layer_gradient      gradients of W1 (or Wd) and of the embeddings C

`memory` names the arrays and their shapes; a + marks a padded size.
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
from makemore.engines.cpu.memory import Batch, SoftTargets, Tables
from makemore.engines.cpu.products import matmul, matmul_transposed

Array = np.ndarray
f32 = np.float32


@inlined
def tanh(x: Any) -> Any:
    """Return tanh(x) by Eigen's odd 13/6 rational minimax approximation; error below 3e-7."""
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
    """Return e**x = 2**n * e**r for x <= 88, by the polynomial of Cephes' expf (Moshier 1992).

    Below -87 it returns e**-87.
    """
    x = at_least(x, f32(-87))
    # Adding 1.5 * 2**23 rounds to a whole number: the last bit of the sum is worth 1.
    shifted = x * f32(1.44269504088896341) + f32(12582912)
    n = shifted - f32(12582912)
    r = (x - n * f32(0.693359375)) - n * f32(-2.12194440e-4)  # n * ln 2 in two parts
    p = f32(1.3981999507e-3) + r * f32(1.9875691500e-4)
    p = f32(4.1665795894e-2) + r * (f32(8.3334519073e-3) + r * p)
    p = f32(5.0000001201e-1) + r * (f32(1.6666665459e-1) + r * p)
    return (f32(1) + (r + (r * r) * p)) * power_of_two(shifted)


@inlined
def gather_symbols(tables: Tables, positions: Array, stream: Array, C: Array) -> None:
    """Give each distinct symbol at each position a table row, and copy the rows' embeddings.

    Args:
        positions: (n,) where the contexts end in the stream.
    """
    symbols, row_of, rows = tables.symbols, tables.row_of_symbol, tables.rows
    T = rows.shape[1]
    n = 0
    for t in range(T):
        tables.starts[t] = n
        for i in range(positions.size):
            symbol = np.intp(stream[positions[i] - T + t])
            if row_of[symbol] < 0:
                row_of[symbol] = n
                symbols[n] = symbol
                for e in range(C.shape[1]):
                    tables.embeddings[n, e] = C[symbol, e]
                n += 1
            rows[i, t] = row_of[symbol]
        for r in range(tables.starts[t], n):
            row_of[symbols[r]] = -1
    tables.starts[T] = n


@inlined
def fill_tables(P: Array, W: Array, tables: Tables, E: int) -> None:
    """P = embeddings @ W_t, for the rows of each position t; also used for Q with Wd."""
    for t in range(tables.starts.size - 1):
        first, end = tables.starts[t], tables.starts[t + 1]
        matmul(P[first:end], tables.embeddings[first:end], W[t * E : (t + 1) * E])


@inlined
def _hidden_columns(h: Array, P: Array, rows: Array, b1: Array, j: int, like: Any) -> None:
    """Compute `hidden_units` for the columns from j on, as many as `like` has."""
    for i in range(h.shape[0]):
        x = load(b1, j, like)
        for t in range(rows.shape[1]):
            x = x + load(P[rows[i, t]], j, like)
        store(h[i], j, tanh(x))


@inlined
def hidden_units(h: Array, P: Array, rows: Array, b1: Array) -> None:
    """h = tanh(b1 + sum of each context's rows of P).

    Computed for a block of columns at a time, so that the block's part of P stays in the L1 cache.
    """
    whole = b1.size // BLOCK * BLOCK
    for j in range(0, whole, BLOCK):
        _hidden_columns(h, P, rows, b1, j, fill_block(f32(0)))
    for j in range(whole, b1.size, LANES):
        _hidden_columns(h, P, rows, b1, j, fill(f32(0)))


@inlined
def hidden_dropout(
    h: Array, slope: Array, H: int, key: np.uint32, threshold: np.uint32, keep_scale: np.float32
) -> None:
    """Multiply hidden units by their dropout keep, and write slope = keep * (1 - tanh**2)."""
    for i in range(h.shape[0]):
        for j in range(0, h.shape[1], LANES):
            keep = drawn_keep(key, i * H + j, threshold, keep_scale, fill(f32(0)))
            x = load(h[i], j, keep)
            store(slope[i], j, keep - keep * (x * x))
            store(h[i], j, keep * x)


@inlined
def add_direct_connections(logits: Array, Q: Array, rows: Array) -> None:
    """Add the sum of each context's rows of Q to its logits."""
    for i in range(logits.shape[0]):
        for j in range(0, logits.shape[1], LANES):
            x = load(logits[i], j, fill(f32(0)))
            for t in range(rows.shape[1]):
                x = x + load(Q[rows[i, t]], j, x)
            store(logits[i], j, x)


@inlined
def exponentials(row: Array, b2: Array, V: int) -> tuple[np.float32, np.float32]:
    """Replace the logits (V+,) of a context by exp(logit + bias - bound), 0 in the padding.

    Returns:
        The sum of the exponentials, and the bound: the largest logit with its bias.
    """
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
def _subtract_soft_targets(
    gradient: Array, batch: Batch, soft: SoftTargets, share: np.float32
) -> None:
    """Subtract each example's share of the teacher's probabilities from the logits' gradient."""
    for i in range(batch.rows.size):
        row = gradient[batch.rows[i]]
        targets = soft.table[soft.rows[batch.examples[i]]]
        for j in range(0, row.size, LANES):
            x = load(row, j, fill(f32(0)))
            store(row, j, x - load(targets, j, x) * share)


@inlined
def loss_and_logits_gradient(
    logits: Array, b2: Array, batch: Batch, V: int, soft: SoftTargets
) -> float:
    """Return the batch's mean cross-entropy in nats; replace the logits by their gradient.

    The loss is that of the true targets. With a teacher the gradient is that of `teacher`'s loss.
    """
    share = f32(1) / f32(batch.rows.size)
    true_share = share * soft.true_weight
    loss, product = 0.0, 1.0
    for i in range(batch.rows.size):
        y = batch.targets[i]
        loss -= logits[batch.rows[i], y] + b2[y]
    for k in range(logits.shape[0]):
        row = logits[k]
        normaliser, bound = exponentials(row, b2, V)
        loss += batch.counts[k] * bound
        for _ in range(batch.counts[k]):  # one logarithm of a product is cheaper than many
            product *= normaliser
            if product > 1e100:
                loss += np.log(product)
                product = 1.0
        scale = share * f32(batch.counts[k]) / normaliser
        for j in range(0, row.size, LANES):
            store(row, j, load(row, j, fill(f32(0))) * scale)
    for i in range(batch.rows.size):
        logits[batch.rows[i], batch.targets[i]] -= true_share
    if soft.rows.size > 0:
        _subtract_soft_targets(logits, batch, soft, share)
    return (loss + np.log(product)) / batch.rows.size


@inlined
def column_sums(out: Array, rows: Array, n: int) -> None:
    """Write the sums of the first n rows into out: the gradient of a bias."""
    for j in range(0, out.size, LANES):
        x = fill(f32(0))
        for i in range(n):
            x = x + load(rows[i], j, x)
        store(out, j, x)


@inlined
def _scatter_columns(
    dP: Array, n: int, rows: Array, d: Array, h: Array, slope: Array, j: int, like: Any
) -> None:
    """Compute `scatter_to_tables` for the columns from j on, as many as `like` has."""
    for r in range(n):
        store(dP[r], j, like)
    for i in range(rows.shape[0]):
        x = load(d[i], j, like)
        if slope.size > 0:
            x = x * load(slope[i], j, like)
        elif h.size > 0:
            y = load(h[i], j, like)
            x = x * (f32(1) - y * y)
        for t in range(rows.shape[1]):
            row = dP[rows[i, t]]
            store(row, j, load(row, j, like) + x)


@inlined
def scatter_to_tables(dP: Array, n: int, rows: Array, d: Array, h: Array, slope: Array) -> None:
    """Write the gradient of the first n table rows: the sum over all contexts that use the row.

    Args:
        dP: (R, N) the result; it overwrites P or Q.
        rows: (B, T) the table rows of each context.
        d: (B, N) the gradient of h for P, of the logits for Q.
        h: (B, N) the hidden units, for the slope of tanh; empty for Q, which has no tanh.
        slope: (B, N) the slope with dropout; empty without dropout.
    """
    N = d.shape[1]
    whole = N // BLOCK * BLOCK
    for j in range(0, whole, BLOCK):
        _scatter_columns(dP, n, rows, d, h, slope, j, fill_block(f32(0)))
    for j in range(whole, N, LANES):
        _scatter_columns(dP, n, rows, d, h, slope, j, fill(f32(0)))


@inlined
def first_layer_gradient(
    dW: Array, dC: Array, dP: Array, W: Array, tables: Tables, dembeddings: Array, E: int
) -> None:
    """Write the gradient of W1 and add that of C, from the gradient dP of the table P = C @ W1_t.

    Also used for the direct connections, with Wd and Q in place of W1 and P.

    Args:
        dW: (T*E, N) the gradient of W1 or Wd; overwritten.
        dC: (V, E) the gradient of C; added to.
        dP: (R, N) the gradient of P or Q, from `scatter_to_tables`.
        W: (T*E, N) W1 or Wd.
        dembeddings: (R+, E+) scratch.
    """
    starts = tables.starts
    for t in range(starts.size - 1):
        first, end = starts[t], starts[t + 1]
        matmul(dW[t * E : (t + 1) * E], tables.embeddings[first:end].T, dP[first:end])
        matmul_transposed(dembeddings[first:], dP[first:end], W[t * E : (t + 1) * E])
    for r in range(starts[-1]):
        row = dC[tables.symbols[r]]
        for e in range(E):
            row[e] += dembeddings[r, e]
