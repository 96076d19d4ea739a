"""The CPU engine beyond the contract: bits, threads, interrupts, failures."""

from __future__ import annotations

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
from makemore.engines import EvalPoint, Outcome, OutOfMemory, TrainResult
from makemore.engines.cpu.engine import CpuEngine
from makemore.engines.cpu.slot import Slot
from makemore.engines.threads import ThreadSlot
from makemore.model import MLP
from tests.makemore.engines.table import reference, train_alone

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
    # lr suits SGD. With a much higher one a model diverges, and rounding errors grow without limit.
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


# --- results


@settings(few, max_examples=15)
@given(
    several=st.lists(either_optimizer, min_size=2, max_size=6),
    choices=st.randoms(use_true_random=False),
)
def test_result_bits_do_not_depend_on_neighbours(
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
        # A model that was removed early has the first part of the history.
        assert results[i].history == alone.history[: len(evaluated)]
        if evaluated[-1] == config.max_steps:
            assert torch.equal(results[i].model.flat, alone.model.flat)


@settings(few, max_examples=8)
@given(config=either_optimizer)
def test_losses_match_autograd_after_200_steps(small_corpus: Corpus, config: Config) -> None:
    config = config.replace(max_steps=200, eval_interval=100)
    result = train_alone(CpuEngine(small_corpus, 1), config)

    for point, true in zip(result.history, reference(config, small_corpus).history, strict=True):
        assert point.dev_loss == pytest.approx(true.dev_loss, rel=1e-4)
        assert point.minibatch_loss == pytest.approx(true.minibatch_loss, rel=1e-4)


# --- threads


def test_slots_train_at_the_same_time(small_corpus: Corpus) -> None:
    together = threading.Barrier(2, timeout=60)

    class Meeting(CpuEngine):
        def _train(self, slot: ThreadSlot) -> Outcome | None:
            together.wait()  # returns only if both threads call it at the same time
            return super()._train(slot)

    engine = Meeting(small_corpus, 2)
    engine.admit(BASE), engine.admit(BASE.replace(seed=2))
    points: list[tuple[int, Outcome]] = []
    while len(points) < 6:
        points += engine.advance()
    engine.close()


def test_slow_model_does_not_delay_others(engine: CpuEngine) -> None:
    endless = engine.admit(ENDLESS)
    short = engine.admit(BASE)
    steps: list[tuple[int, int]] = []
    while len(steps) < 3:
        steps += [
            (slot, outcome.step)
            for slot, outcome in engine.advance()
            if isinstance(outcome, EvalPoint)
        ]

    # The slow model trains to its first evaluation all the time and delays no other model.
    assert steps == [(short, 4), (short, 8), (short, 12)]
    assert engine.remove(endless).history == ()
    assert engine.advance() == []


# --- interruption


def test_engine_works_after_signal_exception(
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


def test_remove_and_close_stop_running_models(engine: CpuEngine) -> None:
    slots = [engine.admit(ENDLESS), engine.admit(BASE)]
    engine.advance()

    assert engine.remove(slots[0]).seconds > 0
    engine.admit(ENDLESS)
    engine.advance()
    engine.close()  # otherwise the test hangs: the last step is hours away
    with pytest.raises(RuntimeError, match="closed"):
        engine.admit(BASE)
    with pytest.raises(RuntimeError, match="closed"):
        engine.advance()
    engine.close()


# --- failures


class Failing(CpuEngine):
    """Raises `error` in the thread of the model with seed 13."""

    error: BaseException

    def _train(self, slot: ThreadSlot) -> Outcome | None:
        assert isinstance(slot, Slot)
        if slot.config.seed == 13:
            slot.train = self._raise  # type: ignore[method-assign]
        return super()._train(slot)

    def _raise(self) -> Outcome | None:
        raise self.error


def test_bug_in_thread_is_raised_once(small_corpus: Corpus) -> None:
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


def test_out_of_memory_fails_one_model(small_corpus: Corpus) -> None:
    engine = Failing(small_corpus, 2)
    engine.error = MemoryError("Unable to allocate 3 GiB")
    good = engine.admit(BASE)
    bad = engine.admit(BASE.replace(seed=13))
    outcomes = []
    while reported := engine.advance():
        outcomes += reported

    ((_, failure),) = [(slot, outcome) for slot, outcome in outcomes if slot == bad]
    assert isinstance(failure, OutOfMemory) and "3 GiB" in str(failure)
    assert [
        outcome.step
        for slot, outcome in outcomes
        if slot == good and isinstance(outcome, EvalPoint)
    ] == [4, 8, 12]
    # The model is intact: it can be removed and trained elsewhere.
    assert torch.equal(
        engine.remove(bad).model.flat, MLP(BASE.replace(seed=13), len(small_corpus.vocab)).flat
    )
    engine.close()
