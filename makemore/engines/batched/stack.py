"""The models on the device: rows that are loaded, trained together and saved."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from makemore.config import Config
from makemore.engines.base import Envelope
from makemore.engines.batched.evaluation import evaluation_bytes
from makemore.engines.batched.graphs import Graphs
from makemore.engines.batched.layout import Layout
from makemore.engines.batched.plan import Parts, TrainSet
from makemore.engines.batched.step import CHUNK, Step, work_shapes


class State(NamedTuple):
    """The state of a model in training: four rows (width,) and a scalar, on any device.

    Attributes:
        flat: the weights.
        eval_weights: the weights to evaluate: the average if there is one, else equal to `flat`.
        m, v: AdamW's moments.
        loss_sum: sum of the minibatch losses since the last evaluation, in nats.
    """

    flat: Tensor
    eval_weights: Tensor
    m: Tensor
    v: Tensor
    loss_sum: Tensor

    @classmethod
    def fresh(cls, flat: Tensor) -> State:
        """Return the state of a model with initial weights (width,)."""
        return cls(flat, flat, torch.zeros_like(flat), torch.zeros_like(flat), torch.zeros(()))


def bytes_per_slot(
    envelope: Envelope, vocab_size: int, dtype: torch.dtype = torch.float32, soft: bool = False
) -> int:
    """Return the device memory in bytes that one model takes.

    Counted are: six rows of `Layout.width` values (weights, best weights, gradients, two moments,
    an update), a seventh row if the weights are averaged, the work tensors of a step, and the plan
    of a chunk with its temporaries. With `soft` there are a teacher's soft targets too. At the
    lecture's sizes (block_size 3, n_embd 10, n_hidden 200, batch_size 32, 27 symbols) and in
    float32 this is 0.44 MB. Compared with real tensors on a CPU; not run on a GPU yet.
    """
    T = envelope.block_size
    B = envelope.batch_size
    H = envelope.n_hidden
    values = (6 + envelope.ema) * Layout(envelope, vocab_size).width + 3 * CHUNK * B
    values += soft * B * vocab_size
    values += sum(rows * columns for rows, columns in work_shapes(envelope, vocab_size).values())
    words = 2 * B * H if envelope.dropout else 0
    # int32 contexts, int64 rows and targets, rates, and copies of them.
    words += CHUNK * (B * (5 * T + 12 + 2 * soft) + 64)
    return values * dtype.itemsize + words * 4


def max_models(layout: Layout, device: torch.device, dtype: torch.dtype, soft: bool = False) -> int:
    """Return the number of models that fit on a device, at least 1.

    On CUDA it depends on the free memory; not run on a GPU yet.
    """
    # The rows of the table of all embeddings are numbered in int32.
    limit = (2**31 - 1) // (layout.width // layout.envelope.n_embd)
    if device.type == "cuda":
        torch.cuda.empty_cache()
        free, _ = torch.cuda.mem_get_info(device)
        slot = bytes_per_slot(layout.envelope, layout.vocab_size, dtype, soft)
        # A tenth is left for libraries and for memory that the allocator cannot use.
        limit = min(limit, int(0.9 * free - evaluation_bytes(device)) // slot)
    return max(1, limit)


def is_out_of_memory(error: RuntimeError) -> bool:
    """Return whether an error means that a device's memory is full.

    Libraries and MPS raise a plain RuntimeError, so its text is searched too.
    """
    words = ("out of memory", "ALLOC_FAILED")
    return isinstance(error, torch.OutOfMemoryError) or any(word in str(error) for word in words)


class Stack:
    """N rows that train together, one step of all rows at a time.

    Attributes:
        device: the device of all tensors.
        step: the rows' weights, moments, losses and knobs.
        best: (N, width) the weights that `keep_best` has kept.
    """

    def __init__(self, n: int, layout: Layout, train: TrainSet, dtype: torch.dtype) -> None:
        self.device = train.stream.device
        self.step = Step(n, layout, train, dtype)
        self.best = torch.zeros_like(self.step.flat)
        self._graphs = Graphs(self.device) if self.device.type == "cuda" else None

    @torch.no_grad()
    def load(self, row: int, config: Config, at: int, state: State, best: Tensor | None) -> None:
        """Put a model into a row, to resume training at step `at`."""
        for ours, theirs in zip(self._state(row), state, strict=True):
            ours.copy_(theirs)
        self.best[row] = 0 if best is None else best
        self.step.knobs.admit(row, config, at)

    def save(self, row: int) -> State:
        """Return a copy on the host of a row's state, for `load`."""
        return State(*(x.cpu().clone() for x in self._state(row)))

    @torch.no_grad()
    def clear(self, row: int) -> None:
        """Make a row inactive and set its state to 0, so that no inf or nan stays; keep `best`."""
        for x in self._state(row):
            x.zero_()
        self.step.knobs.deactivate(row)

    def _state(self, row: int) -> State:
        return State(
            self.step.flat[row],
            self.step.eval_weights[row],
            self.step.m[row],
            self.step.v[row],
            self.step.loss_sum[row],
        )

    def keep_best(self, rows: list[int]) -> None:
        """Keep the current weights of some rows as their best ones."""
        mask = torch.zeros(len(self.best), 1, dtype=torch.bool)
        mask[rows] = True
        # In place: an indexed copy would allocate a second tensor of this size.
        torch.where(mask.to(self.device), self.step.eval_weights, self.best, out=self.best)

    def reset_losses(self, rows: list[int]) -> None:
        """Set the sums of minibatch losses of some rows to 0."""
        index = torch.tensor(rows, dtype=torch.int64, device=self.device)
        self.step.loss_sum.index_fill_(0, index, 0)

    def prepare(self, steps: int, parts: Parts) -> None:
        """Prepare `run`: upload the knobs and capture the CUDA graphs that `run` replays.

        This is the part of a run that may find no memory.
        """
        if self._graphs is not None:
            for k in [CHUNK] * (steps >= CHUNK) + [1] * (steps % CHUNK > 0):
                if (k, parts) not in self._graphs:
                    self.step.knobs.deactivate_all()  # the warm-up steps must change nothing
                    self._graphs.capture((k, parts), partial(self.step.chunk, k, parts))
        self.step.knobs.upload()

    def run(self, steps: int, parts: Parts, stopped: Callable[[], bool]) -> bool:
        """Train all active rows for some steps, after `prepare` with the same steps and parts.

        Returns:
            False if `stopped` returned True before the end; it is called before each chunk.
        """
        left = steps
        while left:
            if stopped():
                return False
            if self._graphs is None:
                k = min(CHUNK, left)
                self.step.chunk(k, parts)
            else:
                k = CHUNK if left >= CHUNK else 1  # there are graphs for these two lengths only
                self._graphs.replay((k, parts))
            left -= k
        self.step.knobs.advance(steps)
        return True
