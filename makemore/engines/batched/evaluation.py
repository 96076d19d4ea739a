"""Exact mean losses of many models over the dev split; each distinct context is computed once."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import torch
from torch import Tensor

from makemore.config import Config
from makemore.data import Examples
from makemore.engines.batched.layout import Layout
from makemore.engines.batched.step import hidden, wide_dtype

MAX_CONTEXTS = 4096  # contexts per product; more would not make a GPU faster


def evaluation_bytes(device: torch.device) -> int:
    """Return the memory in bytes that an evaluation may take.

    A CPU is fastest with a few times its cache. A GPU needs enough work to be busy; the value for
    GPUs was not measured, because the engine was not run on a GPU yet.
    """
    return 2**22 if device.type == "cpu" else 2**28


class DevSet:
    """The distinct contexts of the dev split on a device, by block size; computed at first use."""

    def __init__(
        self, examples: Examples, vocab_size: int, device: torch.device, dtype: torch.dtype
    ) -> None:
        self._examples = examples
        self._vocab_size = vocab_size
        self._device = device
        self._dtype = dtype
        self._by_block_size: dict[int, tuple[Tensor, Tensor]] = {}

    def of(self, block_size: int) -> tuple[Tensor, Tensor]:
        """Return the distinct contexts, and the number of times each symbol follows each of them.

        Returns:
            Contexts (M, T) int32, and counts (V, M) whose sum is the number of examples.
        """
        if block_size not in self._by_block_size:
            distinct = self._examples.distinct(block_size)
            window = distinct.positions[:, None] + np.arange(-block_size, 0)
            contexts = self._examples.stream[window].astype(np.int32)
            counts = np.zeros((self._vocab_size, len(contexts)))
            context = np.repeat(np.arange(len(contexts)), np.diff(distinct.offsets))
            counts[distinct.targets, context] = distinct.counts
            self._by_block_size[block_size] = (
                torch.from_numpy(contexts).to(self._device),
                torch.from_numpy(counts).to(self._dtype).to(self._device),
            )
        return self._by_block_size[block_size]


@torch.no_grad()
def dev_losses(
    flat: Tensor, rows: list[int], configs: list[Config], layout: Layout, dev: DevSet
) -> Tensor:
    """Return the dev losses of some models, each the exact mean over the split in nats.

    Args:
        flat: (N, width) the weights of all models.
        rows: the rows of the models to evaluate.
        configs: the configs of these models.
        layout: the layout of the rows.
        dev: the split.

    Returns:
        (len(rows),) in `wide_dtype`, on the device.
    """
    losses = torch.zeros(len(rows), dtype=wide_dtype(flat.device), device=flat.device)
    by_block: dict[int, list[int]] = defaultdict(list)
    for index, config in enumerate(configs):
        by_block[config.block_size].append(index)
    for block_size, indices in by_block.items():
        # Values that one model needs for one context. The number of contexts per product depends
        # only on this and not on the number of models. So the rounding of a loss does not depend on
        # the other models.
        per_context = (
            block_size * layout.envelope.n_embd
            + 2 * layout.envelope.n_hidden
            + 4 * layout.vocab_size
        )
        budget = evaluation_bytes(flat.device) // flat.itemsize
        contexts = min(MAX_CONTEXTS, max(1, budget // per_context))
        models = max(1, budget // max(layout.width, contexts * per_context))
        for start in range(0, len(indices), models):
            part = indices[start : start + models]
            chosen = torch.tensor([rows[index] for index in part], device=flat.device)
            means = _mean_losses(flat.index_select(0, chosen), block_size, layout, dev, contexts)
            losses.index_copy_(0, torch.tensor(part, device=flat.device), means)
    return losses


def _mean_losses(
    flat: Tensor, block_size: int, layout: Layout, dev: DevSet, n_contexts: int
) -> Tensor:
    """Return the mean losses (S,) of S models with one block size, `n_contexts` per product."""
    T = layout.envelope.block_size
    E = layout.envelope.n_embd
    contexts, counts = dev.of(block_size)
    p = layout.views(flat)
    table = flat.view(-1, E)
    unused = (T - block_size) * E  # features of positions before the context
    model = torch.arange(len(flat), dtype=torch.int32, device=flat.device).view(-1, 1, 1)
    first = model * (layout.width // E)  # the table row of each model's first embedding
    total = torch.zeros(len(flat), dtype=wide_dtype(flat.device), device=flat.device)
    for start in range(0, len(contexts), n_contexts):
        piece = slice(start, start + n_contexts)
        table_rows = contexts[piece] + first  # (S, m, t)
        e = table.index_select(0, table_rows.view(-1)).view(len(flat), -1, block_size * E)
        h = hidden(e, p["W1"][:, unused:], p["b1"])  # (S, m, H)
        logits = torch.baddbmm(p["b2"], p["W2"], h.transpose(1, 2))  # (S, V, m)
        if layout.envelope.direct:
            logits.baddbmm_(p["Wd"][:, :, unused:], e.transpose(1, 2))
        log_softmax = torch.log_softmax(logits, 1)
        total -= log_softmax.mul_(counts[:, piece]).sum((1, 2), dtype=total.dtype)
    return total / counts.sum(dtype=total.dtype)
