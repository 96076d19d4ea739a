"""The CPU engine: one model a thread, one kernel call from one evaluation to the next."""

from __future__ import annotations

import os
import time
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

import numpy as np

from makemore.config import Config
from makemore.data import Corpus, Examples
from makemore.draws import dropout_threshold, step_keys, stream_key
from makemore.engines import kernel
from makemore.engines.base import Diverged, EngineFailed, EvalPoint, Outcome, TrainResult, check_finite, next_stop
from makemore.engines.evaluation import Evaluator, evaluate, wide
from makemore.engines.kernel_memory import (
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
from makemore.model import MLP, n_params
from makemore.schedule import lr_at

__all__ = ["CpuEngine", "evaluate"]

PIECE = 1 << 16  # steps of one kernel call; their learning rates and keys are made before it


def check_memory(config: Config, sizes: Sizes) -> None:
    """Refuse what this machine cannot hold: memory is given out when it is first used, and then there is no error.

    Raises:
        ValueError: training the model takes more memory than the machine has; one sentence.
    """
    if not hasattr(os, "sysconf"):  # Windows gives out no more than there is
        return
    T, E, H, V = sizes
    tables = T * min(V, config.batch_size) * (E + H + V)
    n_bytes = 4 * (5 * n_params(config, V) + 4 * config.batch_size * (H + V) + tables)
    if n_bytes > os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"):
        raise ValueError(
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
        n_moments = self.weights.flat.size if config.optimizer == "adamw" else 0
        self._m, self._v = zeros(n_moments), zeros(n_moments)
        numbers = number_contexts(corpus.train, config.block_size) if numbers is None else numbers
        self._examples = wide(corpus.train.stream), corpus.train.positions, numbers
        self._batch = make_batch(config.batch_size, 0 if config.dropout > 0 else int(numbers.max()) + 1)
        self._tables = make_tables(self._sizes, config.batch_size, config.direct)
        self._step = make_step(self._sizes, config.batch_size, config.dropout > 0)
        self._evaluator = Evaluator(self._sizes, config.direct, corpus.dev)
        self._best = self.weights.flat.copy()
        self.stop = np.ones(1, np.uint8)  # set by the engine's thread, read by the kernel before every step
        self.history: list[EvalPoint] = []
        self.steps_done, self.seconds, self.over = 0, 0.0, False
        self.run(0)  # these two compile the kernel here and not in a thread, so that Ctrl-C is heard
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
        return EvalPoint(end, train_loss, dev_loss, float(lr_at(self.config, np.array([end - 1]))[0]))

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
        )
        done, losses = kernel.train(
            self.stop, *self._examples, self._sizes, plan,
            self.weights, self.gradient, self._m, self._v, self._batch, self._tables, self._step,
        )  # fmt: skip
        self.steps_done += done
        return losses

    def evaluate(self) -> float:
        """The exact mean loss over the dev split; nan when stopped on the way."""
        return self._evaluator(self.weights, self.stop)

    def record(self, outcome: Outcome) -> None:
        """Take an outcome into the history, and keep the weights if they are the best so far."""
        if not isinstance(outcome, EvalPoint):
            self.over = True
            return
        if all(outcome.dev_loss < point.dev_loss for point in self.history):
            self._best[:] = self.weights.flat
        self.history.append(outcome)
        self.over = outcome.step == self.config.max_steps

    def result(self) -> TrainResult:
        self.weights.flat[:] = self._best
        write_model(self.weights, self.model)
        return TrainResult(self.model, tuple(self.history), self.model.flat.numel(), self.seconds)


class CpuEngine:
    """Trains `capacity` models at once, each in its own thread; the kernel holds no GIL.

    The kernel uses no BLAS, so no other library's threads get in its way.

    Args:
        capacity: models at once; one a core is best.
    """

    def __init__(self, corpus: Corpus, capacity: int) -> None:
        self._corpus, self._capacity = corpus, capacity
        self._numbers: dict[int, np.ndarray] = {}  # of the train split's contexts, by block size
        self._slots: dict[int, Slot] = {}
        self._running: dict[int, Future[Outcome | None]] = {}
        self._threads: ThreadPoolExecutor | None = ThreadPoolExecutor(capacity, thread_name_prefix="slot")

    @property
    def capacity(self) -> int:
        """How many models can be trained at once."""
        return self._capacity

    def admit(self, config: Config) -> int:
        """Put a fresh model into a free slot and return the slot.

        Raises:
            ValueError: training the model takes more memory than this machine has.
            RuntimeError: no slot is free, or the engine is closed.
        """
        self._check_open()
        free = next((number for number in range(self._capacity) if number not in self._slots), None)
        if free is None:
            raise RuntimeError(f"all {self._capacity} slots are taken; remove a model first.")
        if config.block_size not in self._numbers:
            self._numbers[config.block_size] = number_contexts(self._corpus.train, config.block_size)
        self._slots[free] = Slot(config, self._corpus, self._numbers[config.block_size])
        return free

    def advance(self) -> list[tuple[int, Outcome]]:
        """Train until at least one model is at its next evaluation; return (slot, outcome) of those that are.

        Raises:
            Exception: a bug in a slot's thread. That model does not train on; the outcomes of others come with the
                next call.
        """
        threads = self._check_open()
        for number, slot in self._slots.items():
            if not slot.over and number not in self._running:
                self._running[number] = threads.submit(self._train, slot)
        if self._running:
            wait(self._running.values(), return_when=FIRST_COMPLETED)
        done = sorted(number for number, future in self._running.items() if future.done())
        for number in done:
            bug = self._running[number].exception()
            if bug is not None:  # what others have finished stays for the next call
                del self._running[number]
                self._slots[number].over = True
                raise bug
        return [(number, self._report(number)) for number in done]

    def _report(self, number: int) -> Outcome:
        outcome = self._running.pop(number).result()
        assert outcome is not None, "only a removed model is stopped on its way"
        # Here and not in the slot's thread: a model removed before it was reported is what was reported of it.
        self._slots[number].record(outcome)
        return outcome

    def _train(self, slot: Slot) -> Outcome | None:
        """Runs in a slot's thread."""
        try:
            return slot.train()
        except MemoryError as error:
            return EngineFailed(f"out of memory: {error}; lower batch_size or n_hidden, or train fewer models at once.")

    def remove(self, slot: int) -> TrainResult:
        """Free a slot, whatever the state of its model, and return what it holds so far.

        Raises:
            KeyError: nothing is in the slot.
        """
        model = self._slots.pop(slot)
        model.stop[0] = 1
        if slot in self._running:
            wait([self._running.pop(slot)])
        return model.result()

    def close(self) -> None:
        """Stop what is running and free everything; the engine cannot be used again."""
        for slot in self._slots.values():
            slot.stop[0] = 1
        if self._threads is not None:
            self._threads.shutdown(cancel_futures=True)
        self._threads = None
        self._slots.clear()
        self._running.clear()

    def _check_open(self) -> ThreadPoolExecutor:
        if self._threads is None:
            raise RuntimeError("the engine is closed; make a new one.")
        return self._threads
