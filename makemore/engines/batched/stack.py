"""The models that stand on the device now: rows are loaded, trained together, and saved."""

from __future__ import annotations

from collections.abc import Callable
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
    """What training goes on from: four rows (width,) and a scalar, on any device."""

    flat: Tensor
    shown: Tensor
    m: Tensor
    v: Tensor
    loss_sum: Tensor

    @classmethod
    def fresh(cls, flat: Tensor) -> State:
        return cls(flat, flat, torch.zeros_like(flat), torch.zeros_like(flat), torch.zeros(()))


def bytes_per_slot(envelope: Envelope, vocab_size: int, dtype: torch.dtype = torch.float32) -> int:
    """Device memory in bytes that one model takes.

    Six rows of `Layout.width` values (weights, best weights, gradients, two moments, an update), a seventh for averages
    of the weights, the work tensors of a
    step, and a chunk's plan with its temporaries. At the lecture's sizes (block 3, embedding 10, hidden 200, batch 32,
    27 symbols) and in float32 this is 0.44 MB.
    """
    T, B, H = envelope.block_size, envelope.batch_size, envelope.n_hidden
    values = (6 + envelope.ema) * Layout(envelope, vocab_size).width + 3 * CHUNK * B
    values += sum(rows * columns for rows, columns in work_shapes(envelope, vocab_size).values())
    words = 2 * B * H if envelope.dropout else 0
    words += CHUNK * (
        B * (5 * T + 12) + 64
    )  # int32 contexts, int64 rows and targets, rates, and copies of them
    return values * dtype.itemsize + words * 4


def room(layout: Layout, device: torch.device, dtype: torch.dtype) -> int:
    """How many models a device can hold, at least 1: on CUDA as many as fit into free memory."""
    # The rows of the table of all embeddings are numbered in int32.
    most = (2**31 - 1) // (layout.width // layout.envelope.n_embd)
    if device.type == "cuda":
        torch.cuda.empty_cache()
        free, _ = torch.cuda.mem_get_info(device)
        slot = bytes_per_slot(layout.envelope, layout.vocab_size, dtype)
        # A tenth is left for the libraries and for what the allocator cannot use.
        most = min(most, int(0.9 * free - evaluation_bytes(device)) // slot)
    return max(1, most)


class Stack:
    """N rows that train together, one step of all at a time.

    Attributes:
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
        """Put a model into a row, to train on from step `at`."""
        for ours, theirs in zip(self._state(row), state, strict=True):
            ours.copy_(theirs)
        self.best[row] = 0 if best is None else best
        self.step.knobs.admit(row, config, at)

    def save(self, row: int) -> State:
        """A copy on the host of what `load` needs to go on with a row's model."""
        return State(*(x.cpu().clone() for x in self._state(row)))

    @torch.no_grad()
    def clear(self, row: int) -> None:
        """Let a row rest with weights of 0, so that no inf or nan stays in it; its best weights stay."""
        for x in self._state(row):
            x.zero_()
        self.step.knobs.stop(row)

    def _state(self, row: int) -> State:
        return State(
            self.step.flat[row],
            self.step.shown[row],
            self.step.m[row],
            self.step.v[row],
            self.step.loss_sum[row],
        )

    def keep_best(self, rows: list[int]) -> None:
        """Copy the weights of some rows to their best ones."""
        mask = torch.zeros(len(self.best), 1, dtype=torch.bool)
        mask[rows] = True
        torch.where(
            mask.to(self.device), self.step.shown, self.best, out=self.best
        )  # allocates no second (N, width)

    def reset_losses(self, rows: list[int]) -> None:
        """Begin the sums of losses of some rows anew."""
        self.step.loss_sum.index_fill_(
            0, torch.tensor(rows, dtype=torch.int64, device=self.device), 0
        )

    def prepare(self, steps: int, parts: Parts) -> None:
        """Do what may run out of memory before `run`: bring knobs to the device, capture the CUDA graphs it replays."""
        if self._graphs is not None:
            for k in [CHUNK] * (steps >= CHUNK) + [1] * (steps % CHUNK > 0):
                if (k, parts) not in self._graphs:
                    self.step.knobs.rest()  # so that the steps which warm a graph up change nothing
                    self._graphs.capture((k, parts), lambda k=k: self.step.chunk(k, parts))  # type: ignore[misc]
        self.step.knobs.upload()

    def run(self, steps: int, parts: Parts, stopped: Callable[[], bool]) -> bool:
        """Train all rows that do not rest for some steps, after `prepare`; False if `stopped` ended it early."""
        left = steps
        while left:
            if stopped():
                return False
            k = CHUNK if left >= CHUNK else left if self._graphs is None else 1
            if self._graphs is None:
                self.step.chunk(k, parts)
            else:
                self._graphs.replay((k, parts))
            left -= k
        self.step.knobs.advance(steps)
        return True
