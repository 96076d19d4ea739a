"""Rows of the batched engine: inactive rows, saved models, memory per model."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from makemore.data import Corpus
from makemore.engines.base import Envelope
from makemore.engines.batched.layout import Layout
from makemore.engines.batched.plan import Parts, TrainSet
from makemore.engines.batched.stack import Stack, bytes_per_slot, is_out_of_memory, max_models
from tests.makemore.engines.batched.runs import CPU, SMALL, WIDE, stack_of, train


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_inactive_row_does_not_change(small_corpus: Corpus, optimizer: str) -> None:
    configs = [
        SMALL.replace(optimizer=optimizer, weight_decay=0.1),
        SMALL.replace(optimizer="adamw"),
    ]
    stack = stack_of(small_corpus, WIDE, configs, torch.float32)
    train(stack, 3, configs)
    stack.step.knobs.deactivate(0)
    inactive = stack.save(0)
    active = stack.save(1)
    train(stack, 20, configs)
    assert all(torch.equal(x, y) for x, y in zip(inactive, stack.save(0), strict=True))
    assert not torch.equal(active.flat, stack.save(1).flat)


# A CUDA graph is warmed up by steps with all rows inactive, at any time and any number of times.
def test_warm_up_changes_nothing(small_corpus: Corpus) -> None:
    configs = [
        SMALL.replace(optimizer="adamw", schedule="cosine", max_steps=50),
        SMALL.replace(direct=True),
    ]
    plain, warmed = (stack_of(small_corpus, WIDE, configs, torch.float32) for _ in range(2))
    for stack in (plain, warmed):
        train(stack, 5, configs)
    warmed.step.knobs.deactivate_all()
    for k in (16, 16, 1):
        warmed.step.chunk(k, Parts.of(configs))
    for stack in (plain, warmed):
        train(stack, 20, configs)
        assert stack.step.knobs["step"].tolist() == [25, 25]
    assert torch.equal(plain.step.flat, warmed.step.flat)
    assert torch.equal(plain.step.loss_sum, warmed.step.loss_sum)


# Training is split into chunks at any step; a saved model continues as if it had not stopped.
def test_steps_do_not_depend_on_chunks(small_corpus: Corpus) -> None:
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


# Compare the size of the tensors for one more model with the size that the capacity is based on.
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("sizes", [(3, 10, 200, 32), (8, 24, 400, 256)])
def test_bytes_per_slot_covers_real_tensors(
    small_corpus: Corpus, sizes: tuple, dtype: torch.dtype
) -> None:
    block_size, n_embd, n_hidden, batch_size = sizes
    envelope = Envelope(block_size, n_embd, n_hidden, batch_size, direct=True, dropout=True)
    layout = Layout(envelope, len(small_corpus.vocab))
    train_set = TrainSet(small_corpus.train, CPU)

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


# Rows of the table of all embeddings are numbered in int32, which limits their number.
def test_max_models_keeps_table_rows_int32() -> None:
    layout = Layout(Envelope(block_size=32, n_embd=1, n_hidden=65_535, batch_size=1), 27)
    n = max_models(layout, CPU, torch.float32)
    assert n * layout.width < 2**31 <= (n + 1) * layout.width


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("any text"), True),
        (RuntimeError("MPS backend out of memory (MPS allocated: 1 GB)"), True),
        (RuntimeError("CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"), True),
        (RuntimeError("shapes do not match"), False),
    ],
)
def test_out_of_memory_is_recognised(error: RuntimeError, expected: bool) -> None:
    assert is_out_of_memory(error) == expected
