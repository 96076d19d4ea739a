"""Random draws as pure functions of (seed, step, index), so that every engine sees the same batches.

A generator with a state would tie a draw to all draws before it, and to the device that made them. Here draw i of
step s is a hash of a key and i: a model's batches and dropout do not depend on its neighbours, on where it trains, or
on when it was stopped and taken up again, and a kernel computes them where it needs them.

The hash is "lowbias32" (Chris Wellons, Prospecting for Hash Functions, 2018): two multiplications and three shifts of
32-bit words, which vectorise on a CPU and can be written in torch. These numpy functions are the reference; the
engines carry their own versions, tested equal bit for bit.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

M1, M2, WEYL = (
    0x7FEB352D,
    0x846CA68B,
    0x9E3779B9,
)  # the two multipliers of lowbias32; 2**32 / golden ratio
STREAMS = {"batch": 0, "dropout": 1}


def mix(x: np.ndarray) -> np.ndarray:
    """lowbias32 of uint32 values."""
    x = np.asarray(x, np.uint32)
    x = (x ^ (x >> np.uint32(16))) * np.uint32(M1)
    x = (x ^ (x >> np.uint32(15))) * np.uint32(M2)
    return x ^ (x >> np.uint32(16))


def stream_key(seed: int, stream: Literal["batch", "dropout"]) -> int:
    """The uint32 key of one of a model's two streams."""
    return int(np.random.SeedSequence([seed, STREAMS[stream]]).generate_state(1)[0])


def step_keys(key: int, steps: np.ndarray) -> np.ndarray:
    """The uint32 key of each step (counted from 0) of a stream."""
    return mix(np.uint32(key) ^ mix(np.asarray(steps, np.uint32)))


def uniform_bits(step_key: int, n: int) -> np.ndarray:
    """The first n draws (n,) uint32 of a step."""
    return mix(np.uint32(step_key) + np.arange(n, dtype=np.uint32) * np.uint32(WEYL))


def batch_rows(seed: int, step: int, batch_size: int, n_examples: int) -> np.ndarray:
    """Which examples make the batch of a step (counted from 0): (batch_size,) int64, with replacement.

    Scaled to 0 ... n_examples - 1 by a multiplication (Lemire 2019, without the rejection: its bias is below 1e-4).
    """
    bits = uniform_bits(int(step_keys(stream_key(seed, "batch"), np.array([step]))[0]), batch_size)
    return (bits.astype(np.uint64) * np.uint64(n_examples) >> np.uint64(32)).astype(np.int64)


def dropout_threshold(dropout: float) -> int:
    """A unit is kept where its uint32 draw is at least this."""
    return min(int(dropout * 2**32), 2**32 - 1)


def dropout_keep(seed: int, step: int, shape: tuple[int, int], dropout: float) -> np.ndarray:
    """What each hidden unit of a step is multiplied by: (B, H) float32, 0 or 1 / (1 - dropout)."""
    bits = uniform_bits(
        int(step_keys(stream_key(seed, "dropout"), np.array([step]))[0]), shape[0] * shape[1]
    )
    keep = bits.reshape(shape) >= dropout_threshold(dropout)
    return keep.astype(np.float32) * np.float32(1 / (1 - dropout))
