from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from makemore.config import Config
from makemore.data import Corpus
from makemore.draws import batch_rows, dropout_keep
from makemore.engines.base import Envelope
from makemore.engines.batched.layout import Layout
from makemore.engines.batched.plan import Parts, TrainSet
from makemore.engines.batched.stack import Stack, State, bytes_per_slot, room
from makemore.model import MLP

CPU = torch.device("cpu")
SMALL = Config(block_size=2, n_embd=3, n_hidden=5, batch_size=4, seed=1, init="kaiming")
WIDE = Envelope(block_size=4, n_embd=6, n_hidden=9, batch_size=7, direct=True, dropout=True)


def stack_of(
    corpus: Corpus, envelope: Envelope, configs: list[Config], dtype: torch.dtype
) -> Stack:
    layout = Layout(envelope, len(corpus.vocab))
    stack = Stack(len(configs), layout, TrainSet(corpus.train, CPU), dtype)
    for row, config in enumerate(configs):
        stack.load(row, config, 0, State.fresh(layout.pack(MLP(config, len(corpus.vocab)))), None)
    return stack


def train(stack: Stack, steps: int, configs: list[Config]) -> None:
    stack.prepare(steps, Parts.of(configs))
    assert stack.run(steps, Parts.of(configs), lambda: False)


def padding(layout: Layout, row: torch.Tensor, config: Config) -> torch.Tensor:
    """A copy of the row with the model's own values replaced by zeros."""
    rest = row.clone()
    for region in layout.regions(rest, config).values():
        region.zero_()
    return rest


# The truth is model.py under torch's autograd, in float64; the neighbours have other shapes and other parts.
@pytest.mark.parametrize("direct", [False, True])
@pytest.mark.parametrize("dropout", [0.0, 0.4])
@pytest.mark.parametrize("init", ["kaiming", "lecture"])
def test_gradients_equal_autograd(
    small_corpus: Corpus, direct: bool, dropout: float, init: str
) -> None:
    config = SMALL.replace(direct=direct, dropout=dropout, init=init)
    configs = [
        SMALL.replace(n_hidden=9, direct=True, dropout=0.1),
        config,
        SMALL.replace(block_size=4, batch_size=7),
    ]
    stack = stack_of(small_corpus, WIDE, configs, torch.float64)
    train(stack, 1, configs)

    model = MLP(config, len(small_corpus.vocab)).double()
    X, Y = small_corpus.train.tensors(2, batch_rows(1, 0, 4, len(small_corpus.train)))
    keep = torch.from_numpy(dropout_keep(1, 0, (4, 5), dropout)).double() if dropout else None
    loss = model.loss(X, Y, keep)
    loss.backward()
    row = torch.zeros(stack.step.layout.width, dtype=torch.float64)
    for name, view in stack.step.layout.views(row.unsqueeze(0)).items():
        view.copy_(stack.step.grads[name][1:2])
    for name, region in stack.step.layout.regions(row, config).items():
        truth = getattr(model, name).grad.view(region.shape)
        assert (region - truth).abs().max() <= 1e-10 * truth.abs().max(), name
    assert (padding(stack.step.layout, row, config) == 0).all()
    assert stack.step.loss_sum[1].item() == pytest.approx(loss.item(), rel=1e-12)


# Logits this far apart underflow in a softmax, whose logarithm would be infinite; the loss must not be.
def test_losses_of_improbable_targets_are_finite_and_exact(small_corpus: Corpus) -> None:
    stack = stack_of(small_corpus, WIDE, [SMALL], torch.float32)
    model = MLP(SMALL, len(small_corpus.vocab))
    with torch.no_grad():
        model.b2.copy_(torch.linspace(-3000, 0, len(small_corpus.vocab)))
    stack.load(0, SMALL, 0, State.fresh(stack.step.layout.pack(model)), None)
    train(stack, 1, [SMALL])
    X, Y = small_corpus.train.tensors(2, batch_rows(1, 0, 4, len(small_corpus.train)))
    assert stack.step.loss_sum[0].item() == pytest.approx(model.loss(X, Y).item(), rel=1e-5)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_row_at_rest_stays_as_it_is(small_corpus: Corpus, optimizer: str) -> None:
    configs = [
        SMALL.replace(optimizer=optimizer, weight_decay=0.1),
        SMALL.replace(optimizer="adamw"),
    ]
    stack = stack_of(small_corpus, WIDE, configs, torch.float32)
    train(stack, 3, configs)
    stack.step.knobs.stop(0)
    before, beside = stack.save(0), stack.save(1)
    train(stack, 20, configs)
    assert all(torch.equal(x, y) for x, y in zip(before, stack.save(0), strict=True))
    assert not torch.equal(beside.flat, stack.save(1).flat)


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


# What a CUDA graph is warmed up with: steps while all rows rest, in the middle of training, as often as need be.
def test_warming_up_changes_nothing(small_corpus: Corpus) -> None:
    configs = [
        SMALL.replace(optimizer="adamw", schedule="cosine", max_steps=50),
        SMALL.replace(direct=True),
    ]
    plain, warmed = (stack_of(small_corpus, WIDE, configs, torch.float32) for _ in range(2))
    for stack in (plain, warmed):
        train(stack, 5, configs)
    warmed.step.knobs.rest()
    for k in (16, 16, 1):
        warmed.step.chunk(k, Parts.of(configs))
    for stack in (plain, warmed):
        train(stack, 20, configs)
        assert stack.step.knobs["step"].tolist() == [25, 25]
    assert torch.equal(plain.step.flat, warmed.step.flat)
    assert torch.equal(plain.step.loss_sum, warmed.step.loss_sum)


# A stretch is cut into chunks; where they end must not matter, and a saved model goes on as if it had not stopped.
def test_steps_do_not_depend_on_how_they_are_cut(small_corpus: Corpus) -> None:
    configs = [
        SMALL.replace(optimizer="adamw", schedule="cosine", max_steps=50),
        SMALL.replace(dropout=0.2),
    ]
    whole, cut = (stack_of(small_corpus, WIDE, configs, torch.float32) for _ in range(2))
    train(whole, 40, configs)
    train(cut, 1, configs)
    train(cut, 16, configs)
    state = cut.save(0)
    cut.clear(0)
    cut.load(0, configs[0], 17, state, None)
    train(cut, 23, configs)
    assert torch.equal(whole.step.flat, cut.step.flat)
    np.testing.assert_allclose(whole.step.loss_sum, cut.step.loss_sum, rtol=1e-6)


# Tensors made for one model more, against the figure that capacity is computed from.
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("sizes", [(3, 10, 200, 32), (8, 24, 400, 256)])
def test_bytes_per_slot_covers_what_a_stack_holds(
    small_corpus: Corpus, sizes: tuple, dtype: torch.dtype
) -> None:
    block_size, n_embd, n_hidden, batch_size = sizes
    envelope = Envelope(block_size, n_embd, n_hidden, batch_size, direct=True, dropout=True)
    layout, train_set = Layout(envelope, len(small_corpus.vocab)), TrainSet(small_corpus.train, CPU)

    def held(n: int) -> int:
        stack = Stack(n, layout, train_set, dtype)
        step = vars(stack.step)
        tensors = [
            stack.best,
            *step.values(),
            *step["_work"].values(),
            *step["grads"].values(),
            *vars(step["knobs"]).values(),
        ]
        tensors += [x for group in step["_groups"] for x in group]
        storages = {
            x.untyped_storage().data_ptr(): x.untyped_storage().nbytes()
            for x in tensors
            if isinstance(x, torch.Tensor)
        }
        return sum(storages.values())

    assert (
        held(3) - held(2)
        <= bytes_per_slot(envelope, len(small_corpus.vocab), dtype)
        <= 1.6 * (held(3) - held(2))
    )


# Rows of the table of all embeddings are numbered in int32, so there may not be more of them.
def test_room_keeps_the_table_of_embeddings_countable() -> None:
    layout = Layout(Envelope(block_size=32, n_embd=1, n_hidden=65_535, batch_size=1), 27)
    assert (
        room(layout, CPU, torch.float32) * layout.width
        < 2**31
        <= (room(layout, CPU, torch.float32) + 1) * layout.width
    )


class HostTraffic(TorchDispatchMode):
    """Notes the operations that would wait for a device or copy between it and the host."""

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


# On the meta device the step takes the path of GPUs without computing anything. A CUDA graph cannot hold a wait for the
# device or a copy from the host, so there must be none between two evaluations.
def test_a_chunk_neither_waits_for_the_device_nor_copies_from_the_host() -> None:
    train_set = TrainSet.__new__(TrainSet)
    train_set.stream, train_set.positions = torch.empty(2, 100, dtype=torch.int32, device="meta")
    stack = Stack(3, Layout(WIDE, 27), train_set, torch.float32)
    with HostTraffic() as traffic:
        stack.step.chunk(2, Parts(sgd=True, adamw=True, dropout=True, direct=True, decay=True))
    assert traffic.seen == []
    with HostTraffic() as traffic:  # what the recorder must see
        torch.where(
            torch.empty(3, dtype=torch.bool, device="meta"), torch.empty(3, device="meta"), 1.0
        )
    assert traffic.seen == ["aten::scalar_tensor"]
