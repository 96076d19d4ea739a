"""The CPU engine beyond the contract: bits, threads, interruption, failures."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from makemore.config import Config
from makemore.data import Corpus
from makemore.engines import EngineFailed, EvalPoint, Outcome, TrainResult
from makemore.engines.cpu.engine import CpuEngine
from makemore.engines.cpu.slot import Slot
from makemore.model import MLP
from tests.makemore.engines.reference_engine import reference, train_alone

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
ENDLESS = BASE.replace(max_steps=4 * 10**9, eval_interval=4 * 10**9)

configs = st.builds(
    Config,
    # The peak that suits the optimizer: far above it a model diverges, and then any two roundings part.
    block_size=st.integers(1, 10),
    n_embd=st.integers(1, 32),
    n_hidden=st.integers(1, 300),
    batch_size=st.integers(1, 256),
    optimizer=st.just("sgd"),
    lr=st.floats(0.01, 0.1),
    schedule=st.sampled_from(["constant", "step", "cosine"]),
    weight_decay=st.sampled_from([0.0, 0.01, 0.1]),
    dropout=st.sampled_from([0.0, 0.2, 0.5]),
    direct=st.booleans(),
    init=st.just("kaiming"),
    seed=st.integers(0, 2**63 - 1),
    max_steps=st.integers(1, 40),
    eval_interval=st.integers(1, 20),
)
either_optimizer = st.tuples(configs, st.booleans()).map(
    lambda drawn: drawn[0].replace(optimizer="adamw", lr=drawn[0].lr / 30) if drawn[1] else drawn[0]
)
few = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
def engine(small_corpus: Corpus) -> Iterator[CpuEngine]:
    engine = CpuEngine(small_corpus, 2)
    yield engine
    engine.close()


# --- a model's result is its own


@settings(few, max_examples=15)
@given(
    several=st.lists(either_optimizer, min_size=2, max_size=6),
    choices=st.randoms(use_true_random=False),
)
def test_models_admitted_and_removed_at_any_boundary_have_the_bits_of_models_alone(
    small_corpus: Corpus, several: list[Config], choices: Any
) -> None:
    engine = CpuEngine(small_corpus, 3)
    waiting = list(enumerate(several))
    slots: dict[int, int] = {}
    results: dict[int, TrainResult] = {}
    while waiting or slots:
        while waiting and len(slots) < 3:
            i, config = waiting.pop()
            slots[engine.admit(config)] = i
        for slot, outcome in engine.advance():
            assert isinstance(outcome, EvalPoint)
            if outcome.step == several[slots[slot]].max_steps or choices.random() < 0.2:
                results[slots.pop(slot)] = engine.remove(slot)
    engine.close()

    for i, config in enumerate(several):
        evaluated = [point.step for point in results[i].history]
        alone = train_alone(CpuEngine(small_corpus, 1), config)
        # One removed early has the beginning of the other's history.
        assert results[i].history == alone.history[: len(evaluated)]
        if evaluated[-1] == config.max_steps:
            assert torch.equal(results[i].model.flat, alone.model.flat)


@settings(few, max_examples=8)
@given(config=either_optimizer)
def test_some_hundred_steps_end_where_autograd_ends(small_corpus: Corpus, config: Config) -> None:
    config = config.replace(max_steps=200, eval_interval=100)
    result = train_alone(CpuEngine(small_corpus, 1), config)

    for point, true in zip(result.history, reference(config, small_corpus).history, strict=True):
        assert point.dev_loss == pytest.approx(true.dev_loss, rel=1e-4)
        assert point.train_loss == pytest.approx(true.train_loss, rel=1e-4)


def test_a_stretch_in_pieces_has_the_bits_of_a_whole_one(
    small_corpus: Corpus, monkeypatch: Any
) -> None:
    config = BASE.replace(optimizer="adamw", dropout=0.3, schedule="cosine")
    whole = train_alone(CpuEngine(small_corpus, 1), config)
    monkeypatch.setattr("makemore.engines.cpu.slot.PIECE", 3)
    pieces = train_alone(CpuEngine(small_corpus, 1), config)

    assert torch.equal(whole.model.flat, pieces.model.flat)
    for a, b in zip(whole.history, pieces.history, strict=True):
        # Only the sum of the losses is split elsewhere.
        assert a.dev_loss == b.dev_loss and a.train_loss == pytest.approx(b.train_loss, rel=1e-12)


# --- threads


def test_slots_train_at_the_same_time(small_corpus: Corpus) -> None:
    together = threading.Barrier(2, timeout=60)

    class Meeting(CpuEngine):
        def _train(self, slot: Slot) -> Outcome | None:
            together.wait()  # passes only when both threads are here
            return super()._train(slot)

    engine = Meeting(small_corpus, 2)
    engine.admit(BASE), engine.admit(BASE.replace(seed=2))
    points: list[tuple[int, Outcome]] = []
    while len(points) < 6:
        points += engine.advance()
    engine.close()


def test_each_slot_keeps_its_own_clock(engine: CpuEngine) -> None:
    endless, short = engine.admit(ENDLESS), engine.admit(BASE)
    steps: list[tuple[int, int]] = []
    while len(steps) < 3:
        steps += [
            (slot, outcome.step)
            for slot, outcome in engine.advance()
            if isinstance(outcome, EvalPoint)
        ]

    # The slow one is in the same stretch all the while, and holds nobody up.
    assert steps == [(short, 4), (short, 8), (short, 12)]
    assert engine.remove(endless).history == ()
    assert engine.advance() == []


# --- interruption


def test_an_exception_of_a_signal_handler_gets_through_and_the_engine_goes_on(
    engine: CpuEngine,
) -> None:
    def interrupt(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    endless = engine.admit(ENDLESS)
    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        with pytest.raises(KeyboardInterrupt):
            engine.advance()
    finally:
        signal.signal(signal.SIGALRM, before)

    short = engine.admit(BASE)
    ((slot, outcome),) = engine.advance()
    assert slot == short and isinstance(outcome, EvalPoint)
    engine.remove(endless)


def test_a_running_model_is_stopped_by_remove_and_by_close(engine: CpuEngine) -> None:
    slots = [engine.admit(ENDLESS), engine.admit(BASE)]
    engine.advance()

    assert engine.remove(slots[0]).seconds > 0
    engine.admit(ENDLESS)
    engine.advance()
    engine.close()  # or the test hangs: the last step is hours away
    with pytest.raises(RuntimeError, match="closed"):
        engine.admit(BASE)
    with pytest.raises(RuntimeError, match="closed"):
        engine.advance()
    engine.close()


# --- failures


class Failing(CpuEngine):
    """Fails in the thread of the model that has `seed` 13."""

    error: BaseException

    def _train(self, slot: Slot) -> Outcome | None:
        if slot.config.seed == 13:
            slot.train = self._raise  # type: ignore[method-assign]
        return super()._train(slot)

    def _raise(self) -> Outcome | None:
        raise self.error


def test_a_bug_in_a_thread_surfaces_and_loses_no_other_outcome(small_corpus: Corpus) -> None:
    engine = Failing(small_corpus, 3)
    engine.error = ZeroDivisionError("a bug")
    slots = [
        engine.admit(BASE),
        engine.admit(BASE.replace(seed=13)),
        engine.admit(BASE.replace(seed=5)),
    ]
    outcomes: dict[int, list[Any]] = {slot: [] for slot in slots}
    raised = 0
    while True:
        try:
            reported = engine.advance()
        except ZeroDivisionError:
            raised += 1
            continue
        if not reported:
            break
        for slot, outcome in reported:
            assert isinstance(outcome, EvalPoint)
            outcomes[slot].append(outcome.step)

    assert raised == 1
    assert outcomes == {slots[0]: [4, 8, 12], slots[1]: [], slots[2]: [4, 8, 12]}
    assert engine.remove(slots[1]).history == ()
    engine.close()


def test_running_out_of_memory_fails_one_model(small_corpus: Corpus) -> None:
    engine = Failing(small_corpus, 2)
    engine.error = MemoryError("Unable to allocate 3 GiB")
    good, bad = engine.admit(BASE), engine.admit(BASE.replace(seed=13))
    outcomes = []
    while reported := engine.advance():
        outcomes += reported

    ((_, failure),) = [(slot, outcome) for slot, outcome in outcomes if slot == bad]
    assert isinstance(failure, EngineFailed) and "3 GiB" in str(failure)
    assert [
        outcome.step
        for slot, outcome in outcomes
        if slot == good and isinstance(outcome, EvalPoint)
    ] == [4, 8, 12]
    # The model itself is whole: it can be taken out and trained elsewhere.
    assert torch.equal(
        engine.remove(bad).model.flat, MLP(BASE.replace(seed=13), len(small_corpus.vocab)).flat
    )
    engine.close()


@pytest.mark.parametrize(
    "changes",
    [
        {"n_hidden": 65_535, "batch_size": 65_535},
        {"n_hidden": 65_535, "n_embd": 65_535, "block_size": 32},
    ],
)
def test_what_the_machine_cannot_hold_is_refused_in_a_sentence(
    engine: CpuEngine, changes: dict[str, int]
) -> None:
    # 64 GiB and 2.5 TiB: the first of them no allocation refuses, since memory is given out on first use.
    if os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") > 2**36:
        pytest.skip("this machine has more than 64 GiB")
    with pytest.raises(ValueError, match=r"GiB.*; lower"):
        engine.admit(BASE.replace(**changes))
    assert engine.admit(BASE) == 0
