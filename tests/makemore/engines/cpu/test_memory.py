"""Memory of the CPU kernel: alignment, copies of a model, and padding."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from makemore.config import Config
from makemore.data import Corpus
from makemore.engines.cpu.lanes import LANES
from makemore.engines.cpu.memory import (
    make_soft_targets,
    make_weights,
    padded,
    read_model,
    sizes_of,
    write_model,
    zeros,
)
from makemore.engines.cpu.slot import Slot
from makemore.model import MLP
from tests.makemore.engines.table import VARIANTS
from tests.makemore.teachers import taught

BASE = Config(
    block_size=3, n_embd=10, n_hidden=200, batch_size=32, max_steps=10, init="kaiming", seed=3
)


@pytest.mark.parametrize("changes", VARIANTS)
def test_padding_stays_zero(small_corpus: Corpus, changes: dict[str, Any]) -> None:
    config = BASE.replace(optimizer="adamw", lr=0.01, weight_decay=0.1, **changes)
    slot = Slot(config, small_corpus)
    slot.run(10)
    model = MLP(config, len(small_corpus.vocab))
    write_model(slot.weights, model)
    trained = slot.weights.flat.copy()
    slot.weights.flat[:] = 0
    read_model(slot.weights, model)

    assert np.array_equal(slot.weights.flat, trained)


@pytest.mark.parametrize("shape", [(1,), (3, 16), (7, 5), (0, 16)])
def test_arrays_start_at_cache_lines(shape: tuple[int, ...]) -> None:
    array = zeros(*shape)

    assert array.shape == shape and array.dtype == np.float32 and not array.any()
    assert array.ctypes.data % 64 == 0 or array.size == 0


def test_padded_rounds_up_to_whole_registers() -> None:
    assert [padded(n) for n in (0, 1, LANES, LANES + 1)] == [0, LANES, LANES, 2 * LANES]


@pytest.mark.parametrize("direct", [True, False])
def test_write_model_inverts_read_model(direct: bool) -> None:
    config = BASE.replace(n_embd=3, n_hidden=5, direct=direct)
    model = MLP(config, 27)
    other = MLP(config.replace(seed=4), 27)
    weights = make_weights(sizes_of(config, 27), direct)
    read_model(weights, model)
    write_model(weights, other)

    assert torch.equal(model.flat, other.flat)


# Ray's arrays are read-only, and the kernel would be compiled again for them.
def test_soft_targets_are_padded_copies(small_corpus: Corpus) -> None:
    V = len(small_corpus.vocab)
    teacher = taught(small_corpus, 0.25).teacher
    assert teacher is not None
    teacher.table.flags.writeable = False
    teacher.rows.flags.writeable = False
    soft = make_soft_targets(teacher, V)

    np.testing.assert_allclose(soft.table[:, :V], 0.25 * teacher.table, rtol=1e-6)
    assert np.all(soft.table[:, V:] == 0) and soft.table.shape[1] == padded(V)
    assert np.array_equal(soft.rows, teacher.rows) and soft.true_weight == 0.75
    assert soft.table.flags.writeable and soft.rows.flags.writeable
    # Without a teacher the arrays have the same types, so the kernel is compiled once.
    empty = make_soft_targets(None, V)
    assert len(empty.rows) == len(empty.table) == 0 and empty.true_weight == 1
    assert [x.dtype for x in empty] == [x.dtype for x in soft]
