"""The batched engine: many models of different shapes in one training step, for GPUs.

Not run on a GPU yet.
"""

from __future__ import annotations

import gc
import itertools
import logging
import time

import torch

from makemore.config import Config
from makemore.data import Corpus
from makemore.engines.base import RETURN_AFTER, Envelope, Outcome, OutOfMemory, TrainResult
from makemore.engines.batched.evaluation import DevSet, dev_losses
from makemore.engines.batched.layout import Layout, check_envelope
from makemore.engines.batched.plan import Parts, SoftTargets, TrainSet
from makemore.engines.batched.slot import Slot
from makemore.engines.batched.stack import Stack, State, is_out_of_memory, max_models
from makemore.engines.batched.step import CHUNK
from makemore.model import MLP, n_params

logger = logging.getLogger(__name__)
PIECE = 32 * CHUNK  # most steps between two looks at the clock


class BatchedEngine:
    """Trains up to `capacity` models in one step of stacked tensors, each with its own step count.

    Models smaller than the envelope are padded with zeros that stay zero. Weights, moments, data,
    draws and learning rates are on the device. On CUDA a chunk of steps is one captured graph, and
    the host waits for the device only at evaluations. Matrix products use full float32: TF32 is
    turned off for the process.

    Not run on a GPU yet: the tests run the CPU path. CUDA and MPS differ from it in tanh and in the
    memory layout of the gradients, and CUDA also in the graphs.

    When the device runs out of memory, the capacity is halved. Models without a row then wait on
    the host until a row is free. No model is lost, and no evaluation is returned twice.

    Args:
        corpus: the train and dev splits.
        capacity: number of models to train at once, at least 1. On CUDA it is reduced to the number
            that fits into free memory (`bytes_per_slot`).
        envelope: the largest model that will be admitted.
        device: the device to train on.
        dtype: that of the weights. float64 is for tests; MPS does not have it.

    Raises:
        ValueError: the capacity or a size of the envelope is below 1.
    """

    def __init__(
        self,
        corpus: Corpus,
        capacity: int,
        envelope: Envelope,
        *,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        if capacity < 1:
            raise ValueError(f"capacity must be at least 1, but got {capacity=}.")
        check_envelope(envelope)
        if device.type == "cuda":
            torch.set_float32_matmul_precision("highest")
        self._device = device
        self._dtype = dtype
        self._layout = Layout(envelope, len(corpus.vocab))
        soft = SoftTargets.of(corpus.teacher, device, dtype) if corpus.teacher else None
        self._train_set = TrainSet(corpus.train, device, soft)
        self._dev_set = DevSet(corpus.dev, len(corpus.vocab), device, dtype)
        self._capacity = min(
            capacity, max_models(self._layout, device, dtype, soft=soft is not None)
        )
        self._slots: dict[int, Slot] = {}
        self._stack: Stack | None = None  # allocated by the first `advance`
        self._interrupted = False  # whether an exception has stopped the rows between evaluations
        self._closed = False

    @property
    def capacity(self) -> int:
        """Number of models that can be trained at once; halved when the device is full."""
        return self._capacity

    def admit(self, config: Config) -> int:
        """Put a new model into a free slot and return the number of the slot.

        Raises:
            ValueError: the config is larger than the envelope; names the field and both values.
            RuntimeError: no slot is free, or the engine is closed.
        """
        self._check_open()
        self._layout.check_fits(config)
        if len(self._slots) >= self._capacity:
            raise RuntimeError(f"all {self._capacity} slots are taken; remove a model first.")
        number = next(number for number in itertools.count() if number not in self._slots)
        self._slots[number] = Slot(config)
        return number

    def advance(self) -> list[tuple[int, Outcome]]:
        """Train to the first evaluation of any model, or for RETURN_AFTER, as `Engine.advance`."""
        self._check_open()
        while True:
            try:
                return self._advance()
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
            # Not in the except block, where the traceback would keep the step's tensors alive.
            if not self._shrink():
                return self._fail_all()

    def remove(self, slot: int) -> TrainResult:
        """Free a slot at any time and return the result of its model so far.

        `TrainResult.seconds` is shared time: all models that trained together count it.

        Raises:
            KeyError: the slot is empty.
        """
        held = self._slots.pop(slot)
        if self._stack is not None and held.row is not None:
            self._evict(self._stack, held)
        model = MLP(held.config, self._layout.vocab_size)
        if held.best is not None:
            self._layout.unpack(held.best, model)
        size = n_params(held.config, model.vocab_size)
        return TrainResult(model, tuple(held.history), size, held.seconds)

    def discard(self, slot: int) -> None:
        """Free a slot at any time, without a result."""
        held = self._slots.pop(slot)
        if self._stack is not None and held.row is not None:
            self._stack.step.knobs.deactivate(held.row)

    def close(self) -> None:
        """Free all memory; an `advance` in another thread ends at its next chunk of steps."""
        self._closed = True
        self._slots = {}
        self._stack = None

    def _check_open(self) -> None:
        if self._closed:
            raise RuntimeError("the engine is closed; make a new one.")

    def _advance(self) -> list[tuple[int, Outcome]]:
        outcomes: list[tuple[int, Outcome]] = []
        until = time.monotonic() + RETURN_AFTER
        while not outcomes and time.monotonic() < until:
            stack = self._assign_rows()
            started = time.perf_counter()
            training = {
                number: slot
                for number, slot in self._slots.items()
                if slot.row is not None and not slot.done
            }
            if not training or not self._train(stack, list(training.values())):
                break
            due = {number: slot for number, slot in training.items() if slot.step == slot.stop}
            outcomes = self._evaluate(stack, due)
            for slot in training.values():
                slot.seconds += time.perf_counter() - started
        return outcomes

    def _train(self, stack: Stack, slots: list[Slot]) -> bool:
        """Train towards the first stop of any model; return False if the engine was closed."""
        steps = min(PIECE, *(slot.stop - slot.step for slot in slots))
        parts = Parts.of([slot.config for slot in slots])
        stack.prepare(steps, parts)
        self._interrupted = True
        if not stack.run(steps, parts, lambda: self._closed):
            return False
        self._interrupted = False
        for slot in slots:
            slot.step += steps

        # Restarted models have now repeated the steps up to their last returned evaluation.
        caught_up = [
            slot.row for slot in slots if slot.step == slot.evaluated and slot.row is not None
        ]
        if caught_up:
            stack.reset_losses(caught_up)
        return True

    def _evaluate(self, stack: Stack, due: dict[int, Slot]) -> list[tuple[int, Outcome]]:
        """Evaluate the models that are due and return their outcomes by slot number."""
        if not due:
            return []
        rows = [slot.row for slot in due.values() if slot.row is not None]
        configs = [slot.config for slot in due.values()]
        losses = dev_losses(stack.step.eval_weights, rows, configs, self._layout, self._dev_set)
        # The only wait for the device: one copy has both losses of all models.
        sums, devs = torch.stack([stack.step.loss_sum[rows], losses]).tolist()
        outcomes = [slot.judge(*pair) for slot, *pair in zip(due.values(), sums, devs, strict=True)]
        judged = list(zip(due.values(), rows, outcomes, strict=True))

        # These calls may run out of memory, so they come before any change of the slots: the whole
        # evaluation can then be repeated.
        stack.keep_best([row for slot, row, outcome in judged if slot.is_best(outcome)])
        stack.reset_losses(rows)
        for slot, row, outcome in judged:
            slot.record(outcome)
            if slot.done:
                stack.clear(row)
        return list(zip(due, outcomes, strict=True))

    def _assign_rows(self) -> Stack:
        """Load waiting models into free rows and rows with a finished model; return the stack."""
        if self._interrupted:  # the step counts are unknown, so all models start again
            self._evict_all()
        if self._stack is None:
            self._stack = self._allocate()
        held = {slot.row: slot for slot in self._slots.values() if slot.row is not None}
        free = [row for row in range(self._capacity) if row not in held or held[row].done]
        waiting = [slot for slot in self._slots.values() if slot.row is None and not slot.done]
        for row, slot in zip(free, waiting, strict=False):
            if row in held:
                self._evict(self._stack, held[row])
            state = slot.state or self._fresh_state(slot.config)
            self._stack.load(row, slot.config, slot.step, state, slot.best)
            slot.row = row
            slot.state = None
            slot.best = None
        return self._stack

    def _fresh_state(self, config: Config) -> State:
        return State.fresh(self._layout.pack(MLP(config, self._layout.vocab_size)))

    def _evict(self, stack: Stack, slot: Slot) -> None:
        """Take a model out of its row; save its best weights and its state on the host."""
        assert slot.row is not None
        if slot.history:
            slot.best = stack.best[slot.row].cpu().clone()
        if self._interrupted and not slot.done:
            slot.step = 0
        elif not slot.done:
            slot.state = stack.save(slot.row)
        stack.step.knobs.deactivate(slot.row)
        slot.row = None

    def _evict_all(self) -> None:
        for slot in self._slots.values():
            if self._stack is not None and slot.row is not None:
                self._evict(self._stack, slot)
        self._interrupted = False

    def _shrink(self) -> bool:
        """Halve the capacity and move all models to the host; return False if it is 1 already."""
        self._evict_all()
        self._stack = None
        if self._capacity == 1:
            return False
        self._capacity //= 2
        logger.warning(
            "%s is out of memory; the engine continues with %d models at once.",
            self._device,
            self._capacity,
        )
        return True

    def _allocate(self) -> Stack:
        """Return a stack of `capacity` empty rows."""
        if self._device.type == "cuda":
            gc.collect()
            torch.cuda.empty_cache()
        return Stack(self._capacity, self._layout, self._train_set, self._dtype)

    def _fail_all(self) -> list[tuple[int, Outcome]]:
        """Fail all models, because not even one fits on the device."""
        reason = (
            f"{self._device} has too little memory for one model of {self._layout.envelope}; "
            "lower n_hidden, n_embd, block_size or batch_size, or free memory on the device."
        )
        failed = {number: slot for number, slot in self._slots.items() if not slot.done}
        for slot in failed.values():
            slot.done = True
        return [(number, OutOfMemory(reason)) for number in failed]
