"""Random draws as pure functions of (seed, step, index), so every engine draws the same batches.

A generator with a state makes each draw depend on all draws before it and on the device. Here
draw i of step s is a hash of a key and i. So the batches and the dropout of a model do not depend
on other models, on the device or on interruptions, and a kernel can compute them where it needs
them.

The hash is "lowbias32" (Chris Wellons, Prospecting for Hash Functions, 2018): two multiplications
and three shifts of 32-bit words, which vectorise on a CPU and can be written in torch. These numpy
functions are the reference. The engines have their own versions, tested equal bit for bit.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np

# The two multipliers of lowbias32.
M1 = 0x7FEB352D
M2 = 0x846CA68B
WEYL = 0x9E3779B9  # 2**32 / golden ratio
STREAMS = {"batch": 0, "dropout": 1}


def mix(x: np.ndarray) -> np.ndarray:
    """Return lowbias32 of uint32 values."""
    x = np.asarray(x, np.uint32)
    x = (x ^ (x >> np.uint32(16))) * np.uint32(M1)
    x = (x ^ (x >> np.uint32(15))) * np.uint32(M2)
    return x ^ (x >> np.uint32(16))


def stream_key(seed: int, stream: Literal["batch", "dropout"], layer: int = 0) -> int:
    """Return the uint32 key of one of a model's streams; each dropout layer has its own."""
    entropy = [seed, STREAMS[stream], *([layer] if layer else [])]
    return int(np.random.SeedSequence(entropy).generate_state(1)[0])


def step_keys(key: int, steps: np.ndarray) -> np.ndarray:
    """Return the uint32 keys of some steps (counted from 0) of a stream."""
    return mix(np.uint32(key) ^ mix(np.asarray(steps, np.uint32)))


def uniform_bits(step_key: int, n: int) -> np.ndarray:
    """Return the first n draws (n,) uint32 of a step."""
    return mix(np.uint32(step_key) + np.arange(n, dtype=np.uint32) * np.uint32(WEYL))


def batch_rows(seed: int, step: int, batch_size: int, n_examples: int) -> np.ndarray:
    """Return the examples in the batch of a step, drawn with replacement.

    A multiplication scales the draws to 0 ... n_examples - 1 (Lemire 2019, without the rejection:
    its bias is below 1e-4).

    Args:
        seed: of the model.
        step: counted from 0.
        batch_size: examples per batch.
        n_examples: examples of the train split.

    Returns:
        (batch_size,) int64.
    """
    key = int(step_keys(stream_key(seed, "batch"), np.array([step]))[0])
    bits = uniform_bits(key, batch_size)
    return (bits.astype(np.uint64) * np.uint64(n_examples) >> np.uint64(32)).astype(np.int64)


def dropout_threshold(dropout: float) -> int:
    """Return the lowest uint32 draw that keeps a unit."""
    return min(int(dropout * 2**32), 2**32 - 1)


def dropout_keep(
    seed: int, step: int, shape: tuple[int, ...], dropout: float, layer: int = 0
) -> np.ndarray:
    """Return the dropout factors of a step's hidden units.

    Args:
        seed: of the model.
        step: counted from 0.
        shape: of the units, for example (B, H): batch size and hidden units.
        dropout: probability that a unit is zeroed.
        layer: number of the dropout layer, from 0 on.

    Returns:
        float32 of this shape: 0, or 1 / (1 - dropout) for a unit that is kept.
    """
    key = int(step_keys(stream_key(seed, "dropout", layer), np.array([step]))[0])
    bits = uniform_bits(key, math.prod(shape))
    keep = bits.reshape(shape) >= dropout_threshold(dropout)
    return keep.astype(np.float32) * np.float32(1 / (1 - dropout))
