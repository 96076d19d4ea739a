"""The batched engine: many models of different shapes in one training step, for GPUs."""

from __future__ import annotations

import gc
import itertools
import logging
import sys
import time
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from makemore.config import Config
from makemore.data import Corpus
from makemore.engines.base import (
    Diverged,
    EngineFailed,
    Envelope,
    EvalPoint,
    Outcome,
    TrainResult,
    check_finite,
    next_stop,
)
from makemore.engines.batched_eval import DevSet, dev_losses, evaluation_bytes
from makemore.engines.batched_layout import Layout, check_envelope
from makemore.engines.batched_plan import Parts, TrainSet
from makemore.engines.batched_stack import Stack, State, bytes_per_slot
from makemore.model import MLP, n_params
from makemore.schedule import lr_at

logger = logging.getLogger(__name__)


@dataclass
class _Model:
    """A model in a slot. It trains while it has a row of the stack; without one it waits on the host."""

    config: Config
    step: int = 0  # optimizer steps in the weights
    evaluated: int = 0  # the step of the last evaluation that was returned
    history: list[EvalPoint] = field(default_factory=list)
    row: int | None = None
    state: State | None = None  # while it waits: what it goes on from, or None to begin at step 0
    best: Tensor | None = None  # while it waits: the weights of lowest dev loss (width,), once there are any
    done: bool = False
    seconds: float = 0.0

    @property
    def stop(self) -> int:
        """The step to train to. A model that had to begin again first repeats what it has shown already."""
        return self.evaluated if self.step < self.evaluated else next_stop(self.config, self.evaluated)


class BatchedEngine:
    """Trains up to `capacity` models in one step of stacked tensors, each on its own clock.

    Models smaller than the envelope are padded by zeros that stay zero; weights, moments, data, draws and learning
    rates live on the device. On CUDA a chunk of steps is one captured graph, and the host waits for the device at
    evaluations only. Matrix products keep to full float32; TF32 is turned off.

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
        self._device, self._dtype = device, dtype
        self._layout = Layout(envelope, len(corpus.vocab))
        if device.type == "cuda":
            torch.set_float32_matmul_precision("highest")
        self._train_set = TrainSet(corpus.train, device)
        self._dev_set = DevSet(corpus.dev, len(corpus.vocab), device, dtype)
        self._models: dict[int, _Model] = {}
        self._capacity = min(capacity, room(envelope, len(corpus.vocab), device, dtype))
        self._stack: Stack | None = None  # made when there is something to train
        self._torn = False  # whether the models in rows are in the middle of a stretch
        self._closed = False

    @property
    def capacity(self) -> int:
        return self._capacity

    def admit(self, config: Config) -> int:
        self._check_open()
        self._layout.check_fits(config)
        if len(self._models) >= self._capacity:
            raise RuntimeError(f"no slot is free: all {self._capacity} hold models; remove one first.")
        slot = next(slot for slot in itertools.count() if slot not in self._models)
        self._models[slot] = _Model(config)
        return slot

    def advance(self) -> list[tuple[int, Outcome]]:
        self._check_open()
        while True:
            try:
                return self._advance()
            except torch.OutOfMemoryError:
                pass  # handled outside, where the traceback no longer keeps the tensors of the step alive
            if not self._shrink():
                return self._fail_all()

    def remove(self, slot: int) -> TrainResult:
        """As `Engine.remove`; `seconds` is time that the model shared with those that trained beside it.

        Raises:
            KeyError: the slot holds no model.
        """
        model = self._models.pop(slot)
        if self._stack is not None and model.row is not None:
            self._evict(self._stack, model)
        result = MLP(model.config, self._layout.vocab_size)
        if model.best is not None:
            self._layout.unpack(model.best, result)
        return TrainResult(result, tuple(model.history), n_params(model.config, result.vocab_size), model.seconds)

    def close(self) -> None:
        self._closed = True  # a stretch that runs in another thread sees this at its next chunk
        self._models.clear()
        self._stack = None

    def _check_open(self) -> None:
        if self._closed:
            raise RuntimeError("the engine is closed; make a new one.")

    def _advance(self) -> list[tuple[int, Outcome]]:
        outcomes: list[tuple[int, Outcome]] = []
        while not outcomes:
            stack, started = self._place(), time.perf_counter()
            training = {slot: m for slot, m in self._models.items() if m.row is not None and not m.done}
            if not training or not self._train(stack, list(training.values())):
                break
            outcomes = self._evaluate(stack, {slot: m for slot, m in training.items() if m.step == m.stop})
            for model in training.values():
                model.seconds += time.perf_counter() - started
        return outcomes

    def _train(self, stack: Stack, models: list[_Model]) -> bool:
        """Train to the nearest stop of any of the models; False if the engine was closed meanwhile."""
        steps = min(model.stop - model.step for model in models)
        parts = Parts.of([model.config for model in models])
        stack.prepare(steps, parts)
        self._torn = True
        if not stack.run(steps, parts, lambda: self._closed):
            return False
        self._torn = False
        for model in models:
            model.step += steps
            if model.step == model.evaluated:  # it has caught up with what it has shown; what follows is new
                stack.reset_losses([_row(model)])
        return True

    def _evaluate(self, stack: Stack, due: dict[int, _Model]) -> list[tuple[int, Outcome]]:
        if not due:
            return []
        rows, configs = [_row(model) for model in due.values()], [model.config for model in due.values()]
        losses = dev_losses(stack.step.flat, rows, configs, self._layout, self._dev_set)
        # The only wait for the device: both losses of all models in one copy.
        sums, devs = torch.stack([stack.step.loss_sum[rows], losses]).tolist()
        outcomes = [_outcome(model, *pair) for model, *pair in zip(due.values(), sums, devs, strict=True)]
        # What may run out of memory comes before the models' records change, so that it can be done again.
        stack.keep_best([row for model, row, o in zip(due.values(), rows, outcomes, strict=True) if _is_best(o, model)])
        stack.reset_losses(rows)
        for model, row, outcome in zip(due.values(), rows, outcomes, strict=True):
            model.evaluated = model.step
            if isinstance(outcome, EvalPoint):
                model.history.append(outcome)
            model.done = isinstance(outcome, Diverged) or model.step == model.config.max_steps
            if model.done:
                stack.clear(row)
        return list(zip(due, outcomes, strict=True))

    def _place(self) -> Stack:
        """The stack, with models that wait for a row in rows that are free."""
        if self._torn:  # an exception left these models in the middle of a stretch: they begin again
            self._evict_all()
        if self._stack is None:
            self._stack = self._allocate()
        taken = {m.row for m in self._models.values() if not m.done}
        free = [row for row in range(self._capacity) if row not in taken]
        for model in self._models.values():
            if free and model.row is None and not model.done:
                row = free.pop(0)
                for other in self._models.values():
                    if other.row == row:  # it is done
                        self._evict(self._stack, other)
                state = model.state or State.fresh(self._layout.pack(MLP(model.config, self._layout.vocab_size)))
                self._stack.load(row, model.config, model.step, state, model.best)
                model.row, model.state, model.best = row, None, None
        return self._stack

    def _evict(self, stack: Stack, model: _Model) -> None:
        """Take a model out of its row, with all that is worth keeping of it."""
        row = _row(model)
        if model.history:
            model.best = stack.best[row].cpu().clone()
        if self._torn and not model.done:
            model.step = 0
        elif not model.done:
            model.state = stack.save(row)
        stack.step.knobs.stop(row)
        model.row = None

    def _evict_all(self) -> None:
        for model in self._models.values():
            if self._stack is not None and model.row is not None:
                self._evict(self._stack, model)
        self._torn = False

    def _shrink(self) -> bool:
        """Halve the capacity, with all models back on the host; False if it is 1 already."""
        self._evict_all()
        self._stack = None
        if self._capacity == 1:
            return False
        self._capacity //= 2
        logger.warning("%s is out of memory: the engine goes on with %d models at once.", self._device, self._capacity)
        return True

    def _allocate(self) -> Stack:
        """A stack of `capacity` rows of zeros.

        Raises:
            torch.OutOfMemoryError: it does not fit.
        """
        if self._device.type == "cuda":
            gc.collect()
            torch.cuda.empty_cache()
        return Stack(self._capacity, self._layout, self._train_set, self._dtype)

    def _fail_all(self) -> list[tuple[int, Outcome]]:
        envelope = self._layout.envelope
        reason = f"{self._device} has too little memory for one model of {envelope}; use a smaller one, or a CPU."
        failed = {slot: model for slot, model in self._models.items() if not model.done}
        for model in failed.values():
            model.done = True
        return [(slot, EngineFailed(reason)) for slot in failed]


def room(envelope: Envelope, vocab_size: int, device: torch.device, dtype: torch.dtype) -> int:
    """How many models fit into a CUDA device's free memory, at least 1; more than any capacity on other devices."""
    if device.type != "cuda":
        return sys.maxsize
    torch.cuda.empty_cache()
    free, _ = torch.cuda.mem_get_info(device)
    # A tenth is left for the libraries and for what the allocator cannot use.
    return max(1, int(0.9 * free - evaluation_bytes(device)) // bytes_per_slot(envelope, vocab_size, dtype))


def _row(model: _Model) -> int:
    assert model.row is not None
    return model.row


def _outcome(model: _Model, loss_sum: float, dev_loss: float) -> EvalPoint | Diverged:
    train_loss = loss_sum / (model.step - model.evaluated)
    try:
        check_finite(model.step, train_loss, dev_loss)
    except Diverged as diverged:
        return diverged.with_traceback(None)
    return EvalPoint(model.step, train_loss, dev_loss, float(lr_at(model.config, np.array([model.step - 1]))[0]))


def _is_best(outcome: Outcome, model: _Model) -> bool:
    return isinstance(outcome, EvalPoint) and all(outcome.dev_loss < point.dev_loss for point in model.history)
