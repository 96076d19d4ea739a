"""The CPU engine: one model a thread, one kernel call from one evaluation to the next."""

from __future__ import annotations

from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

import numpy as np

from makemore.config import Config
from makemore.data import Corpus
from makemore.engines.base import EngineFailed, Outcome, TrainResult
from makemore.engines.cpu.evaluation import evaluate
from makemore.engines.cpu.slot import Slot, number_contexts

__all__ = ["CpuEngine", "Slot", "evaluate"]


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
        self._threads: ThreadPoolExecutor | None = ThreadPoolExecutor(
            capacity, thread_name_prefix="slot"
        )

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
            self._numbers[config.block_size] = number_contexts(
                self._corpus.train, config.block_size
            )
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
            what = f"out of memory ({error})" if str(error) else "out of memory"
            return EngineFailed(
                f"{what}; lower batch_size or n_hidden, or train fewer models at once."
            )

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
