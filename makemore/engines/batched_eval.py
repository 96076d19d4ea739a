"""Dev losses of many models at once: exact means over the whole split, from each different context once."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import torch
from torch import Tensor

from makemore.config import Config
from makemore.data import Examples
from makemore.engines.batched_layout import Layout
from makemore.engines.batched_step import tanh_, wide_dtype


def evaluation_bytes(device: torch.device) -> int:
    """Memory in bytes that an evaluation may take: a few caches' worth on a CPU, enough to fill a GPU elsewhere."""
    return 2**22 if device.type == "cpu" else 2**28


class DevSet:
    """The different contexts of the dev split on a device, by block size; made when first asked for."""

    def __init__(self, examples: Examples, vocab_size: int, device: torch.device, dtype: torch.dtype) -> None:
        self._examples, self._vocab_size, self._device, self._dtype = examples, vocab_size, device, dtype
        self._made: dict[int, tuple[Tensor, Tensor]] = {}

    def of(self, block_size: int) -> tuple[Tensor, Tensor]:
        """Contexts (M, T) int32, and how often each symbol follows each: (V, M), whose sum is the split's size."""
        if block_size not in self._made:
            distinct = self._examples.distinct(block_size)
            window = distinct.positions[:, None] + np.arange(-block_size, 0)
            contexts = self._examples.stream[window].astype(np.int32)
            follows = np.zeros((self._vocab_size, len(contexts)))
            follows[distinct.targets, np.repeat(np.arange(len(contexts)), np.diff(distinct.offsets))] = distinct.counts
            self._made[block_size] = (
                torch.from_numpy(contexts).to(self._device),
                torch.from_numpy(follows).to(self._dtype).to(self._device),
            )
        return self._made[block_size]


@torch.no_grad()
def dev_losses(flat: Tensor, rows: list[int], configs: list[Config], layout: Layout, dev: DevSet) -> Tensor:
    """The dev loss of some models, each the exact mean over the split: (len(rows),) wide, on the device.

    Args:
        flat: (N, width) the weights of all models.
        rows: where the models stand in it.
        configs: theirs.
    """
    losses = torch.zeros(len(rows), dtype=wide_dtype(flat.device), device=flat.device)
    by_block: dict[int, list[int]] = defaultdict(list)
    for index, config in enumerate(configs):
        by_block[config.block_size].append(index)
    budget = evaluation_bytes(flat.device) // flat.itemsize  # in values
    at_once = max(1, budget // layout.width)
    for block_size, indices in by_block.items():
        for start in range(0, len(indices), at_once):
            part = indices[start : start + at_once]
            chosen = torch.tensor([rows[index] for index in part], device=flat.device)
            total = _total_losses(flat.index_select(0, chosen), block_size, layout, dev, budget)
            losses[torch.tensor(part, device=flat.device)] = total
    return losses


def _total_losses(flat: Tensor, block_size: int, layout: Layout, dev: DevSet, budget: int) -> Tensor:
    """Mean losses (S,) wide of the S models of one block size, in runs of contexts that keep to a budget of values."""
    envelope, V = layout.envelope, layout.vocab_size
    contexts, follows = dev.of(block_size)
    p = layout.views(flat)
    unused = (envelope.block_size - block_size) * envelope.n_embd  # features of positions before the context
    per_context = len(flat) * (block_size * envelope.n_embd + 2 * envelope.n_hidden + 4 * V)
    at_once = max(1, budget // per_context)
    table = flat.view(-1, envelope.n_embd)
    first = torch.arange(len(flat), dtype=torch.int32, device=flat.device).view(-1, 1, 1)
    first = first * (layout.width // envelope.n_embd)
    total = torch.zeros(len(flat), dtype=wide_dtype(flat.device), device=flat.device)
    for start in range(0, len(contexts), at_once):
        run = slice(start, start + at_once)
        table_rows = contexts[run] + first  # (S, m, t)
        e = table.index_select(0, table_rows.view(-1)).view(len(flat), -1, block_size * envelope.n_embd)
        h = tanh_(torch.baddbmm(p["b1"], e, p["W1"][:, unused:], alpha=2, beta=2))  # (S, m, H)
        logits = torch.baddbmm(p["b2"], p["W2"], h.transpose(1, 2))  # (S, V, m)
        if envelope.direct:
            logits.baddbmm_(p["Wd"][:, :, unused:], e.transpose(1, 2))
        total -= torch.log_softmax(logits, 1).mul_(follows[:, run]).sum((1, 2), dtype=total.dtype)
    return total / follows.sum(dtype=total.dtype)
