"""The batched engine: many models of different shapes in one training step, for GPUs."""

from __future__ import annotations

import gc
import itertools
import logging
import time

import torch

from makemore.config import Config
from makemore.data import Corpus
from makemore.engines.base import EngineFailed, Envelope, Outcome, TrainResult
from makemore.engines.batched.evaluation import DevSet, dev_losses
from makemore.engines.batched.layout import Layout, check_envelope
from makemore.engines.batched.plan import Parts, TrainSet
from makemore.engines.batched.slot import Slot
from makemore.engines.batched.stack import Stack, State, room
from makemore.model import MLP, n_params

logger = logging.getLogger(__name__)


class BatchedEngine:
    """Trains up to `capacity` models in one step of stacked tensors, each on its own clock.

    Models smaller than the envelope are padded by zeros that stay zero; weights, moments, data, draws and learning
    rates live on the device. On CUDA a chunk of steps is one captured graph, and the host waits for the device at
    evaluations only. Matrix products keep to full float32: TF32 is turned off for the process. The paths of CUDA and
    MPS differ from that of the CPU by graphs, tanh and one layout of gradients; they have not been run yet.

    When the device runs out of memory the capacity is halved. Models that find no room then wait on the host and
    train when room comes free; none is lost, and no evaluation is returned twice.

    Args:
        capacity: models at once, at least 1; on CUDA fewer if so many do not fit into free memory (`bytes_per_slot`).
        envelope: the largest model that will be admitted.
        dtype: of the weights. float64 is for tests, and does not exist on MPS.

    Raises:
        ValueError: the capacity or a size of the envelope is below 1; one sentence.
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
        self._device, self._dtype = device, dtype
        self._layout = Layout(envelope, len(corpus.vocab))
        self._train_set = TrainSet(corpus.train, device)
        self._dev_set = DevSet(corpus.dev, len(corpus.vocab), device, dtype)
        self._capacity = min(capacity, room(self._layout, device, dtype))
        self._slots: dict[int, Slot] = {}
        self._stack: Stack | None = None  # made when there is something to train
        self._torn = False  # whether the models in rows are in the middle of a stretch
        self._closed = False

    @property
    def capacity(self) -> int:
        """As `Engine.capacity`."""
        return self._capacity

    def admit(self, config: Config) -> int:
        """As `Engine.admit`.

        Raises:
            ValueError: the config is larger than the envelope; names the field and both values.
            RuntimeError: no slot is free, or the engine is closed.
        """
        self._check_open()
        self._layout.check_fits(config)
        if len(self._slots) >= self._capacity:
            raise RuntimeError(
                f"no slot is free: all {self._capacity} hold models; remove one first."
            )
        number = next(number for number in itertools.count() if number not in self._slots)
        self._slots[number] = Slot(config)
        return number

    def advance(self) -> list[tuple[int, Outcome]]:
        """As `Engine.advance`: trains all models to the nearest evaluation of any."""
        self._check_open()
        while True:
            try:
                return self._advance()
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
            # Handled out here, where no traceback keeps the tensors of the step alive.
            if not self._shrink():
                return self._fail_all()

    def remove(self, slot: int) -> TrainResult:
        """As `Engine.remove`; `seconds` is time that the model shared with those that trained beside it.

        Raises:
            KeyError: the slot holds no model.
        """
        held = self._slots.pop(slot)
        if self._stack is not None and held.row is not None:
            self._evict(self._stack, held)
        model = MLP(held.config, self._layout.vocab_size)
        if held.best is not None:
            self._layout.unpack(held.best, model)
        return TrainResult(
            model, tuple(held.history), n_params(held.config, model.vocab_size), held.seconds
        )

    def close(self) -> None:
        """As `Engine.close`; an `advance` in another thread ends at its next chunk of steps."""
        self._closed = True
        self._slots, self._stack = {}, None

    def _check_open(self) -> None:
        if self._closed:
            raise RuntimeError("the engine is closed; make a new one.")

    def _advance(self) -> list[tuple[int, Outcome]]:
        outcomes: list[tuple[int, Outcome]] = []
        while not outcomes:
            stack, started = self._place(), time.perf_counter()
            training = {
                number: s for number, s in self._slots.items() if s.row is not None and not s.done
            }
            if not training or not self._train(stack, list(training.values())):
                break
            outcomes = self._evaluate(
                stack, {number: s for number, s in training.items() if s.step == s.stop}
            )
            for slot in training.values():
                slot.seconds += time.perf_counter() - started
        return outcomes

    def _train(self, stack: Stack, slots: list[Slot]) -> bool:
        """Train to the nearest stop of any of the models; False if the engine was closed meanwhile."""
        steps = min(slot.stop - slot.step for slot in slots)
        parts = Parts.of([slot.config for slot in slots])
        stack.prepare(steps, parts)
        self._torn = True
        if not stack.run(steps, parts, lambda: self._closed):
            return False
        self._torn = False
        for slot in slots:
            slot.step += steps
        caught_up = [
            slot.row for slot in slots if slot.step == slot.evaluated and slot.row is not None
        ]
        if (
            caught_up
        ):  # with what they had shown before they had to begin again; what follows is new
            stack.reset_losses(caught_up)
        return True

    def _evaluate(self, stack: Stack, due: dict[int, Slot]) -> list[tuple[int, Outcome]]:
        if not due:
            return []
        rows = [slot.row for slot in due.values() if slot.row is not None]
        losses = dev_losses(
            stack.step.shown,
            rows,
            [slot.config for slot in due.values()],
            self._layout,
            self._dev_set,
        )
        # The only wait for the device: both losses of all models in one copy.
        sums, devs = torch.stack([stack.step.loss_sum[rows], losses]).tolist()
        outcomes = [slot.judge(*pair) for slot, *pair in zip(due.values(), sums, devs, strict=True)]
        judged = list(zip(due.values(), rows, outcomes, strict=True))
        # What may run out of memory comes before the models' records change, so that it can be done again.
        stack.keep_best([row for slot, row, outcome in judged if slot.is_best(outcome)])
        stack.reset_losses(rows)
        for slot, row, outcome in judged:
            slot.record(outcome)
            if slot.done:
                stack.clear(row)
        return list(zip(due, outcomes, strict=True))

    def _place(self) -> Stack:
        """The stack, with models that wait for a row in rows that are free or whose model is done."""
        if self._torn:  # an exception left the models in the middle of a stretch: they begin again
            self._evict_all()
        if self._stack is None:
            self._stack = self._allocate()
        held = {slot.row: slot for slot in self._slots.values() if slot.row is not None}
        free = [row for row in range(self._capacity) if row not in held or held[row].done]
        waiting = [slot for slot in self._slots.values() if slot.row is None and not slot.done]
        for row, slot in zip(free, waiting, strict=False):
            if row in held:
                self._evict(self._stack, held[row])
            state = slot.state or State.fresh(
                self._layout.pack(MLP(slot.config, self._layout.vocab_size))
            )
            self._stack.load(row, slot.config, slot.step, state, slot.best)
            slot.row, slot.state, slot.best = row, None, None
        return self._stack

    def _evict(self, stack: Stack, slot: Slot) -> None:
        """Take a model out of its row, with all that is worth keeping of it."""
        assert slot.row is not None
        if slot.history:
            slot.best = stack.best[slot.row].cpu().clone()
        if self._torn and not slot.done:
            slot.step = 0
        elif not slot.done:
            slot.state = stack.save(slot.row)
        stack.step.knobs.stop(slot.row)
        slot.row = None

    def _evict_all(self) -> None:
        for slot in self._slots.values():
            if self._stack is not None and slot.row is not None:
                self._evict(self._stack, slot)
        self._torn = False

    def _shrink(self) -> bool:
        """Halve the capacity, with all models back on the host; False if it is 1 already."""
        self._evict_all()
        self._stack = None
        if self._capacity == 1:
            return False
        self._capacity //= 2
        logger.warning(
            "%s is out of memory: the engine goes on with %d models at once.",
            self._device,
            self._capacity,
        )
        return True

    def _allocate(self) -> Stack:
        """A stack of `capacity` rows of zeros."""
        if self._device.type == "cuda":
            gc.collect()
            torch.cuda.empty_cache()
        return Stack(self._capacity, self._layout, self._train_set, self._dtype)

    def _fail_all(self) -> list[tuple[int, Outcome]]:
        reason = (
            f"{self._device} has too little memory for one model of {self._layout.envelope}; "
            "lower n_hidden, n_embd, block_size or batch_size, or free memory on the device."
        )
        failed = {number: slot for number, slot in self._slots.items() if not slot.done}
        for slot in failed.values():
            slot.done = True
        return [(number, EngineFailed(reason)) for number in failed]


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether an error says that a device's memory is full; libraries and MPS say so in words only."""
    words = ("out of memory", "ALLOC_FAILED")
    return isinstance(error, torch.OutOfMemoryError) or any(word in str(error) for word in words)
