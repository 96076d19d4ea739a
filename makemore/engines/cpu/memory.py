"""Memory of the CPU kernel: every array that a model needs, allocated once.

The kernel reads and writes rows in whole registers. Such rows are padded to a multiple of LANES
numbers; a + marks the padded size (H+ is H rounded up). The padding of parameters is zero and has
zero gradients, so it stays zero.

Sizes: B examples, T context positions, E embedding features, H hidden units, V symbols.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch

from makemore.config import Config
from makemore.engines.cpu.lanes import LANES
from makemore.model import MLP
from makemore.teacher import Teacher

Array = np.ndarray


class Sizes(NamedTuple):
    """Context length, embedding features, hidden units, symbols."""

    T: int
    E: int
    H: int
    V: int


class Weights(NamedTuple):
    """The parameters of a model, or their gradients: float32 views of one vector."""

    flat: Array
    C: Array  # (V, E)
    W1: Array  # (T*E, H+)
    b1: Array  # (H+,)
    W2: Array  # (H+, V+)
    b2: Array  # (V+,)
    Wd: Array  # (T*E, V+), or no rows without direct connections


class Batch(NamedTuple):
    """The B examples of a step, grouped by context: equal contexts are computed once, in one row.

    With dropout each example has its own row, because equal contexts have different hidden units.
    """

    # Per row, for the n <= B rows in use:
    positions: Array  # (B,) where the context ends in the stream
    counts: Array  # (B,) number of examples with this context
    numbers: Array  # (B,) number of the context in the corpus
    # Per example:
    rows: Array  # (B,) row of the example's context
    targets: Array  # (B,) symbol to predict
    examples: Array  # (B,) number of the example in the train split; empty without a teacher
    # Per distinct context of the corpus: its row during `draw_batch`, -1 otherwise; empty with
    # dropout.
    row_of_context: Array


class SoftTargets(NamedTuple):
    """The soft targets of a teacher, as the kernel reads them."""

    true_weight: np.float32  # weight of the true targets; 1 without a teacher
    table: Array  # (M, V+) the teacher's probabilities times their weight
    rows: Array  # (N,) int32, the table row of each train example; empty without a teacher


class Tables(NamedTuple):
    """The first layer by symbol: a row for each distinct symbol at each position of the contexts.

    For B contexts there are R <= T * min(V, B) rows. Position t has the rows from starts[t] to
    starts[t + 1] - 1.
    """

    rows: Array  # (B, T) the row of each context's symbol at each position
    starts: Array  # (T + 1,)
    symbols: Array  # (R,) the symbol of each row
    row_of_symbol: Array  # (V,) scratch of `gather_symbols`, -1 otherwise
    embeddings: Array  # (R, E) of the rows' symbols
    P: Array  # (R, H+) embeddings @ W1[t*E : (t+1)*E], then its gradient
    Q: Array  # (R, V+) the same for the direct connections, with Wd


class Work(NamedTuple):
    """Work arrays of one step, apart from the tables: one row for each context."""

    h: Array  # (B, H+) hidden units
    slope: Array  # (B, H+) dh / d(input of tanh) with dropout, else no rows
    logits: Array  # (B, V+), then their gradient
    dh: Array  # (B, H+) the gradient of h
    dembeddings: Array  # (R+, E+) the gradient of `Tables.embeddings`
    W2T: Array  # (V+, H+) W2 transposed


def padded(n: int) -> int:
    """Return n rounded up to a multiple of LANES."""
    return -(-n // LANES) * LANES


def zeros(*shape: int) -> Array:
    """Return a float32 array of zeros that starts at a multiple of 64 bytes.

    No register then crosses the border between two cache lines.
    """
    n = math.prod(shape)
    memory = np.zeros(n + LANES, np.float32)
    first = -memory.ctypes.data // 4 % LANES
    return memory[first : first + n].reshape(shape)


def sizes_of(config: Config, vocab_size: int) -> Sizes:
    """Return the sizes of a config's model."""
    return Sizes(config.block_size, config.n_embd, config.n_hidden, vocab_size)


def make_weights(sizes: Sizes, direct: bool) -> Weights:
    """Allocate parameters, all zero."""
    T, E, H, V = sizes
    shapes = [(V, E), (T * E, padded(H)), (padded(H),), (padded(H), padded(V)), (padded(V),)]
    shapes.append((T * E if direct else 0, padded(V)))
    lengths = [math.prod(shape) for shape in shapes]
    starts = np.cumsum([0, *map(padded, lengths)])
    flat = zeros(int(starts[-1]))
    parts = [
        flat[start : start + n].reshape(shape)
        for start, n, shape in zip(starts, lengths, shapes, strict=False)
    ]
    return Weights(flat, *parts)


def make_batch(batch_size: int, n_contexts: int, taught: bool = False) -> Batch:
    """Allocate a batch.

    Args:
        n_contexts: number of distinct contexts of the corpus, or 0 to merge none.
        taught: whether the corpus has a teacher.
    """
    positions, counts, numbers, rows, targets = np.zeros((5, batch_size), np.intp)
    examples = np.zeros(batch_size if taught else 0, np.intp)
    row_of_context = np.full(n_contexts, -1, np.int32)
    return Batch(positions, counts, numbers, rows, targets, examples, row_of_context)


def make_soft_targets(teacher: Teacher | None, vocab_size: int) -> SoftTargets:
    """Copy the soft targets of a teacher; without one, they are empty."""
    if teacher is None:
        return SoftTargets(np.float32(1), zeros(0, padded(vocab_size)), np.zeros(0, np.int32))
    table = zeros(len(teacher.table), padded(vocab_size))
    table[:, :vocab_size] = np.float32(teacher.weight) * teacher.table
    return SoftTargets(np.float32(1 - teacher.weight), table, np.array(teacher.rows, np.int32))


def make_tables(sizes: Sizes, n_contexts: int, direct: bool) -> Tables:
    """Allocate tables for up to `n_contexts` contexts at once."""
    T, E, H, V = sizes
    R = T * min(V, n_contexts)
    return Tables(
        rows=np.zeros((n_contexts, T), np.intp),
        starts=np.zeros(T + 1, np.intp),
        symbols=np.zeros(R, np.intp),
        row_of_symbol=np.full(V, -1, np.intp),
        embeddings=zeros(R, E),
        P=zeros(R, padded(H)),
        Q=zeros(R if direct else 0, padded(V)),
    )


def make_work(sizes: Sizes, batch_size: int, dropout: bool) -> Work:
    """Allocate the work arrays for up to `batch_size` contexts at once."""
    T, E, H, V = sizes
    R = T * min(V, batch_size)
    return Work(
        h=zeros(batch_size, padded(H)),
        slope=zeros(batch_size if dropout else 0, padded(H)),
        logits=zeros(batch_size, padded(V)),
        dh=zeros(batch_size, padded(H)),
        # `matmul_transposed` writes whole tiles, so it may write past the last row.
        dembeddings=zeros(R + LANES, padded(E)),
        W2T=zeros(padded(V), padded(H)),
    )


def read_model(weights: Weights, model: MLP) -> None:
    """Copy a model's parameters into padded weights."""
    for name, parameter in model.named_parameters():
        _unpadded(weights, name, parameter)[:] = parameter.detach().numpy()


@torch.no_grad()
def write_model(weights: Weights, model: MLP) -> None:
    """Copy padded weights, or gradients, into a model's parameters."""
    for name, parameter in model.named_parameters():
        parameter.copy_(torch.from_numpy(_unpadded(weights, name, parameter)))


def _unpadded(weights: Weights, name: str, parameter: torch.Tensor) -> Array:
    """Return the view of a padded parameter that has the shape of the model's parameter."""
    return getattr(weights, name)[tuple(slice(0, n) for n in parameter.shape)]
