"""The memory of the CPU kernel: every array that a model needs, allocated once.

Rows that the kernel reads or writes in whole registers are padded to a multiple of LANES numbers, marked + (H+ is H
rounded up). The padding of parameters is zero, has zero gradients, and so stays zero.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch

from makemore.config import Config
from makemore.engines.cpu.lanes import LANES
from makemore.model import MLP


class Sizes(NamedTuple):
    """Context length, embedding, hidden units, vocabulary."""

    T: int
    E: int
    H: int
    V: int


class Weights(NamedTuple):
    """Parameters, or their gradients: views of one vector."""

    flat: np.ndarray
    C: np.ndarray  # (V, E)
    W1: np.ndarray  # (T*E, H+)
    b1: np.ndarray  # (H+,)
    W2: np.ndarray  # (H+, V+)
    b2: np.ndarray  # (V+,)
    Wd: np.ndarray  # (T*E, V+), or no rows without direct connections


class Batch(NamedTuple):
    """The B examples of a step, by context: one that stands in the batch several times is computed once.

    With dropout each example is a row of its own, since each is given other hidden units.
    """

    at: (
        np.ndarray
    )  # (B,) where the target of the first example with each context stands in the stream
    counts: np.ndarray  # (B,) examples with each context
    rows: np.ndarray  # (B,) the context of each example
    targets: np.ndarray  # (B,) of each example
    numbers: np.ndarray  # (B,) the contexts' numbers in the corpus
    row_of: np.ndarray  # (M,) the row of each different context of the corpus, -1 between two uses; empty with dropout


class Tables(NamedTuple):
    """The first layer by symbol: one row for each different symbol at each position of up to B contexts.

    There are R <= T * min(V, B) rows: those of position t are bases[t] ... bases[t + 1] - 1.
    """

    rows: np.ndarray  # (B, T) the row of each context's symbol at each position
    bases: np.ndarray  # (T + 1,)
    symbols: np.ndarray  # (R,)
    row_of: np.ndarray  # (V,) -1 between two uses
    Cr: np.ndarray  # (R, E) the embeddings of the rows' symbols
    P: (
        np.ndarray
    )  # (R, H+) Cr @ W1[t*E : (t+1)*E], the rows' shares of the hidden units; then their gradient
    Q: np.ndarray  # (R, V+) the same for the direct connections


class Step(NamedTuple):
    """What the contexts of one step need beside the tables."""

    h: np.ndarray  # (B, H+)
    slope: np.ndarray  # (B, H+) dh / d(input of tanh) where dropout is on, else no rows
    logits: np.ndarray  # (B, V+); then their gradient
    dh: np.ndarray  # (B, H+)
    dCr: np.ndarray  # (R+, E+)
    W2T: np.ndarray  # (V+, H+)


def padded(n: int) -> int:
    """n rounded up to a multiple of LANES."""
    return -(-n // LANES) * LANES


def zeros(*shape: int) -> np.ndarray:
    """A float32 array that begins at a multiple of 64 bytes, so that no register straddles two cache lines."""
    n = math.prod(shape)
    memory = np.zeros(n + LANES, np.float32)
    first = -memory.ctypes.data // 4 % LANES
    return memory[first : first + n].reshape(shape)


def sizes_of(config: Config, vocab_size: int) -> Sizes:
    return Sizes(config.block_size, config.n_embd, config.n_hidden, vocab_size)


def make_weights(sizes: Sizes, direct: bool) -> Weights:
    T, E, H, V = sizes
    shapes = [(V, E), (T * E, padded(H)), (padded(H),), (padded(H), padded(V)), (padded(V),)]
    shapes.append((T * E if direct else 0, padded(V)))
    lengths = [math.prod(shape) for shape in shapes]
    starts = np.cumsum([0, *map(padded, lengths)])
    flat = zeros(int(starts[-1]))
    parts = [
        flat[start : start + n].reshape(s)
        for start, n, s in zip(starts, lengths, shapes, strict=False)
    ]
    return Weights(flat, *parts)


def make_batch(batch_size: int, n_contexts: int) -> Batch:
    at, counts, rows, targets, numbers = np.zeros((5, batch_size), np.intp)
    return Batch(at, counts, rows, targets, numbers, np.full(n_contexts, -1, np.int32))


def make_tables(sizes: Sizes, n_contexts: int, direct: bool) -> Tables:
    T, E, H, V = sizes
    R = T * min(V, n_contexts)
    rows, bases, symbols = (
        np.zeros((n_contexts, T), np.intp),
        np.zeros(T + 1, np.intp),
        np.zeros(R, np.intp),
    )
    row_of = np.full(V, -1, np.intp)
    Q = zeros(R if direct else 0, padded(V))
    return Tables(rows, bases, symbols, row_of, zeros(R, E), zeros(R, padded(H)), Q)


def make_step(sizes: Sizes, batch_size: int, dropout: bool) -> Step:
    T, E, H, V = sizes
    B, R, E, H, V = batch_size, T * min(V, batch_size), padded(E), padded(H), padded(V)
    return Step(
        h=zeros(B, H),
        slope=zeros(B if dropout else 0, H),
        logits=zeros(B, V),
        dh=zeros(B, H),
        dCr=zeros(R + LANES, E),
        W2T=zeros(V, H),
    )


def read_model(weights: Weights, model: MLP) -> None:
    """Copy a model's parameters into padded weights."""
    for name, parameter in model.named_parameters():
        _inside(weights, name, parameter)[:] = parameter.detach().numpy()


@torch.no_grad()
def write_model(weights: Weights, model: MLP) -> None:
    """Copy padded weights, or gradients, into a model's parameters."""
    for name, parameter in model.named_parameters():
        parameter.copy_(torch.from_numpy(_inside(weights, name, parameter)))


def _inside(weights: Weights, name: str, parameter: torch.Tensor) -> np.ndarray:
    return getattr(weights, name)[tuple(slice(0, n) for n in parameter.shape)]
