"""The exact mean loss of a model over a split."""

from __future__ import annotations

import numpy as np

from makemore.data import Examples
from makemore.engines.cpu import kernel
from makemore.engines.cpu.memory import (
    Sizes,
    Weights,
    make_tables,
    make_weights,
    make_work,
    read_model,
    sizes_of,
)
from makemore.model import MLP

EVAL_CHUNK = 2048  # contexts that share one set of tables
EVAL_BLOCK = 64  # contexts per product; their hidden units then stay in the cache


class Evaluator:
    """Computes the exact mean loss over examples, with memory that is allocated once.

    Args:
        sizes: the sizes of the models to evaluate.
        direct: whether the models have direct connections.
        examples: the split.
    """

    def __init__(self, sizes: Sizes, direct: bool, examples: Examples) -> None:
        distinct = examples.distinct(sizes.T)
        # In the order in which the kernel takes them.
        self._examples = (
            examples.stream_uint16,
            distinct.positions.astype(np.intp),
            distinct.offsets,
            distinct.targets.astype(np.uint16),
            distinct.counts,
        )
        chunk = min(EVAL_CHUNK, len(distinct.positions))
        self._sizes = sizes
        self._tables = make_tables(sizes, chunk, direct)
        work = make_work(sizes, min(EVAL_BLOCK, chunk), dropout=False)
        self._h = work.h
        self._logits = work.logits

    def __call__(self, weights: Weights, stop: np.ndarray) -> float:
        """Return the mean loss in nats per character; nan if `stop[0]` is set meanwhile."""
        loss = kernel.mean(
            stop, *self._examples, self._sizes, weights, self._tables, self._h, self._logits
        )
        return float(loss)


def evaluate(model: MLP, examples: Examples) -> float:
    """Return the exact mean cross-entropy of a model over all examples, in nats per character.

    Each distinct context is computed once. Sums are float64 in a fixed order, so the result is the
    same bit for bit every time. Can be called from any thread.
    """
    sizes = sizes_of(model.config, model.vocab_size)
    weights = make_weights(sizes, model.config.direct)
    read_model(weights, model)
    return Evaluator(sizes, model.config.direct, examples)(weights, np.zeros(1, np.uint8))
