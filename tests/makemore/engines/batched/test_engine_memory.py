from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from makemore.data import Corpus
from makemore.engines import EngineFailed, Envelope, EvalPoint, Outcome, TrainResult
from makemore.engines.batched.engine import BatchedEngine
from tests.makemore.engines.batched.runs import CPU, TINY, engine_for, run_all

CROWD = [
    TINY.replace(seed=seed, optimizer=optimizer, eval_interval=interval, dropout=dropout, max_steps=20)
    for seed, optimizer, interval, dropout in (
        (1, "sgd", 4, 0.0), (2, "adamw", 5, 0.3), (3, "adamw", 7, 0.0), (4, "sgd", 20, 0.3), (5, "adamw", 4, 0.0)
    )
]  # fmt: skip


@pytest.fixture(scope="module")
def undisturbed(small_corpus: Corpus) -> list[TrainResult]:
    return run_all(engine_for(small_corpus, 4, *CROWD), CROWD)


class OutOfMemory(TorchDispatchMode):
    """Fails the allocations with these numbers, as a full device would.

    Operations that write into a tensor, or view one, allocate nothing. `clone` is spared: saving a model uses it on the
    host.
    """

    def __init__(self, *numbers: int) -> None:
        super().__init__()
        self.numbers, self.count = set(numbers), 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.name() != "aten::clone" and not any(
            value.alias_info is not None for value in func._schema.returns
        ):
            self.count += 1
            if self.count in self.numbers:
                raise torch.OutOfMemoryError("simulated")
        return func(*args, **(kwargs or {}))


class FullDevice(BatchedEngine):
    """Holds CROWD, on a device that is full at times; the host never is."""

    def __init__(self, corpus: Corpus, capacity: int, failures: OutOfMemory) -> None:
        super().__init__(corpus, capacity, Envelope.around(*CROWD), device=CPU)
        self.failures = failures

    def advance(self) -> list[tuple[int, Outcome]]:
        with self.failures:
            return super().advance()


# Memory may run out at any operation: while tensors are made, in the middle of a step, in an evaluation. The results
# are those of a run that met no such thing, each evaluation is returned once, and half the models are trained at once.
@given(first=st.integers(1, 9_000), again=st.integers(1, 5_000))
@settings(deadline=None, max_examples=12)
def test_out_of_memory_halves_capacity(
    small_corpus: Corpus, undisturbed: list[TrainResult], first: int, again: int
) -> None:
    failures = OutOfMemory(first, first + again)
    engine = FullDevice(small_corpus, 4, failures)
    results = run_all(engine, CROWD)
    failed = sum(number <= failures.count for number in failures.numbers)
    assert engine.capacity == (4, 2, 1)[failed]
    for result, truth in zip(results, undisturbed, strict=True):
        assert [point.step for point in result.history] == [point.step for point in truth.history]
        for point, other in zip(result.history, truth.history, strict=True):
            assert point.train_loss == pytest.approx(other.train_loss, rel=1e-4)
            assert point.dev_loss == pytest.approx(other.dev_loss, rel=1e-4)
        torch.testing.assert_close(result.model.flat, truth.model.flat, rtol=1e-3, atol=1e-4)


# Models that wait for room have steps left, so an advance must not come back empty before they were trained.
def test_waiting_models_train_without_removal(small_corpus: Corpus) -> None:
    engine = FullDevice(small_corpus, 4, OutOfMemory(300, 600))
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
    with pytest.raises(RuntimeError, match="no slot is free"):
        engine.admit(TINY)
    best = [engine.remove(slot).best.dev_loss for slot in range(4)]
    assert best == [
        pytest.approx(result.best.dev_loss, rel=1e-4)
        for result in run_all(
            engine_for(small_corpus, 1, TINY), [TINY.replace(seed=seed) for seed in range(4)]
        )
    ]


# The best evaluation is the first one here: its weights must outlive a move to the host and back, whether memory runs
# out in a step (a share of an advance's allocations) or in an evaluation.
@pytest.mark.parametrize("share", [0.2, 0.99])
def test_best_weights_survive_out_of_memory(small_corpus: Corpus, share: float) -> None:
    config = CROWD[0].replace(lr=2.0, schedule="constant")
    truth = run_all(engine_for(small_corpus, 4, *CROWD), [config])[0]
    assert truth.best.step == 4 < truth.history[-1].step
    engine = FullDevice(small_corpus, 4, OutOfMemory())
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
    engine = FullDevice(small_corpus, 2, OutOfMemory(1, 2))
    slots = [engine.admit(TINY), engine.admit(TINY)]
    outcomes = engine.advance()
    assert [slot for slot, _ in outcomes] == slots
    for _, outcome in outcomes:
        assert isinstance(outcome, EngineFailed)
        assert "cpu has too little memory for one model of Envelope(block_size=2," in str(outcome)
    assert engine.advance() == []
    for slot in slots:
        assert engine.remove(slot).history == ()
    # Memory that has come free again is used again.
    assert run_all(engine, [TINY])[0].history[-1].step == 12


# An interrupt can leave the models in the middle of a stretch; whoever goes on gets the same results all the same.
def test_training_resumes_after_exception(small_corpus: Corpus) -> None:
    class Interrupted(TorchDispatchMode):
        """Ctrl-C in the middle of an update of the sixth step, which is the second of its stretch."""

        updates = 0

        def __torch_dispatch__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            self.updates += func.name() == "aten::addcmul_"
            if self.updates == 28:  # five parameters a step
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
