"""The reference engine for tests: plain torch, autograd and torch's optimizers.

It trains one model at a time. The engines are compared with it.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch

from makemore.config import Config
from makemore.data import Corpus
from makemore.draws import batch_rows, dropout_keep
from makemore.engines import Diverged, Engine, Envelope, EvalPoint, Outcome, TrainResult
from makemore.engines.base import RETURN_AFTER, check_finite, next_stop
from makemore.engines.batched.engine import BatchedEngine
from makemore.engines.cpu.engine import CpuEngine
from makemore.engines.fleet.fleet import Fleet
from makemore.engines.fleet.host import ThreadHost
from makemore.model import MLP, n_params
from makemore.schedule import averaging_at, lr_at

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


@dataclass
class ReferenceModel:
    """One model, trained step by step in float32."""

    config: Config
    corpus: Corpus
    history: list[EvalPoint] = field(default_factory=list)
    step: int = 0
    evaluated: int = 0  # step of the last evaluation
    losses: float = 0.0  # sum of the minibatch losses since then
    seconds: float = 0.0
    done: bool = False

    def __post_init__(self) -> None:
        self.model = MLP(self.config, len(self.corpus.vocab))
        self.best = copy.deepcopy(self.model.state_dict())
        kind = {"sgd": torch.optim.SGD, "adamw": torch.optim.AdamW}[self.config.optimizer]
        self.average = MLP(self.config, len(self.corpus.vocab))  # the weights to evaluate and keep
        self.optimizer = kind(self.model.parameters(), lr=self.config.lr, weight_decay=0.0)

    def train_step(self) -> float:
        """Train one step and return the loss of its minibatch."""
        config = self.config
        loss, objective = self.losses_of_batch()
        self.optimizer.zero_grad()
        objective.backward()
        lr = float(lr_at(config, np.array([self.step]))[0])
        self.optimizer.param_groups[0]["lr"] = lr
        with torch.no_grad():
            for parameter in self.model.parameters():
                parameter.mul_(1 - lr * config.weight_decay)
        self.optimizer.step()
        weight = float(averaging_at(config, np.array([self.step]))[0])
        with torch.no_grad():
            self.average.flat.lerp_(self.model.flat, weight)
        self.step += 1
        return loss.item()

    def losses_of_batch(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the loss of the true targets and the one to minimise; equal without a teacher."""
        X, Y = self.batch()
        loss = self.model.loss(X, Y, self.keep())
        teacher = self.corpus.teacher
        if teacher is None:
            return loss, loss
        targets = torch.from_numpy(teacher.targets(self.rows(), Y.numpy()))
        return loss, self.model.loss(X, targets, self.keep())

    def rows(self) -> np.ndarray:
        """Return the numbers of the examples of the next step."""
        config = self.config
        return batch_rows(config.seed, self.step, config.batch_size, len(self.corpus.train))

    def batch(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the examples of the next step."""
        return self.corpus.train.tensors(self.config.block_size, self.rows())

    def keep(self) -> torch.Tensor | None:
        """Return the dropout factors of the next step, or None without dropout."""
        config = self.config
        if config.dropout == 0:
            return None
        shape = (config.batch_size, config.n_hidden)
        return torch.from_numpy(dropout_keep(config.seed, self.step, shape, config.dropout))

    def advance(self) -> Outcome | None:
        """Train to the next evaluation and evaluate; None if RETURN_AFTER passes before it."""
        started = time.perf_counter()
        while self.step < next_stop(self.config, self.evaluated):
            self.losses += self.train_step()
            if time.perf_counter() - started > RETURN_AFTER:
                return None
        try:
            with torch.no_grad():
                dev_loss = self.average.loss(
                    *self.corpus.dev.tensors(self.config.block_size)
                ).item()
            minibatch_loss = self.losses / (self.step - self.evaluated)
            check_finite(self.step, minibatch_loss, dev_loss)
        except Diverged as diverged:
            self.done = True
            return diverged
        self.evaluated = self.step
        self.losses = 0.0
        lr = float(lr_at(self.config, np.array([self.step - 1]))[0])
        point = EvalPoint(self.step, minibatch_loss, dev_loss, lr)
        self.history.append(point)
        if point is min(self.history, key=lambda p: p.dev_loss):
            self.best = copy.deepcopy(self.average.state_dict())
        self.done = self.step == self.config.max_steps
        self.seconds += time.perf_counter() - started
        return point

    def result(self) -> TrainResult:
        self.model.load_state_dict(self.best)
        return TrainResult(
            self.model,
            tuple(self.history),
            n_params(self.config, len(self.corpus.vocab)),
            self.seconds,
        )


class ReferenceEngine:
    """Engine over ReferenceModels; each call trains the model with the nearest evaluation."""

    def __init__(self, corpus: Corpus, capacity: int) -> None:
        self.corpus = corpus
        self.capacity = capacity
        self.slots: dict[int, ReferenceModel] = {}

    def admit(self, config: Config) -> int:
        free = [slot for slot in range(self.capacity) if slot not in self.slots]
        if not free:
            raise RuntimeError("no slot is free")
        self.slots[free[0]] = ReferenceModel(config, self.corpus)
        return free[0]

    def advance(self) -> list[tuple[int, Outcome]]:
        training = [slot for slot, model in self.slots.items() if not model.done]
        if not training:
            return []
        slot = min(
            training, key=lambda slot: next_stop(self.slots[slot].config, self.slots[slot].step)
        )
        outcome = self.slots[slot].advance()
        return [] if outcome is None else [(slot, outcome)]

    def remove(self, slot: int) -> TrainResult:
        return self.slots.pop(slot).result()

    def discard(self, slot: int) -> None:
        del self.slots[slot]

    def close(self) -> None:
        self.slots.clear()


def two_hosts(corpus: Corpus, capacity: int, envelope: Envelope | None = None) -> Fleet:
    """Return a fleet of CPU engines on two threads, or on one for a single slot."""
    shares = [n for n in (capacity - capacity // 2, capacity // 2) if n]
    hosts = [ThreadHost(f"host {i}", partial(CpuEngine, corpus, n)) for i, n in enumerate(shares)]
    return Fleet.of(hosts, len(corpus.vocab))


# Makes each engine for the contract tests; add a line for a new engine.
ENGINES: dict[str, Callable[[Corpus, int, Envelope], Engine]] = {
    "reference": lambda corpus, capacity, envelope: ReferenceEngine(corpus, capacity),
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
    """Train a config with the reference engine."""
    return train_alone(ReferenceEngine(corpus, 1), config)
