"""The contract of all engines, as in the docstrings of engines/base.py; runs on each engine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch

from makemore.config import Config
from makemore.data import Corpus
from makemore.engines import Diverged, Engine, Envelope, EvalPoint, Outcome, TrainResult
from makemore.evaluation import evaluate
from makemore.model import MLP, n_params
from makemore.schedule import lr_at
from tests.makemore.engines.table import ENGINES, outcomes_of, reference, train_alone
from tests.makemore.teachers import taught

BASE = Config(
    block_size=3,
    n_embd=4,
    n_hidden=20,
    batch_size=16,
    lr=0.1,
    max_steps=10,
    eval_interval=4,
    init="kaiming",
    seed=1,
)
ENDLESS = BASE.replace(max_steps=10**8, eval_interval=10**7)
LARGEST = Envelope(
    block_size=5, n_embd=6, n_hidden=30, batch_size=32, direct=True, dropout=True, ema=True
)
# Configs of all kinds and sizes, as an engine trains them together.
TABLE: list[dict[str, Any]] = [
    {},
    {"optimizer": "adamw", "lr": 3e-3, "weight_decay": 0.1, "schedule": "cosine"},
    {
        "block_size": 1,
        "n_embd": 1,
        "n_hidden": 1,
        "batch_size": 1,
        "lr": 0.01,
        "schedule": "constant",
    },
    {"block_size": 5, "n_embd": 6, "n_hidden": 30, "batch_size": 32, "direct": True},
    {"dropout": 0.4, "weight_decay": 0.01, "batch_size": 7},
    {"ema": 0.2, "optimizer": "adamw", "lr": 1e-2, "schedule": "cosine"},
    {"ema": 1.0, "n_hidden": 11},
    {
        "dropout": 0.2,
        "direct": True,
        "optimizer": "adamw",
        "lr": 1e-2,
        "block_size": 2,
        "init": "lecture",
    },
]
Make = Callable[..., Engine]


@pytest.fixture(params=ENGINES)
def make(request: pytest.FixtureRequest, small_corpus: Corpus) -> Iterator[Make]:
    """Return a function that makes the engine under test; all engines are closed after the test."""
    made: list[Engine] = []

    def make(capacity: int, corpus: Corpus = small_corpus) -> Engine:
        made.append(ENGINES[request.param](corpus, capacity, LARGEST))
        return made[-1]

    yield make
    for engine in made:
        engine.close()


def steps_of(outcomes: list[Outcome]) -> list[int]:
    return [outcome.step for outcome in outcomes if isinstance(outcome, EvalPoint)]


# --- admit


def test_full_engine_refuses_until_removal(make: Make) -> None:
    engine = make(2)
    slots = [engine.admit(BASE), engine.admit(BASE)]

    assert len(set(slots)) == engine.capacity == 2
    with pytest.raises(RuntimeError):
        engine.admit(BASE)
    engine.remove(slots[1])
    assert engine.admit(BASE) != slots[0]
    with pytest.raises(RuntimeError):
        engine.admit(BASE)


def test_reused_slot_keeps_no_state(make: Make) -> None:
    engine = make(1)
    first = train_alone(engine, BASE)
    second = train_alone(engine, BASE)

    assert first.history == second.history and torch.equal(first.model.flat, second.model.flat)


# --- advance


def test_evaluations_at_interval_multiples_and_end(make: Make) -> None:
    engine = make(3)
    configs = {engine.admit(c): c for c in (BASE.replace(max_steps=n) for n in (12, 10, 3))}
    outcomes = outcomes_of(engine, configs)

    assert [steps_of(reported) for reported in outcomes.values()] == [[4, 8, 12], [4, 8, 10], [3]]


def test_idle_engine_returns_empty_list(make: Make) -> None:
    engine = make(1)

    assert engine.advance() == []
    slot = engine.admit(BASE)
    outcomes_of(engine, {slot: BASE})
    # A finished model keeps its slot and does not train further.
    assert engine.advance() == []
    with pytest.raises(RuntimeError):
        engine.admit(BASE)
    assert steps_of(list(engine.remove(slot).history)) == [4, 8, 10]


def test_outcome_has_last_learning_rate(make: Make) -> None:
    engine = make(1)
    config = BASE.replace(schedule="cosine")
    slot = engine.admit(config)
    points = outcomes_of(engine, {slot: config})[slot]

    assert [point.lr for point in points if isinstance(point, EvalPoint)] == lr_at(
        config, np.array([3, 7, 9])
    ).tolist()


@pytest.mark.parametrize("changes", TABLE)
def test_losses_match_reference(make: Make, small_corpus: Corpus, changes: dict[str, Any]) -> None:
    config = BASE.replace(**{"max_steps": 30, "eval_interval": 10, **changes})
    result = train_alone(make(1), config)
    expected = reference(config, small_corpus)

    for point, true in zip(result.history, expected.history, strict=True):
        assert point.step == true.step and point.lr == true.lr
        assert point.minibatch_loss == pytest.approx(true.minibatch_loss, rel=1e-4)
        assert point.dev_loss == pytest.approx(true.dev_loss, rel=1e-4)
    torch.testing.assert_close(result.model.flat, expected.model.flat, rtol=1e-3, atol=1e-4)


# The teacher's contexts are longer than those of some configs, and shorter than those of others.
@pytest.mark.parametrize("weight", [0.4, 1.0])
@pytest.mark.parametrize("changes", TABLE)
def test_losses_with_teacher_match_reference(
    make: Make, small_corpus: Corpus, changes: dict[str, Any], weight: float
) -> None:
    corpus = taught(small_corpus, weight)
    config = BASE.replace(**{"max_steps": 20, "eval_interval": 10, **changes})
    result = train_alone(make(1, corpus), config)
    expected = reference(config, corpus)

    for point, true in zip(result.history, expected.history, strict=True):
        assert point.minibatch_loss == pytest.approx(true.minibatch_loss, rel=1e-4)
        assert point.dev_loss == pytest.approx(true.dev_loss, rel=1e-4)
    torch.testing.assert_close(result.model.flat, expected.model.flat, rtol=1e-3, atol=1e-4)
    assert not torch.allclose(result.model.flat, reference(config, small_corpus).model.flat)


def test_teacher_of_weight_zero_changes_no_bit(make: Make, small_corpus: Corpus) -> None:
    plain = train_alone(make(1), BASE)
    result = train_alone(make(1, taught(small_corpus, 0.0)), BASE)

    assert result.history == plain.history and torch.equal(result.model.flat, plain.model.flat)


def test_result_does_not_depend_on_neighbours(make: Make) -> None:
    configs = [BASE.replace(**{"max_steps": 13, **changes}) for changes in TABLE]
    alone = [train_alone(make(1), config) for config in configs]
    engine = make(3)
    waiting = list(range(len(configs)))
    slots: dict[int, int] = {}
    together: dict[int, TrainResult] = {}
    while waiting or slots:
        while waiting and len(slots) < 3:
            i = waiting.pop(0)
            slots[engine.admit(configs[i])] = i
        for slot, outcome in engine.advance():
            if isinstance(outcome, EvalPoint) and outcome.step == 13:
                together[slots.pop(slot)] = engine.remove(slot)

    for i, result in enumerate(alone):
        for a, b in zip(result.history, together[i].history, strict=True):
            assert a.step == b.step and a.dev_loss == pytest.approx(b.dev_loss, rel=1e-5)


def test_advance_returns_before_a_late_evaluation(make: Make) -> None:
    engine = make(1)
    slot = engine.admit(ENDLESS)

    assert engine.advance() == []
    assert engine.remove(slot).history == ()


# --- divergence


def test_divergence_does_not_affect_neighbour(make: Make) -> None:
    engine = make(2)
    wild = engine.admit(BASE.replace(lr=1e30))
    tame = engine.admit(BASE)
    outcomes = outcomes_of(engine, {wild: BASE, tame: BASE})

    (diverged,) = outcomes[wild]
    assert isinstance(diverged, Diverged) and 1 <= diverged.step <= 4
    assert steps_of(outcomes[tame]) == [4, 8, 10]
    assert engine.advance() == []
    # It was never evaluated, so it has its initial weights.
    result = engine.remove(wild)
    assert result.history == () and torch.equal(
        result.model.flat, MLP(BASE, result.model.vocab_size).flat
    )


# --- remove


def test_unevaluated_model_has_initial_weights(make: Make) -> None:
    engine = make(1)
    result = engine.remove(engine.admit(BASE))

    initial = MLP(BASE, result.model.vocab_size)
    assert result.history == () and result.n_params == n_params(BASE, result.model.vocab_size)
    assert torch.equal(result.model.flat, initial.flat)
    with pytest.raises(ValueError, match="never evaluated"):
        _ = result.best


def test_removed_model_has_reported_history(make: Make, small_corpus: Corpus) -> None:
    engine = make(2)
    slot = engine.admit(BASE.replace(max_steps=1000))
    other = engine.admit(BASE)
    reported: dict[int, list[Outcome]] = {slot: [], other: []}

    def advance() -> None:
        for number, outcome in engine.advance():
            reported[number].append(outcome)

    while len(reported[slot]) < 2:
        advance()
    result = engine.remove(slot)

    assert list(result.history) == reported[slot] and steps_of(reported[slot]) == [4, 8]
    assert evaluate(result.model, small_corpus.dev) == pytest.approx(result.best.dev_loss, rel=1e-5)
    while steps_of(reported[other]) != [4, 8, 10]:
        advance()
    assert list(engine.remove(other).history) == reported[other]


def test_discarded_slot_is_free(make: Make) -> None:
    engine = make(2)
    endless = engine.admit(ENDLESS)
    slot = engine.admit(BASE)
    while not engine.advance():
        pass
    engine.discard(slot)
    engine.discard(endless)
    again = [engine.admit(BASE), engine.admit(BASE)]

    outcomes = outcomes_of(engine, dict.fromkeys(again, BASE))
    assert [steps_of(reported) for reported in outcomes.values()] == [[4, 8, 10], [4, 8, 10]]


def test_result_has_best_weights(make: Make, small_corpus: Corpus) -> None:
    # Enough steps to overfit 24 words, so that the dev loss rises at the end.
    config = BASE.replace(
        optimizer="adamw", lr=0.02, schedule="constant", max_steps=200, eval_interval=20
    )
    result = train_alone(make(1), config)

    assert result.best.step < 200 and result.best.dev_loss < result.history[-1].dev_loss
    assert evaluate(result.model, small_corpus.dev) == pytest.approx(result.best.dev_loss, rel=1e-5)
    assert result.seconds > 0


# --- close


def test_close_stops_running_models(make: Make) -> None:
    engine = make(2)
    engine.admit(BASE)
    engine.admit(ENDLESS)
    engine.advance()
    engine.close()  # otherwise the test hangs


def test_unused_engine_can_be_closed(make: Make) -> None:
    make(3).close()
