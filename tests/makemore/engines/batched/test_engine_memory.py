"""The batched engine when memory runs out or an exception interrupts training."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from makemore.data import Corpus
from makemore.engines import Envelope, EvalPoint, Outcome, OutOfMemory, TrainResult
from makemore.engines.batched.engine import BatchedEngine
from tests.makemore.engines.batched.runs import CPU, TINY, engine_for, run_all

TWENTY = TINY.replace(max_steps=20)
CROWD = [
    TWENTY.replace(seed=1, optimizer="sgd", eval_interval=4),
    TWENTY.replace(seed=2, optimizer="adamw", eval_interval=5, dropout=0.3),
    TWENTY.replace(seed=3, optimizer="adamw", eval_interval=7),
    TWENTY.replace(seed=4, optimizer="sgd", eval_interval=20, dropout=0.3),
    TWENTY.replace(seed=5, optimizer="adamw", eval_interval=4),
]


@pytest.fixture(scope="module")
def undisturbed(small_corpus: Corpus) -> list[TrainResult]:
    return run_all(engine_for(small_corpus, 4, *CROWD), CROWD)


class FullMemory(TorchDispatchMode):
    """Fails the allocations with these numbers, like a full device.

    Operations that write into a tensor or return a view allocate nothing. `clone` never fails,
    because it saves models on the host.
    """

    def __init__(self, *numbers: int) -> None:
        super().__init__()
        self.numbers = set(numbers)
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.name() != "aten::clone" and not any(
            value.alias_info is not None for value in func._schema.returns
        ):
            self.count += 1
            if self.count in self.numbers:
                raise torch.OutOfMemoryError("simulated")
        return func(*args, **(kwargs or {}))


class FullDevice(BatchedEngine):
    """An engine for CROWD on a device that is full at times; the host is never full."""

    def __init__(self, corpus: Corpus, capacity: int, failures: FullMemory) -> None:
        super().__init__(corpus, capacity, Envelope.around(*CROWD), device=CPU)
        self.failures = failures

    def advance(self) -> list[tuple[int, Outcome]]:
        with self.failures:
            return super().advance()


# Memory may run out at any operation: when tensors are allocated, in a step, in an evaluation. The
# results equal those without failures, each evaluation is returned once, and each failure halves
# the capacity.
@given(first=st.integers(1, 9_000), again=st.integers(1, 5_000))
@settings(deadline=None, max_examples=12)
def test_out_of_memory_halves_capacity(
    small_corpus: Corpus, undisturbed: list[TrainResult], first: int, again: int
) -> None:
    failures = FullMemory(first, first + again)
    engine = FullDevice(small_corpus, 4, failures)
    results = run_all(engine, CROWD)
    failed = sum(number <= failures.count for number in failures.numbers)
    assert engine.capacity == (4, 2, 1)[failed]
    for result, truth in zip(results, undisturbed, strict=True):
        assert [point.step for point in result.history] == [point.step for point in truth.history]
        for point, other in zip(result.history, truth.history, strict=True):
            assert point.minibatch_loss == pytest.approx(other.minibatch_loss, rel=1e-4)
            assert point.dev_loss == pytest.approx(other.dev_loss, rel=1e-4)
        torch.testing.assert_close(result.model.flat, truth.model.flat, rtol=1e-3, atol=1e-4)


# Models without a row have steps left, so `advance` returns no empty list before they are trained.
def test_waiting_models_train_without_removal(small_corpus: Corpus) -> None:
    engine = FullDevice(small_corpus, 4, FullMemory(300, 600))
    for seed in range(4):
        engine.admit(TINY.replace(seed=seed))
    seen: list[tuple[int, Outcome]] = []
    while outcomes := engine.advance():
        seen += outcomes
    assert engine.capacity == 1
    steps = {
        slot: [o.step for s, o in seen if s == slot and isinstance(o, EvalPoint)]
        for slot, _ in seen
    }
    assert steps == {slot: [4, 8, 12] for slot in range(4)}
    with pytest.raises(RuntimeError, match="all 1 slots are taken"):
        engine.admit(TINY)
    best = [engine.remove(slot).best.dev_loss for slot in range(4)]
    assert best == [
        pytest.approx(result.best.dev_loss, rel=1e-4)
        for result in run_all(
            engine_for(small_corpus, 1, TINY), [TINY.replace(seed=seed) for seed in range(4)]
        )
    ]


# The first evaluation is the best one here. Its weights must survive a move to the host and back,
# after a failure in a step or in an evaluation (`share` of the allocations of an `advance`).
@pytest.mark.parametrize("share", [0.2, 0.99])
def test_best_weights_survive_out_of_memory(small_corpus: Corpus, share: float) -> None:
    config = CROWD[0].replace(lr=2.0, schedule="constant")
    truth = run_all(engine_for(small_corpus, 4, *CROWD), [config])[0]
    assert truth.best.step == 4 < truth.history[-1].step
    engine = FullDevice(small_corpus, 4, FullMemory())
    slot = engine.admit(config)
    for _ in range(2):
        begun = engine.failures.count
        engine.advance()
    engine.failures.numbers = {
        engine.failures.count + round(share * (engine.failures.count - begun))
    }
    while engine.advance():
        pass
    assert engine.capacity == 2
    result = engine.remove(slot)
    assert [point.step for point in result.history] == [4, 8, 12, 16, 20]
    assert result.best.step == 4
    torch.testing.assert_close(result.model.flat, truth.model.flat)


def test_too_large_model_fails_with_envelope(
    small_corpus: Corpus,
) -> None:
    engine = FullDevice(small_corpus, 2, FullMemory(1, 2))
    slots = [engine.admit(TINY), engine.admit(TINY)]
    outcomes = engine.advance()
    assert [slot for slot, _ in outcomes] == slots
    for _, outcome in outcomes:
        assert isinstance(outcome, OutOfMemory)
        assert "cpu has too little memory for one model of Envelope(block_size=2," in str(outcome)
    assert engine.advance() == []
    for slot in slots:
        assert engine.remove(slot).history == ()
    # The engine uses memory that is free again.
    assert run_all(engine, [TINY])[0].history[-1].step == 12


# An interrupt may stop the models between evaluations; training can resume with equal results.
def test_training_resumes_after_exception(small_corpus: Corpus) -> None:
    class Interrupted(TorchDispatchMode):
        """Raises in an update of the sixth step, the second step after an evaluation."""

        updates = 0

        def __torch_dispatch__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            self.updates += func.name() == "aten::addcmul_"
            if self.updates == 28:  # five updates per step
                raise KeyboardInterrupt
            return func(*args, **(kwargs or {}))

    engine = engine_for(small_corpus, 2, TINY)
    slot = engine.admit(TINY)
    with Interrupted(), pytest.raises(KeyboardInterrupt):
        while engine.advance():
            pass
    while engine.advance():
        pass
    truth = run_all(engine_for(small_corpus, 2, TINY), [TINY])[0]
    assert engine.remove(slot).history == truth.history
