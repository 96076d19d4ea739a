"""Base of the CPU engine and the autograd engine: each model is trained in its own thread."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any, ClassVar

import numpy as np

from makemore.config import Config
from makemore.engines.base import (
    RETURN_AFTER,
    Diverged,
    EvalPoint,
    Outcome,
    OutOfMemory,
    TrainResult,
    check_finite,
    next_stop,
)
from makemore.schedule import lr_at


class ThreadSlot(ABC):
    """A model with its optimizer's state, step count and history.

    Args:
        config: the model and its training.

    Attributes:
        steps_per_call: most steps of one call of `run`, between two looks at the loss.
        stop: (1,) uint8. The engine's thread sets it; the slot's thread reads it before every step.
        history: the evaluations so far.
        steps_done: optimizer steps done.
        seconds: time spent in training and evaluation.
        done: whether the model is at max_steps, diverged or failed.
    """

    steps_per_call: ClassVar[int]

    def __init__(self, config: Config) -> None:
        self.config = config
        self.stop = np.zeros(1, np.uint8)
        self.history: list[EvalPoint] = []
        self.steps_done = 0
        self.seconds = 0.0
        self.done = False

    @abstractmethod
    def run(self, n_steps: int) -> float:
        """Train n steps, fewer if stopped or diverged; return the sum of their losses in nats."""

    @abstractmethod
    def evaluate(self) -> float:
        """Return the exact mean loss over the dev split; nan if `stop` was set meanwhile."""

    @abstractmethod
    def keep(self) -> None:
        """Keep the evaluated weights: they are the best so far."""

    @abstractmethod
    def result(self) -> TrainResult:
        """Return the model with its best weights, and its history."""

    def train(self) -> Outcome | None:
        """Train to the next evaluation and evaluate; return None if `stop` was set meanwhile.

        Called in the slot's thread.
        """
        started = time.perf_counter()
        try:
            return self._train_to(next_stop(self.config, self.steps_done))
        except Diverged as diverged:
            return diverged
        finally:
            self.seconds += time.perf_counter() - started

    def _train_to(self, end: int) -> EvalPoint | None:
        """Train to step `end` and evaluate.

        Raises:
            Diverged: a loss is inf or nan, or the dev loss is too high.
        """
        start = self.steps_done
        losses = 0.0
        while self.steps_done < end and not self.stop[0]:
            losses += self.run(min(self.steps_per_call, end - self.steps_done))
            if not np.isfinite(losses):
                raise Diverged(self.steps_done, losses)

        dev_loss = self.evaluate()
        if self.stop[0]:
            return None
        minibatch_loss = losses / (end - start)
        check_finite(end, minibatch_loss, dev_loss)
        lr = float(lr_at(self.config, np.array([end - 1]))[0])
        return EvalPoint(end, minibatch_loss, dev_loss, lr)

    def record(self, outcome: Outcome) -> None:
        """Add an outcome to the history, and keep the weights if they are the best so far."""
        if not isinstance(outcome, EvalPoint):
            self.done = True
            return
        if all(outcome.dev_loss < point.dev_loss for point in self.history):
            self.keep()
        self.history.append(outcome)
        self.done = outcome.step == self.config.max_steps


class ThreadEngine(ABC):
    """Trains up to `capacity` models at once, each in its own thread.

    Args:
        capacity: number of models to train at once.
        begin_thread: called at the start of each thread.
    """

    def __init__(self, capacity: int, begin_thread: Callable[[], Any] | None = None) -> None:
        self._capacity = capacity
        self._slots: dict[int, ThreadSlot] = {}
        self._running: dict[int, Future[Outcome | None]] = {}
        self._threads: ThreadPoolExecutor | None = ThreadPoolExecutor(
            capacity, thread_name_prefix="slot", initializer=begin_thread
        )

    @abstractmethod
    def _make_slot(self, number: int, config: Config) -> ThreadSlot:
        """Return a new model for the slot of this number.

        Raises:
            ModelTooLarge: this machine has too little memory for the model.
        """

    @property
    def capacity(self) -> int:
        """Number of models that can be trained at once."""
        return self._capacity

    def admit(self, config: Config) -> int:
        """Put a new model into a free slot and return the number of the slot.

        Raises:
            ModelTooLarge: this machine has too little memory for the model.
            RuntimeError: no slot is free, or the engine is closed.
        """
        self._check_open()
        free = next((number for number in range(self._capacity) if number not in self._slots), None)
        if free is None:
            raise RuntimeError(f"all {self._capacity} slots are taken; remove a model first.")
        self._slots[free] = self._make_slot(free, config)
        return free

    def advance(self) -> list[tuple[int, Outcome]]:
        """Train until a model reaches its next evaluation, or RETURN_AFTER, as `Engine.advance`.

        Raises:
            Exception: a bug in a slot's thread. The model of that slot does not train further. The
                next call returns the outcomes of the other models.
        """
        threads = self._check_open()
        for number, slot in self._slots.items():
            if not slot.done and number not in self._running:
                self._running[number] = threads.submit(self._train, slot)
        if self._running:
            wait(self._running.values(), RETURN_AFTER, FIRST_COMPLETED)

        finished = sorted(number for number, future in self._running.items() if future.done())
        for number in finished:
            bug = self._running[number].exception()
            if bug is not None:
                del self._running[number]
                self._slots[number].done = True
                raise bug
        return [(number, self._collect(number)) for number in finished]

    def _collect(self, number: int) -> Outcome:
        """Return a slot's outcome and add it to the history of its model."""
        outcome = self._running.pop(number).result()
        assert outcome is not None, "only `remove` and `close` stop a model before its evaluation"
        # Not recorded in the slot's thread: a removed model's history must equal the outcomes that
        # `advance` has returned.
        self._slots[number].record(outcome)
        return outcome

    def _train(self, slot: ThreadSlot) -> Outcome | None:
        """Train a slot to its next evaluation; called in the slot's thread."""
        try:
            return slot.train()
        except MemoryError as error:
            reason = f"out of memory ({error})" if str(error) else "out of memory"
            return OutOfMemory(
                f"{reason}; lower batch_size or n_hidden, or train fewer models at once."
            )

    def remove(self, slot: int) -> TrainResult:
        """Free a slot at any time and return the result of its model so far.

        Raises:
            KeyError: the slot is empty.
        """
        model = self._slots.pop(slot)
        model.stop[0] = 1
        if slot in self._running:
            wait([self._running.pop(slot)])
        return model.result()

    def discard(self, slot: int) -> None:
        """Free a slot at any time, without a result."""
        self.remove(slot)

    def close(self) -> None:
        """Stop training and free all memory; the engine cannot be used again."""
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
