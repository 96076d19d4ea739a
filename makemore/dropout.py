"""Dropout whose draws depend on the model's seed and the step only, not on torch's generator."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from makemore.draws import dropout_keep


class DropoutDraws:
    """The draws of all dropout layers of one model.

    Args:
        seed: of the model.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self.start(0)

    def start(self, step: int) -> None:
        """Begin the forward pass of a step, counted from 0."""
        self._step = step
        self._layer = 0

    def keep(self, x: Tensor, p: float) -> Tensor:
        """Return the factors of the next dropout layer of the forward pass, in the shape of x."""
        factors = dropout_keep(self._seed, self._step, tuple(x.shape), p, self._layer)
        self._layer += 1
        return torch.from_numpy(factors).to(x)


class SeededDropout(nn.Module):
    """nn.Dropout with the draws of `DropoutDraws`."""

    def __init__(self, p: float, draws: DropoutDraws) -> None:
        super().__init__()
        self.p = p
        self._draws = draws

    def forward(self, x: Tensor) -> Tensor:
        """Return x in evaluation; in training, with a share p of its values set to 0."""
        if not self.training or self.p == 0:
            return x
        return x * self._draws.keep(x, self.p)


def seed_dropout(model: nn.Module, seed: int) -> DropoutDraws:
    """Replace each nn.Dropout in a model by one with seeded draws; returns the draws.

    Torch's own dropout draws from one generator of the process, so a model's result would depend
    on the models that are trained at the same time.
    """
    draws = DropoutDraws(seed)
    for module in list(model.modules()):
        for name, child in module.named_children():
            if type(child) is nn.Dropout:
                setattr(module, name, SeededDropout(child.p, draws).train(child.training))
    return draws
