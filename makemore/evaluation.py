"""The exact mean loss of any model over a split."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from makemore.data import Examples
from makemore.model import MLP
from makemore.models import Model

CHUNK = 4096  # contexts computed at once


def evaluate(model: Model, examples: Examples) -> float:
    """Return the exact mean cross-entropy over all examples, in nats per character.

    An `MLP` is computed by the CPU engine's kernel, other models by torch.
    """
    if isinstance(model, MLP):
        from makemore.engines.cpu.evaluation import evaluate as evaluate_mlp  # compiles the kernel

        return evaluate_mlp(model, examples)
    return mean_loss(model, examples, model.block_size)


@torch.no_grad()
def mean_loss(
    model: Callable[[Tensor], Tensor],
    examples: Examples,
    block_size: int,
    *,
    device: torch.device | str = "cpu",
    stopped: Callable[[], bool] = lambda: False,
) -> float:
    """Return the exact mean loss in nats per character; each different context is computed once.

    Args:
        model: contexts (B, T) int64 -> logits (B, V), on the device.
        examples: the split.
        block_size: T.
        device: of the model.
        stopped: asked between two chunks; if it is true, the result is nan.
    """
    distinct = examples.distinct(block_size)
    total = 0.0
    for start in range(0, len(distinct.positions), CHUNK):
        if stopped():
            return float("nan")
        X = examples.windows(block_size, distinct.positions[start : start + CHUNK])
        logits = model(torch.from_numpy(X.astype(np.int64)).to(device))
        losses = -torch.log_softmax(logits.cpu().double(), 1).numpy()  # (B, V)

        # The pairs of a context and a target, with the number of their examples.
        ends = distinct.offsets[start : start + CHUNK + 1]
        pairs = slice(ends[0], ends[-1])
        rows = np.repeat(np.arange(len(X)), np.diff(ends))
        total += float(losses[rows, distinct.targets[pairs]] @ distinct.counts[pairs])
    return total / len(examples)
