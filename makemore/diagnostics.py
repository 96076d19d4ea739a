"""The lecture's diagnostics of a trained model, as single numbers on a fixed batch."""

from __future__ import annotations

import math

import numpy as np
import torch

from makemore.data import Corpus
from makemore.engines import EvalPoint
from makemore.model import MLP

BATCH = 512  # examples of the dev split, the same for all trials of a study
SATURATED = 0.97  # |tanh| beyond which a unit passes almost no gradient


def diagnose(model: MLP, best: EvalPoint, corpus: Corpus) -> dict[str, float]:
    """What the lecture looks at when a network trains badly.

    Returns:
        init_loss: of the untrained weights, in nats; ln V is what they should not exceed.
        tanh_saturation: share of hidden values beyond 0.97 in size.
        log10_update_ratio: log10 of lr * sd(gradient of W1) / sd(W1), with the learning rate of the best step; near -3
            is healthy for SGD.
    """
    rows = np.linspace(0, len(corpus.dev) - 1, min(BATCH, len(corpus.dev))).astype(np.int64)
    X, Y = corpus.dev.tensors(model.config.block_size, rows)
    with torch.no_grad():
        init_loss = MLP(model.config, model.vocab_size).loss(X, Y).item()
        saturation = (model.hidden(X).abs() > SATURATED).float().mean().item()
    (gradient,) = torch.autograd.grad(model.loss(X, Y), [model.W1])
    ratio = best.lr * gradient.std().item() / max(model.W1.std().item(), 1e-30)
    found = {"init_loss": init_loss, "tanh_saturation": saturation}
    return found | (
        {"log10_update_ratio": math.log10(ratio)} if ratio > 0 and math.isfinite(ratio) else {}
    )
