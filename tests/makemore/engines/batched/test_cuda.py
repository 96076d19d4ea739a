"""The batched engine on a GPU: graphs, determinism, memory. Skipped without CUDA; not run yet."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from makemore import draws
from makemore.config import Config
from makemore.data import Corpus
from makemore.engines import Envelope, EvalPoint
from makemore.engines.batched.draws import mix, signed
from makemore.engines.batched.engine import BatchedEngine
from makemore.engines.batched.layout import Layout
from makemore.engines.batched.plan import Knobs, Parts, learning_rates
from makemore.engines.batched.stack import bytes_per_slot, max_models
from makemore.schedule import lr_at
from tests.makemore.engines.batched.runs import check_against_alone, engine_for, run_all

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device here"),
]
BASE = Config(max_steps=100, eval_interval=50, n_hidden=60, init="kaiming", seed=3)
UNLIKE = [
    BASE,
    BASE.replace(
        optimizer="adamw", lr=0.003, dropout=0.2, block_size=5, weight_decay=0.1, direct=True
    ),
    BASE.replace(schedule="cosine", batch_size=50, n_embd=7, n_hidden=33, max_steps=77),
    BASE.replace(optimizer="adamw", lr=0.01, schedule="constant", eval_interval=13),
]


@pytest.fixture
def device() -> Iterator[torch.device]:
    yield torch.device("cuda")
    torch.cuda.empty_cache()


def cuda_engine(
    corpus: Corpus, capacity: int, *configs: Config, dtype: torch.dtype = torch.float32
) -> BatchedEngine:
    return BatchedEngine(
        corpus, capacity, Envelope.around(*configs), device=torch.device("cuda"), dtype=dtype
    )


def test_draws_equal_reference(device: torch.device) -> None:
    bits = np.random.default_rng(0).integers(0, 2**32, 100_000, np.uint32)
    ours = mix(torch.from_numpy(bits.view(np.int32)).to(device)).cpu().numpy().view(np.uint32)
    assert (ours == draws.mix(bits)).all()
    assert signed(2**32 - 1) == -1


@pytest.mark.parametrize(
    "config", [BASE, BASE.replace(schedule="cosine"), BASE.replace(schedule="constant")]
)
def test_learning_rates_equal_schedule(device: torch.device, config: Config) -> None:
    knobs = Knobs(1, device, torch.float64)
    knobs.admit(0, config.replace(max_steps=3000), 0)
    knobs.upload()
    rates = (
        learning_rates(knobs, torch.arange(3000, device=device).unsqueeze(1))[:, 0].cpu().numpy()
    )
    np.testing.assert_allclose(
        rates, lr_at(config.replace(max_steps=3000), np.arange(3000)), rtol=1e-7
    )


# Graphs, chunks and single steps after the last chunk, compared with autograd in float64.
def test_models_match_autograd(small_corpus: Corpus) -> None:
    engine = cuda_engine(small_corpus, 3, *UNLIKE, dtype=torch.float64)
    for config, result in zip(UNLIKE, run_all(engine, UNLIKE), strict=True):
        check_against_alone(config, small_corpus, result)


def test_float32_agrees_with_cpu(corpus: Corpus) -> None:
    ours, host = (run_all(make(corpus, 4, *UNLIKE), UNLIKE) for make in (cuda_engine, engine_for))
    for result, other in zip(ours, host, strict=True):
        assert [p.dev_loss for p in result.history] == pytest.approx(
            [p.dev_loss for p in other.history], abs=1e-4
        )


def test_same_training_gives_same_bits(corpus: Corpus) -> None:
    first, second = (run_all(cuda_engine(corpus, 4, *UNLIKE), UNLIKE) for _ in range(2))
    for a, b in zip(first, second, strict=True):
        assert a.history == b.history
        assert torch.equal(a.model.flat, b.model.flat)


# The host may wait for the device only at evaluations; torch raises at the waits that it detects.
@pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype")
def test_training_does_not_wait_for_device(corpus: Corpus) -> None:
    engine = cuda_engine(corpus, 4, *UNLIKE)
    for config in UNLIKE:
        engine.admit(config)
    engine.advance()
    stack = engine._stack
    parts = Parts.of(UNLIKE)
    assert stack is not None
    stack.prepare(50, parts)
    torch.cuda.set_sync_debug_mode("error")
    try:
        assert stack.run(50, parts, lambda: False)
    finally:
        torch.cuda.set_sync_debug_mode("default")


# Graphs do not depend on the models: with the same optional parts none is captured again.
def test_graphs_are_captured_once(corpus: Corpus) -> None:
    engine = cuda_engine(corpus, 2, BASE)
    run_all(engine, [BASE])
    assert engine._stack is not None and engine._stack._graphs is not None
    captured = dict(engine._stack._graphs._graphs)
    assert len(captured) == 2  # a chunk, and a single step
    run_all(engine, [BASE.replace(seed=seed, batch_size=16 + seed) for seed in range(5)])
    assert engine._stack._graphs._graphs == captured


# Real out-of-memory errors: the process may use too little of the device for all slots.
def test_full_device_halves_capacity(corpus: Corpus, device: torch.device) -> None:
    config = BASE.replace(n_hidden=400, batch_size=256, max_steps=20, eval_interval=10)
    many = [config.replace(seed=seed) for seed in range(64)]
    slot = bytes_per_slot(Envelope.around(config), len(corpus.vocab))
    expected = run_all(cuda_engine(corpus, 8, config), many[:8])
    torch.cuda.empty_cache()
    _, total = torch.cuda.mem_get_info(device)
    torch.cuda.set_per_process_memory_fraction(
        (torch.cuda.memory_reserved(device) + 40 * slot + 2**28) / total, device
    )
    try:
        engine = cuda_engine(corpus, 512, config)
        results = run_all(engine, many)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, device)
    assert 1 <= engine.capacity < 512
    assert all([point.step for point in result.history] == [10, 20] for result in results)
    for result, other in zip(results, expected, strict=False):
        assert result.best.dev_loss == pytest.approx(other.best.dev_loss, abs=1e-4)


def test_capacity_fits_free_memory(corpus: Corpus, device: torch.device) -> None:
    envelope = Envelope(block_size=10, n_embd=64, n_hidden=2048, batch_size=2048)
    engine = BatchedEngine(corpus, 10**6, envelope, device=device)
    assert (
        1
        <= engine.capacity
        == max_models(Layout(envelope, len(corpus.vocab)), device, torch.float32)
        < 10**6
    )


def test_tf32_is_off(corpus: Corpus) -> None:
    cuda_engine(corpus, 1, BASE)
    assert torch.get_float32_matmul_precision() == "highest"


def test_evaluations_while_host_is_ahead(corpus: Corpus) -> None:
    config = BASE.replace(max_steps=5000, eval_interval=2500)
    engine = cuda_engine(corpus, 2, config)
    (result,) = run_all(engine, [config])
    assert [point.step for point in result.history if isinstance(point, EvalPoint)] == [2500, 5000]
