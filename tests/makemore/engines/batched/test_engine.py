"""The batched engine on a CPU, compared with autograd; its slots, its errors."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from makemore.config import Config
from makemore.data import Corpus
from makemore.engines import Diverged, Envelope, EvalPoint, Outcome
from makemore.engines.batched.engine import BatchedEngine
from makemore.engines.cpu.engine import CpuEngine
from makemore.model import MLP
from makemore.schedule import lr_at
from tests.makemore.engines.batched.runs import CPU, TINY, check_against_alone, engine_for, run_all


def check_padding(engine: BatchedEngine) -> None:
    """Check that all values outside the models are exactly zero."""
    for model in engine._slots.values():
        if engine._stack is None or model.row is None:
            continue
        step = engine._stack.step
        for values in (step.flat, step.m, step.v, engine._stack.best):
            row = values[model.row].clone()
            for region in step.layout.regions(row, model.config).values():
                region.zero_()
            assert (row == 0).all()


@st.composite
def configs(draw: st.DrawFn) -> Config:
    optimizer: Any = draw(st.sampled_from(["sgd", "adamw"]))
    return Config(
        block_size=draw(st.integers(1, 10)),
        n_embd=draw(st.integers(1, 32)),
        n_hidden=draw(st.integers(1, 300)),
        batch_size=draw(st.integers(1, 256)),
        optimizer=optimizer,
        lr=draw(
            st.floats(1e-4, 0.02)
        ),  # above, standard normal weights magnify one bit by 1e10 in a dozen steps
        schedule=draw(st.sampled_from(["constant", "step", "cosine"])),
        weight_decay=draw(st.sampled_from([0.0, 0.1])),
        dropout=draw(st.sampled_from([0.0, 0.3])),
        direct=draw(st.booleans()),
        init=draw(st.sampled_from(["kaiming", "lecture"])),
        max_steps=draw(st.integers(1, 25)),
        eval_interval=draw(st.integers(1, 20)),
        seed=draw(st.integers(0, 2**63 - 1)),
    )


# A model trains as it does alone, with any other models and at any time of admission and removal.
# Both sides are float64: saturated units and Adam's quotients magnify rounding, and float32 could
# hide an error of the method.
@given(
    trained=st.lists(configs(), min_size=2, max_size=4), capacity=st.integers(1, 3), data=st.data()
)
@settings(deadline=None, max_examples=8)
def test_models_match_autograd(
    small_corpus: Corpus, trained: list[Config], capacity: int, data: st.DataObject
) -> None:
    engine = engine_for(small_corpus, capacity, *trained, dtype=torch.float64)
    waiting = list(trained)
    slots: dict[int, Config] = {}
    while waiting or slots:
        while waiting and len(slots) < engine.capacity:
            config = waiting.pop(0)
            slots[engine.admit(config)] = config
        outcomes = engine.advance()
        assert outcomes
        for slot, outcome in outcomes:
            assert isinstance(outcome, EvalPoint)
            check_padding(engine)
            if (
                outcome.step == slots[slot].max_steps or data.draw(st.integers(0, 3)) == 0
            ):  # some leave early
                check_against_alone(slots.pop(slot), small_corpus, engine.remove(slot))


# Different models with each optimizer and schedule, in float64, compared with autograd.
def test_models_match_autograd_for_300_steps(corpus: Corpus) -> None:
    base = Config(max_steps=300, eval_interval=150, n_hidden=40, seed=3)
    unlike = [
        base.replace(block_size=5, n_embd=4, schedule="cosine"),
        base.replace(
            block_size=2, optimizer="adamw", lr=0.01, weight_decay=0.1, init="kaiming", dropout=0.2
        ),
        base.replace(
            batch_size=7, n_hidden=9, direct=True, schedule="constant", optimizer="adamw", lr=0.003
        ),
    ]
    engine = engine_for(corpus, 3, *unlike, dtype=torch.float64)
    for config, result in zip(unlike, run_all(engine, unlike), strict=True):
        check_against_alone(config, corpus, result)


# The two engines share only the draws and no arithmetic; float32, on the whole corpus.
def test_agrees_with_cpu_engine(corpus: Corpus) -> None:
    base = Config(max_steps=300, eval_interval=100, n_hidden=60, init="kaiming", seed=3)
    unlike = [
        base,
        base.replace(
            optimizer="adamw", lr=0.003, dropout=0.2, block_size=5, weight_decay=0.1, direct=True
        ),
    ]
    ours = run_all(engine_for(corpus, 2, *unlike), unlike)
    theirs = run_all(CpuEngine(corpus, 1), unlike)
    for result, other in zip(ours, theirs, strict=True):
        assert [point.dev_loss for point in result.history] == pytest.approx(
            [point.dev_loss for point in other.history], abs=1e-4
        )


# Bit for bit in float32: neighbours that come, go, diverge or need other parts of the step change
# nothing. The model has the same row and the same evaluations in both engines, because vectorised
# code on a CPU may round a value differently at another address.
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_neighbours_change_no_bit(corpus: Corpus, optimizer: Any) -> None:
    config = TINY.replace(optimizer=optimizer, max_steps=60, eval_interval=20, schedule="cosine")
    wild = config.replace(
        lr=1e30, direct=True, dropout=0.5, weight_decay=0.1, n_hidden=9, optimizer="adamw"
    )
    many = [
        config,
        wild,
        config.replace(block_size=5, seed=2),
        config.replace(seed=3),
        wild.replace(optimizer="sgd"),
    ]
    alone = run_all(engine_for(corpus, 3, *many), [config])[0]
    together = run_all(engine_for(corpus, 3, *many), many)[0]
    assert together.history == alone.history
    assert torch.equal(together.model.flat, alone.model.flat)


# Each model has its own evaluation interval; an advance ends when the first model is due.
def test_each_slot_has_own_interval(small_corpus: Corpus) -> None:
    engine = engine_for(small_corpus, 3, TINY)
    slots = [
        engine.admit(TINY.replace(eval_interval=interval, max_steps=last))
        for interval, last in ((4, 10), (6, 6), (5, 9))
    ]
    seen = []
    while outcomes := engine.advance():
        seen.append(
            [
                (slots.index(slot), outcome.step)
                for slot, outcome in outcomes
                if isinstance(outcome, EvalPoint)
            ]
        )
    assert seen == [[(0, 4)], [(2, 5)], [(1, 6)], [(0, 8)], [(2, 9)], [(0, 10)]]


def test_evaluation_has_rate_and_exact_loss(small_corpus: Corpus) -> None:
    config = TINY.replace(schedule="cosine", max_steps=8, eval_interval=3)
    engine = engine_for(small_corpus, 1, config)
    result = run_all(engine, [config])[0]
    assert [point.step for point in result.history] == [3, 6, 8]
    assert [point.lr for point in result.history] == [
        float(x) for x in lr_at(config, np.array([2, 5, 7]))
    ]
    assert result.n_params == result.model.flat.numel()
    assert result.seconds > 0
    X, Y = small_corpus.dev.tensors(config.block_size)
    assert isinstance(result.model, MLP)
    assert result.model.loss(X, Y).item() == pytest.approx(result.best.dev_loss, rel=1e-5)


def test_unevaluated_model_has_initial_weights(small_corpus: Corpus) -> None:
    engine = engine_for(small_corpus, 1, TINY)
    result = engine.remove(engine.admit(TINY))
    assert torch.equal(result.model.flat, MLP(TINY, len(small_corpus.vocab)).flat)
    assert result.history == ()


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_diverged_model_stops_alone(small_corpus: Corpus, optimizer: Any) -> None:
    wild = TINY.replace(lr=1e38, optimizer=optimizer, eval_interval=2)
    engine = engine_for(small_corpus, 2, TINY, wild)
    bad = engine.admit(wild)
    good = engine.admit(TINY)
    seen: list[tuple[int, Outcome]] = []
    while outcomes := engine.advance():
        seen += outcomes
    ((slot, diverged),) = [
        (slot, outcome) for slot, outcome in seen if isinstance(outcome, Diverged)
    ]
    assert (slot, diverged.step) == (bad, 2)
    assert not math.isfinite(diverged.loss)
    assert [
        outcome.step for slot, outcome in seen if slot == good and isinstance(outcome, EvalPoint)
    ] == [4, 8, 12]
    assert engine._stack is not None
    assert torch.isfinite(engine._stack.step.flat).all()
    assert torch.isfinite(engine.remove(bad).model.flat).all()


def test_removed_slot_is_free_again(small_corpus: Corpus) -> None:
    engine = engine_for(small_corpus, 2, TINY)
    first = engine.admit(TINY)
    second = engine.admit(TINY.replace(seed=2))
    with pytest.raises(RuntimeError, match="all 2 slots are taken"):
        engine.admit(TINY)
    engine.advance()
    engine.remove(first)
    engine.advance()
    assert engine._stack is not None and engine._stack.step.knobs["active"].tolist() == [0, 1]
    assert engine.admit(TINY.replace(seed=3)) == first
    with pytest.raises(KeyError):
        engine.remove(second + 1)


def test_closed_engine_raises(small_corpus: Corpus) -> None:
    engine = engine_for(small_corpus, 1, TINY)
    engine.admit(TINY)
    engine.advance()
    engine.close()
    for use in (lambda: engine.admit(TINY), engine.advance):
        with pytest.raises(RuntimeError, match="the engine is closed"):
            use()


@pytest.mark.parametrize(("capacity", "envelope", "message"), [
    (0, Envelope.around(TINY), "capacity must be at least 1, but got capacity=0"),
    (1, Envelope(0, 1, 1, 1), "the envelope's block_size must be at least 1, but got block_size=0"),
])  # fmt: skip
def test_zero_capacity_and_sizes_are_refused(
    small_corpus: Corpus, capacity: int, envelope: Envelope, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        BatchedEngine(small_corpus, capacity, envelope, device=CPU)


def test_config_larger_than_envelope_is_refused(small_corpus: Corpus) -> None:
    engine = engine_for(small_corpus, 1, TINY)
    with pytest.raises(
        ValueError, match="n_hidden is 6, but the engine's envelope allows n_hidden up to 5"
    ):
        engine.admit(TINY.replace(n_hidden=6))
    assert engine.admit(TINY) == 0
