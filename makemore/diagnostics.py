"""Diagnostics of a trained model from the lecture, as single numbers on a fixed batch."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F

from makemore.data import Corpus
from makemore.engines import EvalPoint
from makemore.model import MLP
from makemore.models import Model, build, class_of

BATCH = 128  # examples of the dev split, the same for all trials of a study
SATURATED = 0.97  # |tanh| above which a unit passes almost no gradient


def diagnose(model: Model, best: EvalPoint, corpus: Corpus) -> dict[str, float]:
    """Return the numbers that the lecture checks when a network trains badly.

    Args:
        model: the trained model.
        best: its best evaluation, for the learning rate.
        corpus: the data that it was trained on.

    Returns:
        init_loss: of the untrained weights, in nats; a good initialisation starts near ln V.
        tanh_saturation: share of hidden values whose size exceeds 0.97.
        log10_update_ratio: log10 of lr * sd(gradient of W1) / sd(W1), with the learning rate of
            the best step; near -3 is healthy for SGD. Missing if the ratio is 0 or not finite.
        A model of the user's own class has only init_loss.
    """
    n = min(BATCH, len(corpus.dev))
    rows = np.linspace(0, len(corpus.dev) - 1, n).astype(np.int64)
    X, Y = corpus.dev.tensors(model.config.block_size, rows)
    with torch.no_grad():
        untrained = build(class_of(model) or MLP, model.config, model.vocab_size)
        found = {"init_loss": F.cross_entropy(untrained(X), Y).item()}
    if not isinstance(model, MLP):
        return found

    with torch.no_grad():
        saturation = (model.hidden(X).abs() > SATURATED).float().mean().item()
    found["tanh_saturation"] = saturation

    (gradient,) = torch.autograd.grad(model.loss(X, Y), [model.W1])
    ratio = best.lr * gradient.std().item() / max(model.W1.std().item(), 1e-30)
    if ratio > 0 and math.isfinite(ratio):
        found["log10_update_ratio"] = math.log10(ratio)
    return found
