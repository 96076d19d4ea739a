"""The step of the batched engine: gradients, losses, and no traffic with the host."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from makemore.config import Config
from makemore.data import Corpus
from makemore.draws import batch_rows
from makemore.dropout import seed_dropout
from makemore.engines.batched.layout import Layout
from makemore.engines.batched.plan import Parts, SoftTargets, TrainSet
from makemore.engines.batched.stack import Stack, State
from makemore.model import MLP
from tests.makemore.engines.batched.runs import CPU, SMALL, WIDE, stack_of, train
from tests.makemore.teachers import taught


def padding(layout: Layout, row: torch.Tensor, config: Config) -> torch.Tensor:
    """Return a copy of the row with the model's values set to zero."""
    rest = row.clone()
    for region in layout.regions(rest, config).values():
        region.zero_()
    return rest


def taught_in_float64(corpus: Corpus, weight: float) -> Corpus:
    """Return the corpus with a teacher whose rows sum to 1 in float64, as the gradient assumes."""
    teacher = taught(corpus, weight).teacher
    assert teacher is not None
    table = teacher.table.astype(float)
    table /= table.sum(1, keepdims=True)
    return dataclasses.replace(corpus, teacher=dataclasses.replace(teacher, table=table))


# Compared with `MLP` under autograd in float64; the neighbours have other shapes and parts.
@pytest.mark.parametrize("direct", [False, True])
@pytest.mark.parametrize("dropout", [0.0, 0.4])
@pytest.mark.parametrize("init", ["kaiming", "lecture"])
@pytest.mark.parametrize("weight", [None, 0.3, 1.0])
def test_gradients_match_autograd(
    small_corpus: Corpus, direct: bool, dropout: float, init: str, weight: float | None
) -> None:
    corpus = small_corpus if weight is None else taught_in_float64(small_corpus, weight)
    config = SMALL.replace(direct=direct, dropout=dropout, init=init)
    configs = [
        SMALL.replace(n_hidden=9, direct=True, dropout=0.1),
        config,
        SMALL.replace(block_size=4, batch_size=7),
    ]
    stack = stack_of(corpus, WIDE, configs, torch.float64)
    train(stack, 1, configs)

    model = MLP(config, len(small_corpus.vocab)).double()
    rows = batch_rows(1, 0, 4, len(small_corpus.train))
    X, Y = small_corpus.train.tensors(2, rows)
    draws = seed_dropout(model.train(), seed=1)
    # The reported loss is that of the true targets, the gradient that of the mixed ones.
    loss = model.loss(X, Y)
    objective = loss
    if corpus.teacher is not None:
        targets = torch.from_numpy(corpus.teacher.targets(rows, Y.numpy()))
        draws.start(0)
        objective = model.loss(X, targets)
    objective.backward()
    row = torch.zeros(stack.step.layout.width, dtype=torch.float64)
    for name, view in stack.step.layout.views(row.unsqueeze(0)).items():
        view.copy_(stack.step.grads[name][1:2])
    for name, region in stack.step.layout.regions(row, config).items():
        truth = getattr(model, name).grad.view(region.shape)
        assert (region - truth).abs().max() <= 1e-10 * truth.abs().max(), name
    assert (padding(stack.step.layout, row, config) == 0).all()
    assert stack.step.loss_sum[1].item() == pytest.approx(loss.item(), rel=1e-12)


# The softmax of such logits underflows and its logarithm is infinite; the loss must be exact.
def test_losses_of_improbable_targets_are_exact(small_corpus: Corpus) -> None:
    stack = stack_of(small_corpus, WIDE, [SMALL], torch.float32)
    model = MLP(SMALL, len(small_corpus.vocab))
    with torch.no_grad():
        model.b2.copy_(torch.linspace(-3000, 0, len(small_corpus.vocab)))
    stack.load(0, SMALL, 0, State.fresh(stack.step.layout.pack(model)), None)
    train(stack, 1, [SMALL])
    X, Y = small_corpus.train.tensors(2, batch_rows(1, 0, 4, len(small_corpus.train)))
    assert stack.step.loss_sum[0].item() == pytest.approx(model.loss(X, Y).item(), rel=1e-5)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_nan_and_inf_stay_in_their_row(small_corpus: Corpus, bad: float) -> None:
    configs = [
        SMALL.replace(optimizer="adamw", dropout=0.1, direct=True, seed=seed) for seed in range(3)
    ]
    clean, dirty = (stack_of(small_corpus, WIDE, configs, torch.float32) for _ in range(2))
    dirty.step.flat[1] = bad
    dirty.step.m[1] = bad
    for stack in (clean, dirty):
        train(stack, 20, configs)
    for row in (0, 2):
        assert torch.equal(clean.step.flat[row], dirty.step.flat[row])
    assert not torch.isfinite(dirty.step.loss_sum[1])
    dirty.clear(1)
    assert torch.isfinite(dirty.step.flat).all()


class HostTraffic(TorchDispatchMode):
    """Records operations that would wait for a device, or copy between device and host."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        waits = func.name() in (
            "aten::_local_scalar_dense",
            "aten::nonzero",
            "aten::scalar_tensor",
            "aten::lift_fresh",
        )
        if waits or any(
            isinstance(x, torch.Tensor) and x.device == CPU
            for x in tree_leaves((args, kwargs, result))
        ):
            self.seen.append(func.name())
        return result


# On the meta device the step takes the path of GPUs without computing anything. A CUDA graph cannot
# contain a wait for the device or a copy from the host, so a chunk must have none.
@pytest.mark.parametrize("soft", [False, True])
def test_chunk_has_no_host_traffic(soft: bool) -> None:
    train_set = TrainSet.__new__(TrainSet)
    train_set.soft = None
    if soft:
        table = torch.empty(50, 27, device="meta")
        train_set.soft = SoftTargets(0.5, table, torch.empty(100, dtype=torch.int32, device="meta"))
    train_set.stream, train_set.positions = torch.empty(2, 100, dtype=torch.int32, device="meta")
    stack = Stack(3, Layout(WIDE, 27), train_set, torch.float32)
    with HostTraffic() as traffic:
        stack.step.chunk(2, Parts(sgd=True, adamw=True, dropout=True, direct=True, decay=True))
    assert traffic.seen == []
    with HostTraffic() as traffic:  # the recorder detects an operation with a number
        torch.where(
            torch.empty(3, dtype=torch.bool, device="meta"), torch.empty(3, device="meta"), 1.0
        )
    assert traffic.seen == ["aten::scalar_tensor"]
