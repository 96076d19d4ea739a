"""The CPU engine: one model a thread, one kernel call from one evaluation to the next."""

from __future__ import annotations

import functools
import math
import sys
import time
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

import numpy as np
import torch
from numba.core import event
from threadpoolctl import threadpool_limits

from makemore.config import Config
from makemore.data import Corpus, Examples
from makemore.draws import dropout_threshold, step_keys, stream_key
from makemore.engines import kernel
from makemore.engines.base import Diverged, EngineFailed, EvalPoint, Outcome, TrainResult, next_stop
from makemore.model import MLP, parameter_shapes
from makemore.schedule import lr_at

EVAL_CHUNK = 256  # contexts evaluated at once


@functools.cache
def hold_blas_to_one_thread() -> threadpool_limits:
    """Keep numpy's and scipy's BLAS to one thread in this process: the engine's threads are the parallelism.

    torch's own threads are left alone. The cache keeps the limiter alive, whose end would lift the limit.
    """
    return threadpool_limits(1, user_api="blas")


class _Announcer(event.Listener):
    """Says once that the kernel is being compiled, since that is the only time a first step takes seconds."""

    said = False

    def on_start(self, event: event.Event) -> None:
        if not _Announcer.said:
            _Announcer.said = True
            print("Compiling the CPU kernel: once, about 8 s.", file=sys.stderr, flush=True)

    def on_end(self, event: event.Event) -> None:
        pass


def split_weights(flat: np.ndarray, config: Config, vocab_size: int) -> kernel.Weights:
    """The parameters as views of their flat vector."""
    shapes = list(parameter_shapes(config, vocab_size).values())
    if not config.direct:
        shapes.append((0, vocab_size))
    ends = np.cumsum([math.prod(shape) for shape in shapes])
    return kernel.Weights(*(part.reshape(s) for part, s in zip(np.split(flat, ends[:-1]), shapes, strict=True)))


def make_scratch(config: Config, vocab_size: int, rows: int, dropout: bool) -> kernel.Scratch:
    """Memory for a step on `rows` examples."""
    B, K, H, V = rows, config.block_size * config.n_embd, config.n_hidden, vocab_size
    widths = {"emb": K, "h": H, "keep": H if dropout else 0, "logits": V, "logits2": V, "dh": H, "demb": K, "demb2": K}
    arrays = {name: np.empty((B, width), np.float32) for name, width in widths.items()}
    return kernel.Scratch(**arrays, at=np.empty(B, np.int64))


def evaluate(model: MLP, examples: Examples) -> float:
    """Exact mean cross-entropy of a model over all examples, in nats per character.

    Each different context is computed once; sums are float64 in a fixed order. Needs nothing but the model and the
    examples, and may be called from any thread.
    """
    hold_blas_to_one_thread()
    config = model.config
    weights = split_weights(model.flat.detach().numpy(), config, model.vocab_size)
    scratch = make_scratch(config, model.vocab_size, EVAL_CHUNK, dropout=False)
    distinct = examples.distinct(config.block_size)
    with event.install_listener("numba:compile", _Announcer()):
        return float(kernel.mean_loss(examples.stream, *distinct, config.block_size, weights, scratch))


class Slot:
    """A model, its optimizer's state, and where it stands."""

    def __init__(self, config: Config, corpus: Corpus) -> None:
        self.config, self.corpus = config, corpus
        V = len(corpus.vocab)
        self.model = MLP(config, V)
        self.flat = self.model.flat.numpy()
        self.weights = split_weights(self.flat, config, V)
        self.flat_gradient = np.zeros_like(self.flat)
        self.gradient = split_weights(self.flat_gradient, config, V)
        n_moments = self.flat.size if config.optimizer == "adamw" else 0
        self.m, self.v = np.zeros(n_moments, np.float32), np.zeros(n_moments, np.float32)
        self.scratch = make_scratch(config, V, config.batch_size, config.dropout > 0)
        self.stop = np.zeros(1, np.uint8)  # set from another thread, read before every step
        self.best = self.flat.copy()
        self.history: list[EvalPoint] = []
        self.step, self.seconds, self.over = 0, 0.0, False

    def train(self) -> Outcome | None:
        """Train to the next evaluation, and evaluate; None when stopped on the way. Runs in the slot's thread."""
        started = time.perf_counter()
        steps = np.arange(self.step, next_stop(self.config, self.step))
        lrs = lr_at(self.config, steps)
        done, total = self._train_steps(steps, lrs)
        self.step += done
        mean = total / max(done, 1)
        if not math.isfinite(mean):
            return Diverged(self.step, mean)
        if done < len(steps):
            return None
        dev_loss = evaluate(self.model, self.corpus.dev)
        self.seconds += time.perf_counter() - started
        if not math.isfinite(dev_loss):
            return Diverged(self.step, dev_loss)
        return EvalPoint(self.step, mean, dev_loss, float(lrs[-1]))

    def _train_steps(self, steps: np.ndarray, lrs: np.ndarray) -> tuple[int, float]:
        c = self.config
        batch_keys, drop_keys = (step_keys(stream_key(c.seed, stream), steps) for stream in ("batch", "dropout"))
        train = self.corpus.train
        with event.install_listener("numba:compile", _Announcer()):
            return kernel.train_steps(
                self.stop, train.stream, train.positions, c.block_size, self.step, lrs, batch_keys, drop_keys,
                np.uint32(dropout_threshold(c.dropout)), np.float32(1 / (1 - c.dropout)), np.float32(c.weight_decay),
                self.flat, self.weights, self.flat_gradient, self.gradient, self.m, self.v, self.scratch,
            )  # fmt: skip

    def record(self, outcome: Outcome) -> None:
        """Take an outcome into the history, and keep the weights if they are the best so far."""
        if not isinstance(outcome, EvalPoint):
            self.over = True
            return
        if not self.history or outcome.dev_loss < min(point.dev_loss for point in self.history):
            self.best[:] = self.flat
        self.history.append(outcome)
        self.over = outcome.step == self.config.max_steps

    def result(self) -> TrainResult:
        self.flat[:] = self.best
        return TrainResult(self.model, tuple(self.history), self.flat.size, self.seconds)


class CpuEngine:
    """Trains `capacity` models at once, each in its own thread; the kernel holds no GIL.

    Args:
        capacity: models at once; one a core is best.
    """

    def __init__(self, corpus: Corpus, capacity: int) -> None:
        hold_blas_to_one_thread()
        self._corpus, self._capacity = corpus, capacity
        self._slots: dict[int, Slot] = {}
        self._running: dict[int, Future[Outcome | None]] = {}
        self._unreported: list[tuple[int, Outcome]] = []
        self._threads: ThreadPoolExecutor | None = ThreadPoolExecutor(capacity, thread_name_prefix="makemore-slot")

    @property
    def capacity(self) -> int:
        """How many models can be trained at once."""
        return self._capacity

    def admit(self, config: Config) -> int:
        """Put a fresh model into a free slot and return the slot.

        Raises:
            ValueError: the model does not fit this machine's memory.
            RuntimeError: no slot is free, or the engine is closed.
        """
        if self._threads is None:
            raise RuntimeError("the engine is closed; make a new one.")
        free = [slot for slot in range(self._capacity) if slot not in self._slots]
        if not free:
            raise RuntimeError(f"all {self._capacity} slots are taken; remove a model first.")
        self._corpus.dev.distinct(config.block_size)  # cached here, so that threads only read it
        self._slots[free[0]] = Slot(config, self._corpus)
        return free[0]

    def advance(self) -> list[tuple[int, Outcome]]:
        """Train until at least one model is at its next evaluation; return (slot, outcome) of those that are.

        Raises:
            Exception: a bug in a slot's thread. The slot does not train on; outcomes of others come with the next call.
        """
        if self._threads is None:
            raise RuntimeError("the engine is closed; make a new one.")
        for number, slot in self._slots.items():
            if not slot.over and number not in self._running:
                self._running[number] = self._threads.submit(self._train, slot)
        if not self._unreported and self._running:
            wait(self._running.values(), return_when=FIRST_COMPLETED)
        bug = self._collect()
        if bug is not None:
            raise bug
        outcomes, self._unreported = self._unreported, []
        return outcomes

    def _collect(self) -> BaseException | None:
        """Take what has completed; return the first exception of a thread."""
        bug = None
        for number in sorted(number for number, future in self._running.items() if future.done()):
            future = self._running.pop(number)
            error = future.exception()
            outcome = future.result() if error is None else EngineFailed(f"slot {number} failed: {error!r}")
            if outcome is not None:
                self._slots[number].record(outcome)
                if error is None:
                    self._unreported.append((number, outcome))
            bug = bug or error
        return bug

    def _train(self, slot: Slot) -> Outcome | None:
        """Runs in a slot's thread."""
        try:
            return slot.train()
        except MemoryError as error:
            return EngineFailed(f"out of memory while training: {error}".rstrip(": "))

    def remove(self, slot: int) -> TrainResult:
        """Free a slot, whatever the state of its model, and return what it holds so far.

        Raises:
            KeyError: nothing is in the slot.
        """
        model = self._slots.pop(slot)
        model.stop[0] = 1
        if slot in self._running:
            wait([self._running.pop(slot)])
        self._unreported = [(number, outcome) for number, outcome in self._unreported if number != slot]
        return model.result()

    def close(self) -> None:
        """Stop what is running and free everything; the engine cannot be used again."""
        for slot in self._slots.values():
            slot.stop[0] = 1
        if self._threads is not None:
            self._threads.shutdown(wait=True, cancel_futures=True)
            self._threads = None
        self._slots.clear()
        self._running.clear()
        self._unreported.clear()
