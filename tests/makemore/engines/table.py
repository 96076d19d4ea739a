"""The engines under test, configs for them, and helpers that train models in them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from functools import partial
from typing import Any

import torch

from makemore.config import Config
from makemore.data import Corpus
from makemore.engines import Engine, Envelope, EvalPoint, Outcome, TrainResult
from makemore.engines.autograd import AutogradEngine
from makemore.engines.batched.engine import BatchedEngine
from makemore.engines.cpu.engine import CpuEngine
from makemore.engines.fleet.fleet import Fleet
from makemore.engines.fleet.host import ThreadHost

# Configs of all kinds for the tests of the CPU kernel.
VARIANTS: list[dict[str, Any]] = [
    {},
    {"block_size": 1, "n_embd": 1, "n_hidden": 2, "batch_size": 1},
    {"block_size": 8, "n_embd": 24, "n_hidden": 65, "batch_size": 256, "direct": True},
    {
        "block_size": 10,
        "n_embd": 17,
        "n_hidden": 16,
        "batch_size": 3,
        "direct": True,
        "dropout": 0.3,
    },
    {"n_embd": 2, "n_hidden": 15, "batch_size": 33, "dropout": 0.5, "init": "lecture"},
]


def two_hosts(corpus: Corpus, capacity: int, envelope: Envelope | None = None) -> Fleet:
    """Return a fleet of CPU engines on two threads, or on one for a single slot."""
    shares = [n for n in (capacity - capacity // 2, capacity // 2) if n]
    hosts = [ThreadHost(f"host {i}", partial(CpuEngine, corpus, n)) for i, n in enumerate(shares)]
    return Fleet.of(hosts, len(corpus.vocab))


# Makes each engine for the contract tests; add a line for a new engine.
ENGINES: dict[str, Callable[[Corpus, int, Envelope], Engine]] = {
    "autograd": lambda corpus, capacity, envelope: AutogradEngine(corpus, capacity),
    "fleet": two_hosts,
    "cpu": lambda corpus, capacity, envelope: CpuEngine(corpus, capacity),
    "batched": lambda corpus, capacity, envelope: BatchedEngine(
        corpus, capacity, envelope, device=torch.device("cpu")
    ),
}


def train_alone(engine: Engine, config: Config) -> TrainResult:
    """Train one config in an engine to its end and return the result."""
    slot = engine.admit(config)
    outcomes_of(engine, {slot: config})
    return engine.remove(slot)


def outcomes_of(engine: Engine, configs: dict[int, Config]) -> dict[int, list[Outcome]]:
    """Advance until no model has steps left; return the outcomes of each slot in order."""
    outcomes: dict[int, list[Outcome]] = {slot: [] for slot in configs}

    def trains(slot: int) -> bool:
        last = outcomes[slot][-1] if outcomes[slot] else None
        if isinstance(last, EvalPoint):
            return last.step < configs[slot].max_steps
        return last is None

    while any(trains(slot) for slot in configs):
        for slot, outcome in engine.advance():
            outcomes[slot].append(outcome)
    return outcomes


def reference(config: Config, corpus: Corpus) -> TrainResult:
    """Train an MLP with the autograd engine, which the other engines are compared with."""
    with closing(AutogradEngine(corpus, 1)) as engine:
        return train_alone(engine, config)
