"""Dev losses of many models at once: exact means over the whole split, from each different context once."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import torch
from torch import Tensor

from makemore.config import Config
from makemore.data import Examples
from makemore.engines.batched.layout import Layout
from makemore.engines.batched.step import hidden, wide_dtype

MOST_CONTEXTS = 4096  # at once: as many as fill a GPU


def evaluation_bytes(device: torch.device) -> int:
    """Memory in bytes that an evaluation may take: a few caches' worth on a CPU, enough to fill a GPU elsewhere."""
    return 2**22 if device.type == "cpu" else 2**28


class DevSet:
    """The different contexts of the dev split on a device, by block size; made when first asked for."""

    def __init__(
        self, examples: Examples, vocab_size: int, device: torch.device, dtype: torch.dtype
    ) -> None:
        self._examples, self._vocab_size, self._device, self._dtype = (
            examples,
            vocab_size,
            device,
            dtype,
        )
        self._made: dict[int, tuple[Tensor, Tensor]] = {}

    def of(self, block_size: int) -> tuple[Tensor, Tensor]:
        """Contexts (M, T) int32, and how often each symbol follows each: (V, M), whose sum is the split's size."""
        if block_size not in self._made:
            distinct = self._examples.distinct(block_size)
            window = distinct.positions[:, None] + np.arange(-block_size, 0)
            contexts = self._examples.stream[window].astype(np.int32)
            follows = np.zeros((self._vocab_size, len(contexts)))
            follows[
                distinct.targets, np.repeat(np.arange(len(contexts)), np.diff(distinct.offsets))
            ] = distinct.counts
            self._made[block_size] = (
                torch.from_numpy(contexts).to(self._device),
                torch.from_numpy(follows).to(self._dtype).to(self._device),
            )
        return self._made[block_size]


@torch.no_grad()
def dev_losses(
    flat: Tensor, rows: list[int], configs: list[Config], layout: Layout, dev: DevSet
) -> Tensor:
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
    for block_size, indices in by_block.items():
        # Values that one model needs for one context. How contexts are cut depends on this alone and not on how many
        # models there are, so that a loss has the same rounding whoever is evaluated beside it.
        per_context = (
            block_size * layout.envelope.n_embd
            + 2 * layout.envelope.n_hidden
            + 4 * layout.vocab_size
        )
        budget = evaluation_bytes(flat.device) // flat.itemsize
        contexts = min(MOST_CONTEXTS, max(1, budget // per_context))
        models = max(1, budget // max(layout.width, contexts * per_context))
        for start in range(0, len(indices), models):
            part = indices[start : start + models]
            chosen = torch.tensor([rows[index] for index in part], device=flat.device)
            found = _mean_losses(flat.index_select(0, chosen), block_size, layout, dev, contexts)
            losses.index_copy_(0, torch.tensor(part, device=flat.device), found)
    return losses


def _mean_losses(
    flat: Tensor, block_size: int, layout: Layout, dev: DevSet, at_once: int
) -> Tensor:
    """The mean losses (S,) wide of S models of one block size, over so many contexts at once."""
    T, E = layout.envelope.block_size, layout.envelope.n_embd
    contexts, follows = dev.of(block_size)
    p, table = layout.views(flat), flat.view(-1, E)
    unused = (T - block_size) * E  # features of positions before the context
    first = torch.arange(len(flat), dtype=torch.int32, device=flat.device).view(-1, 1, 1) * (
        layout.width // E
    )
    total = torch.zeros(len(flat), dtype=wide_dtype(flat.device), device=flat.device)
    for start in range(0, len(contexts), at_once):
        run = slice(start, start + at_once)
        table_rows = contexts[run] + first  # (S, m, t)
        e = table.index_select(0, table_rows.view(-1)).view(len(flat), -1, block_size * E)
        h = hidden(e, p["W1"][:, unused:], p["b1"])  # (S, m, H)
        logits = torch.baddbmm(p["b2"], p["W2"], h.transpose(1, 2))  # (S, V, m)
        if layout.envelope.direct:
            logits.baddbmm_(p["Wd"][:, :, unused:], e.transpose(1, 2))
        total -= torch.log_softmax(logits, 1).mul_(follows[:, run]).sum((1, 2), dtype=total.dtype)
    return total / follows.sum(dtype=total.dtype)
