"""Slots of the CPU engine: numbers of contexts, pieces of training, the memory check."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest
import torch

from makemore.config import Config
from makemore.data import Corpus
from makemore.engines.cpu.engine import CpuEngine
from makemore.engines.cpu.slot import number_contexts
from makemore.errors import UserError
from tests.makemore.engines.table import train_alone

BASE = Config(
    block_size=3,
    n_embd=4,
    n_hidden=20,
    batch_size=16,
    lr=0.1,
    max_steps=12,
    eval_interval=4,
    init="kaiming",
)


@pytest.mark.parametrize("block_size", [1, 3, 32])
def test_equal_contexts_share_a_number(corpus: Corpus, block_size: int) -> None:
    numbers = number_contexts(corpus.dev, block_size)
    contexts = corpus.dev.contexts(block_size)

    different, inverse = np.unique(contexts, axis=0, return_inverse=True)
    pairs = np.unique(np.stack([numbers, inverse.ravel()]), axis=1)
    assert numbers.dtype == np.int32 and pairs.shape[1] == len(different) == numbers.max() + 1


def test_split_kernel_calls_give_same_bits(small_corpus: Corpus, monkeypatch: Any) -> None:
    config = BASE.replace(optimizer="adamw", dropout=0.3, schedule="cosine")
    whole = train_alone(CpuEngine(small_corpus, 1), config)
    monkeypatch.setattr("makemore.engines.cpu.slot.STEPS_PER_CALL", 3)
    pieces = train_alone(CpuEngine(small_corpus, 1), config)

    assert torch.equal(whole.model.flat, pieces.model.flat)
    for a, b in zip(whole.history, pieces.history, strict=True):
        # The sum of the losses is split differently, so it may round differently.
        assert a.dev_loss == b.dev_loss
        assert a.minibatch_loss == pytest.approx(b.minibatch_loss, rel=1e-12)


@pytest.mark.parametrize(
    "changes",
    [
        {"n_hidden": 65_535, "batch_size": 65_535},
        {"n_hidden": 65_535, "n_embd": 65_535, "block_size": 32},
    ],
)
def test_model_larger_than_memory_is_refused(small_corpus: Corpus, changes: dict[str, int]) -> None:
    # 64 GiB and 2.5 TiB. Linux would accept the allocation of 64 GiB, because it overcommits.
    if os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") > 2**36:
        pytest.skip("this machine has more than 64 GiB")
    engine = CpuEngine(small_corpus, 2)
    with pytest.raises(UserError, match=r"GiB.*; lower"):
        engine.admit(BASE.replace(**changes))
    # The refused model takes no slot.
    assert engine.admit(BASE) == 0
    engine.close()
