"""The exact mean loss of a model over a split."""

from __future__ import annotations

import numpy as np

from makemore.data import Examples
from makemore.engines.cpu import kernel
from makemore.engines.cpu.memory import (
    Sizes,
    Weights,
    make_step,
    make_tables,
    make_weights,
    read_model,
    sizes_of,
)
from makemore.model import MLP

EVAL_CHUNK = 2048  # contexts that share one set of tables
EVAL_BLOCK = 64  # contexts whose hidden units are computed at once: they stay in the cache


def wide(symbols: np.ndarray) -> np.ndarray:
    """Symbols as uint16: the kernel is compiled for one type."""
    return symbols.astype(np.uint16)


class Evaluator:
    """The exact mean loss over examples, with memory that is allocated once."""

    def __init__(self, sizes: Sizes, direct: bool, examples: Examples) -> None:
        distinct = examples.distinct(sizes.T)
        at, targets = distinct.positions.astype(np.intp), wide(distinct.targets)
        self._examples = wide(examples.stream), at, distinct.offsets, targets, distinct.counts
        chunk = min(EVAL_CHUNK, len(distinct.positions))
        self._sizes, self._tables = sizes, make_tables(sizes, chunk, direct)
        step = make_step(sizes, min(EVAL_BLOCK, chunk), dropout=False)
        self._h, self._logits = step.h, step.logits

    def __call__(self, weights: Weights, stop: np.ndarray) -> float:
        """In nats per character; nan when `stop[0]` is set on the way."""
        return float(
            kernel.mean(
                stop, *self._examples, self._sizes, weights, self._tables, self._h, self._logits
            )
        )


def evaluate(model: MLP, examples: Examples) -> float:
    """Exact mean cross-entropy of a model over all examples, in nats per character.

    Each different context is computed once; sums are float64 in a fixed order. May be called from any thread.
    """
    sizes = sizes_of(model.config, model.vocab_size)
    weights = make_weights(sizes, model.config.direct)
    read_model(weights, model)
    return Evaluator(sizes, model.config.direct, examples)(weights, np.zeros(1, np.uint8))
