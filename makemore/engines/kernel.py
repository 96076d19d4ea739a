"""The numba kernels of the CPU engine: all steps of a stretch, and the exact mean over a split, without the GIL."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numba
import numpy as np

from makemore.draws import M1, M2, WEYL

f32, u32, u64 = np.float32, np.uint32, np.uint64

# Not fastmath=True: it promises that no value is inf or nan, and the check for divergence would be compiled away.
FASTMATH = {"reassoc", "contract", "arcp", "nsz", "afn"}
# error_model="numpy": Python's check for a division by zero would keep LLVM from vectorising.
OPTIONS: dict[str, Any] = {"fastmath": FASTMATH, "nogil": True, "error_model": "numpy"}


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile on the first call, and keep the machine code beside this file."""
    return numba.njit(cache=True, **OPTIONS)(function)


class Weights(NamedTuple):
    """Views of one flat vector, in the order of `parameter_shapes`; Wd has no rows without direct connections."""

    C: np.ndarray
    W1: np.ndarray
    b1: np.ndarray
    W2: np.ndarray
    b2: np.ndarray
    Wd: np.ndarray


class Scratch(NamedTuple):
    """What one step computes."""

    emb: np.ndarray  # (B, T*E)
    h: np.ndarray  # (B, H)
    keep: np.ndarray  # (B, H), or empty without dropout
    logits: np.ndarray  # (B, V), and their gradient
    logits2: np.ndarray  # (B, V) of the direct connections
    dh: np.ndarray  # (B, H)
    demb: np.ndarray  # (B, T*E)
    demb2: np.ndarray  # (B, T*E) through the direct connections
    at: np.ndarray  # (B,) int64 positions in the stream


@compiled
def mix(x):  # type: ignore[no-untyped-def]
    """lowbias32, as `draws.mix`."""
    x = u32(u32(x ^ (x >> u32(16))) * u32(M1))
    x = u32(u32(x ^ (x >> u32(15))) * u32(M2))
    return u32(x ^ (x >> u32(16)))


@compiled
def tanh(x):  # type: ignore[no-untyped-def]
    """The odd 13/6 rational minimax approximation of Eigen's float32 tanh; its error is below 3e-7."""
    x = min(max(x, f32(-7.90531110763549805)), f32(7.90531110763549805))
    s = x * x
    p = f32(2.00018790482477e-13) + s * f32(-2.76076847742355e-16)
    p = f32(1.48572235717979e-05) + s * (f32(5.12229709037114e-08) + s * (f32(-8.60467152213735e-11) + s * p))
    p = x * (f32(4.89352455891786e-03) + s * (f32(6.37261928875436e-04) + s * p))
    q = f32(1.18534705686654e-04) + s * f32(1.19825839466702e-06)
    return p / (f32(4.89352518554385e-03) + s * (f32(2.26843463243900e-03) + s * q))


@compiled
def draw_batch(at, key, positions):  # type: ignore[no-untyped-def]
    """The batch of a step, as `draws.batch_rows`: where each example stands in the stream."""
    for i in range(at.size):
        bits = mix(u32(key + u32(u32(i) * u32(WEYL))))
        at[i] = positions[np.int64((u64(bits) * u64(positions.size)) >> u64(32))]


@compiled
def draw_keep(keep, key, threshold, scale):  # type: ignore[no-untyped-def]
    """What dropout multiplies each hidden unit by, as `draws.dropout_keep`."""
    flat = keep.reshape(-1)
    for i in range(flat.size):
        bits = mix(u32(key + u32(u32(i) * u32(WEYL))))
        flat[i] = scale if bits >= threshold else f32(0)


@compiled
def gather(emb, stream, at, C, block_size):  # type: ignore[no-untyped-def]
    E = C.shape[1]
    for i in range(at.size):
        for t in range(block_size):
            row = C[stream[at[i] - block_size + t]]
            for e in range(E):
                emb[i, t * E + e] = row[e]


@compiled
def hidden(h, emb, W1, b1):  # type: ignore[no-untyped-def]
    np.dot(emb, W1, h)
    for i in range(h.shape[0]):
        for j in range(h.shape[1]):
            h[i, j] = tanh(h[i, j] + b1[j])


@compiled
def softmax_gradient(logits, b2, stream, at):  # type: ignore[no-untyped-def]
    """Turn logits into the gradient of the mean loss, in place; return the mean loss."""
    B, V = logits.shape
    inverse = f32(1) / f32(B)
    total = 0.0
    for i in range(B):
        row = logits[i]
        largest = f32(-np.inf)
        for v in range(V):
            row[v] += b2[v]
            largest = max(largest, row[v])
        y = stream[at[i]]
        correct = row[y] - largest
        normaliser = f32(0)
        for v in range(V):
            row[v] = np.exp(row[v] - largest)
            normaliser += row[v]
        total += np.log(normaliser) - correct
        for v in range(V):
            row[v] *= inverse / normaliser
        row[y] -= inverse
    return total / B


@compiled
def column_sums(out, rows):  # type: ignore[no-untyped-def]
    out[:] = 0
    for i in range(rows.shape[0]):
        for j in range(rows.shape[1]):
            out[j] += rows[i, j]


@compiled
def gradient(w, g, s, stream, block_size, drop):  # type: ignore[no-untyped-def]
    """Gradient of the minibatch at `s.at` into `g`; return its mean loss."""
    E = w.C.shape[1]
    direct = w.Wd.shape[0] > 0
    gather(s.emb, stream, s.at, w.C, block_size)
    hidden(s.h, s.emb, w.W1, w.b1)
    kept = s.dh  # its memory is free until the backward pass
    if drop:
        for i in range(s.h.shape[0]):
            for j in range(s.h.shape[1]):
                kept[i, j] = s.h[i, j] * s.keep[i, j]
    np.dot(kept if drop else s.h, w.W2, s.logits)
    if direct:
        np.dot(s.emb, w.Wd, s.logits2)
        s.logits[:] += s.logits2
    loss = softmax_gradient(s.logits, w.b2, stream, s.at)
    column_sums(g.b2, s.logits)
    np.dot((kept if drop else s.h).T, s.logits, g.W2)
    np.dot(s.logits, w.W2.T, s.dh)
    for i in range(s.h.shape[0]):
        for j in range(s.h.shape[1]):
            slope = f32(1) - s.h[i, j] * s.h[i, j]
            s.dh[i, j] *= slope * s.keep[i, j] if drop else slope
    column_sums(g.b1, s.dh)
    np.dot(s.emb.T, s.dh, g.W1)
    np.dot(s.dh, w.W1.T, s.demb)
    if direct:
        np.dot(s.emb.T, s.logits, g.Wd)
        np.dot(s.logits, w.Wd.T, s.demb2)
        s.demb[:] += s.demb2
    g.C[:] = 0
    for i in range(s.at.size):
        for t in range(block_size):
            row = g.C[stream[s.at[i] - block_size + t]]
            for e in range(E):
                row[e] += s.demb[i, t * E + e]
    return loss


@compiled
def sgd(p, g, lr, weight_decay):  # type: ignore[no-untyped-def]
    decay = f32(1) - lr * weight_decay
    for k in range(p.size):
        p[k] = p[k] * decay - lr * g[k]


@compiled
def adamw(p, g, m, v, n, lr, weight_decay):  # type: ignore[no-untyped-def]
    """Step n (from 1) of AdamW (Loshchilov & Hutter 2019, algorithm 2), as torch.optim.AdamW."""
    decay = f32(1) - lr * weight_decay
    rate = f32(lr / (1 - 0.9**n))
    root = f32(1 / np.sqrt(1 - 0.999**n))
    for k in range(p.size):
        m[k] = f32(0.9) * m[k] + f32(0.1) * g[k]
        v[k] = f32(0.999) * v[k] + f32(0.001) * (g[k] * g[k])
        p[k] = p[k] * decay - rate * m[k] / (np.sqrt(v[k]) * root + f32(1e-8))


@compiled
def train_steps(  # type: ignore[no-untyped-def]
    stop,
    stream,
    positions,
    block_size,
    done,
    lrs,
    batch_keys,
    drop_keys,
    threshold,
    scale,
    weight_decay,
    p,
    w,
    grads,
    g,
    m,
    v,
    s,
):
    """Train from step `done` on, a step for each of `lrs`; return (steps done, sum of their losses).

    Ends early when `stop` is set, or after a loss that is not finite.
    """
    total = 0.0
    drop = s.keep.size > 0
    for i in range(lrs.size):
        if stop[0]:
            return i, total
        draw_batch(s.at, batch_keys[i], positions)
        if drop:
            draw_keep(s.keep, drop_keys[i], threshold, scale)
        loss = gradient(w, g, s, stream, block_size, drop)
        total += loss
        if not np.isfinite(loss):
            return i + 1, total
        if m.size:
            adamw(p, grads, m, v, done + i + 1, lrs[i], weight_decay)
        else:
            sgd(p, grads, lrs[i], weight_decay)
    return lrs.size, total


@compiled
def mean_loss(stream, positions, offsets, targets, counts, block_size, w, s):  # type: ignore[no-untyped-def]
    """Exact mean cross-entropy over a split, given its distinct contexts."""
    chunk = s.at.size
    total, n = 0.0, 0
    for first in range(0, positions.size, chunk):
        size = min(chunk, positions.size - first)
        emb, h, logits = s.emb[:size], s.h[:size], s.logits[:size]
        gather(emb, stream, positions[first : first + size], w.C, block_size)
        hidden(h, emb, w.W1, w.b1)
        np.dot(h, w.W2, logits)
        if w.Wd.shape[0] > 0:
            np.dot(emb, w.Wd, s.logits2[:size])
            logits += s.logits2[:size]
        for i in range(size):
            row = logits[i]
            largest = f32(-np.inf)
            for k in range(row.size):
                row[k] += w.b2[k]
                largest = max(largest, row[k])
            normaliser = f32(0)
            for k in range(row.size):
                normaliser += np.exp(row[k] - largest)
            log_normaliser = np.float64(np.log(normaliser)) + largest
            for k in range(offsets[first + i], offsets[first + i + 1]):
                total += counts[k] * (log_normaliser - row[targets[k]])
                n += counts[k]
    return total / n
