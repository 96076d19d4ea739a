"""The CPU engine: one model per thread, one kernel call between two evaluations."""

from __future__ import annotations

from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

import numpy as np

from makemore.config import Config
from makemore.data import Corpus
from makemore.engines.base import RETURN_AFTER, Outcome, OutOfMemory, TrainResult
from makemore.engines.cpu.compile import check_compiler
from makemore.engines.cpu.evaluation import evaluate
from makemore.engines.cpu.memory import make_soft_targets
from makemore.engines.cpu.slot import Slot, number_contexts

__all__ = ["CpuEngine", "Slot", "evaluate"]


class CpuEngine:
    """Trains up to `capacity` models at once, each in its own thread.

    The threads run in parallel because the kernel releases the GIL. It does not call BLAS, so no
    threads of another library compete with them.

    Args:
        corpus: the train and dev splits.
        capacity: number of models to train at once; one per core is best.

    Raises:
        UserError: the environment turns numba's compiler off.
    """

    def __init__(self, corpus: Corpus, capacity: int) -> None:
        check_compiler()
        self._corpus = corpus
        self._capacity = capacity
        # `number_contexts` of the train split, by block size.
        self._context_numbers: dict[int, np.ndarray] = {}
        self._soft = make_soft_targets(corpus.teacher, len(corpus.vocab))
        self._slots: dict[int, Slot] = {}
        self._running: dict[int, Future[Outcome | None]] = {}
        self._threads: ThreadPoolExecutor | None = ThreadPoolExecutor(
            capacity, thread_name_prefix="slot"
        )

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

        block_size = config.block_size
        if block_size not in self._context_numbers:
            self._context_numbers[block_size] = number_contexts(self._corpus.train, block_size)
        numbers = self._context_numbers[block_size]
        self._slots[free] = Slot(config, self._corpus, numbers, self._soft)
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

    def _train(self, slot: Slot) -> Outcome | None:
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
