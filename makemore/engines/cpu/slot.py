"""One model of the CPU engine: its memory, its clock, and its stretches from one evaluation to the next."""

from __future__ import annotations

import os
import time

import numpy as np

from makemore.config import Config
from makemore.data import Corpus, Examples
from makemore.draws import dropout_threshold, step_keys, stream_key
from makemore.engines.base import Diverged, EvalPoint, Outcome, TrainResult, check_finite, next_stop
from makemore.engines.cpu import kernel
from makemore.engines.cpu.evaluation import Evaluator, wide
from makemore.engines.cpu.memory import (
    Sizes,
    make_batch,
    make_step,
    make_tables,
    make_weights,
    read_model,
    sizes_of,
    write_model,
    zeros,
)
from makemore.errors import UserError
from makemore.model import MLP, n_params
from makemore.schedule import averaging_at, lr_at

PIECE = 1 << 16  # steps of one kernel call; their learning rates and keys are made before it


def check_memory(config: Config, sizes: Sizes) -> None:
    """Refuse what this machine cannot hold: memory is given out when it is first used, and then there is no error.

    Raises:
        UserError: training the model takes more memory than the machine has; one sentence.
    """
    if not hasattr(os, "sysconf"):  # Windows gives out no more than there is
        return
    T, E, H, V = sizes
    tables = T * min(V, config.batch_size) * (E + H + V)
    n_bytes = 4 * (
        (5 + (config.ema > 0)) * n_params(config, V) + 4 * config.batch_size * (H + V) + tables
    )
    if n_bytes > os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"):
        raise UserError(
            f"training with n_hidden {H:,} and batch_size {config.batch_size:,} takes {n_bytes / 2**30:,.0f} GiB, "
            "more than this machine's memory; lower n_hidden, batch_size, n_embd or block_size."
        )


def number_contexts(examples: Examples, block_size: int) -> np.ndarray:
    """Number the different contexts of a split: (N,) int32, the number of each example's context; 30 ms for names."""
    base = int(examples.stream.max(initial=0)) + 1
    numbers = np.zeros(len(examples), np.int64)
    for t in range(1, block_size + 1):
        if numbers.max(initial=0) >= 2**62 // base:
            numbers = np.unique(numbers, return_inverse=True)[1]
        numbers = numbers * base + examples.stream[examples.positions - t]
    return np.unique(numbers, return_inverse=True)[1].astype(np.int32)


class Slot:
    """A model, its optimizer's state, and where it stands. Its memory is allocated here, none while it trains.

    Args:
        numbers: `number_contexts` of the train split, where the caller has them.
    """

    def __init__(self, config: Config, corpus: Corpus, numbers: np.ndarray | None = None) -> None:
        self.config = config
        self.model = MLP(config, len(corpus.vocab))
        self._sizes = sizes_of(config, len(corpus.vocab))
        check_memory(config, self._sizes)
        self.weights, self.gradient = (make_weights(self._sizes, config.direct) for _ in range(2))
        read_model(self.weights, self.model)
        # What is evaluated and kept: the average of the weights, or else the weights themselves.
        self.shown = make_weights(self._sizes, config.direct) if config.ema > 0 else self.weights
        self._average = self.shown.flat if config.ema > 0 else zeros(0)
        n_moments = self.weights.flat.size if config.optimizer == "adamw" else 0
        self._m, self._v = zeros(n_moments), zeros(n_moments)
        numbers = number_contexts(corpus.train, config.block_size) if numbers is None else numbers
        self._examples = wide(corpus.train.stream), corpus.train.positions, numbers
        self._batch = make_batch(
            config.batch_size, 0 if config.dropout > 0 else int(numbers.max()) + 1
        )
        self._tables = make_tables(self._sizes, config.batch_size, config.direct)
        self._step = make_step(self._sizes, config.batch_size, config.dropout > 0)
        self._evaluator = Evaluator(self._sizes, config.direct, corpus.dev)
        self._best = self.weights.flat.copy()
        self.stop = np.ones(
            1, np.uint8
        )  # set by the engine's thread, read by the kernel before every step
        self.history: list[EvalPoint] = []
        self.steps_done, self.seconds, self.over = 0, 0.0, False
        self.run(
            0
        )  # these two compile the kernel here and not in a thread, so that Ctrl-C is heard
        self.evaluate()
        self.stop[0] = 0

    def train(self) -> Outcome | None:
        """Train to the next evaluation, and evaluate; None when stopped on the way. Runs in the slot's thread."""
        started = time.perf_counter()
        try:
            return self._stretch(next_stop(self.config, self.steps_done))
        except Diverged as diverged:
            return diverged
        finally:
            self.seconds += time.perf_counter() - started

    def _stretch(self, end: int) -> EvalPoint | None:
        start, losses = self.steps_done, 0.0
        while self.steps_done < end and not self.stop[0]:
            losses += self.run(min(PIECE, end - self.steps_done))
            if not np.isfinite(losses):
                raise Diverged(self.steps_done, losses)
        dev_loss = self.evaluate()
        if self.stop[0]:
            return None
        train_loss = losses / (end - start)
        check_finite(end, train_loss, dev_loss)
        return EvalPoint(
            end, train_loss, dev_loss, float(lr_at(self.config, np.array([end - 1]))[0])
        )

    def run(self, n_steps: int) -> float:
        """Train n steps, fewer when stopped or diverged; return the sum of their losses."""
        c = self.config
        steps = np.arange(self.steps_done, self.steps_done + n_steps)
        plan = kernel.Plan(
            self.steps_done,
            lr_at(c, steps),
            step_keys(stream_key(c.seed, "batch"), steps),
            step_keys(stream_key(c.seed, "dropout"), steps),
            np.uint32(dropout_threshold(c.dropout)),
            np.float32(1 / (1 - c.dropout)),
            np.float32(c.weight_decay),
            averaging_at(c, steps),
        )
        done, losses = kernel.train(
            self.stop, *self._examples, self._sizes, plan,
            self.weights, self.gradient, self._m, self._v, self._average, self._batch, self._tables, self._step,
        )  # fmt: skip
        self.steps_done += done
        return losses

    def evaluate(self) -> float:
        """The exact mean loss over the dev split; nan when stopped on the way."""
        return self._evaluator(self.shown, self.stop)

    def record(self, outcome: Outcome) -> None:
        """Take an outcome into the history, and keep the weights if they are the best so far."""
        if not isinstance(outcome, EvalPoint):
            self.over = True
            return
        if all(outcome.dev_loss < point.dev_loss for point in self.history):
            self._best[:] = self.shown.flat
        self.history.append(outcome)
        self.over = outcome.step == self.config.max_steps

    def result(self) -> TrainResult:
        self.weights.flat[:] = self._best
        write_model(self.weights, self.model)
        return TrainResult(self.model, tuple(self.history), self.model.flat.numel(), self.seconds)
