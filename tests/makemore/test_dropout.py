"""Dropout with draws of the model's seed and the step."""

from __future__ import annotations

import torch
from torch import nn

from makemore.draws import dropout_keep
from makemore.dropout import SeededDropout, seed_dropout

X = torch.ones(6, 10)


def two_layers() -> nn.Module:
    return nn.Sequential(nn.Sequential(nn.Identity(), nn.Dropout(0.5)), nn.Dropout(0.25))


def test_nested_layers_are_replaced_and_keep_their_mode() -> None:
    model = two_layers().eval()
    seed_dropout(model, 1)

    found = [module for module in model.modules() if isinstance(module, SeededDropout)]
    assert sorted(module.p for module in found) == [0.25, 0.5]
    assert not any(module.training for module in found)
    assert torch.equal(model(X), X)


def test_layers_of_a_step_have_different_draws() -> None:
    model = two_layers()
    draws = seed_dropout(model, 1)
    draws.start(7)

    factors = dropout_keep(1, 7, (6, 10), 0.5) * dropout_keep(1, 7, (6, 10), 0.25, layer=1)
    assert torch.equal(model(X), torch.from_numpy(factors))
    assert (dropout_keep(1, 7, (6, 10), 0.5, layer=1) != dropout_keep(1, 7, (6, 10), 0.5)).any()


def test_draws_depend_on_seed_and_step_only() -> None:
    first, second, other = two_layers(), two_layers(), two_layers()
    draws = [seed_dropout(first, 1), seed_dropout(second, 1), seed_dropout(other, 2)]
    second(X)  # an earlier pass
    torch.manual_seed(5)
    before = torch.get_rng_state()
    for each in draws:
        each.start(3)

    assert torch.equal(first(X), second(X)) and not torch.equal(first(X), other(X))
    assert torch.equal(torch.get_rng_state(), before)
    draws[0].start(4)
    assert not torch.equal(first(X), second(X))
