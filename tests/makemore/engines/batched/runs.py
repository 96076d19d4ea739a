"""Helpers for the tests of the batched engine: small configs, engines, stacks, a model alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from makemore.config import Config
from makemore.data import Corpus
from makemore.draws import batch_rows
from makemore.dropout import seed_dropout
from makemore.engines import Engine, Envelope, EvalPoint, TrainResult
from makemore.engines.batched.engine import BatchedEngine
from makemore.engines.batched.layout import Layout
from makemore.engines.batched.plan import Parts, SoftTargets, TrainSet
from makemore.engines.batched.stack import Stack, State
from makemore.model import MLP
from makemore.schedule import lr_at

CPU = torch.device("cpu")
TINY = Config(
    block_size=2,
    n_embd=3,
    n_hidden=5,
    batch_size=4,
    max_steps=12,
    eval_interval=4,
    lr=0.05,
    init="kaiming",
    seed=1,
)

SMALL = Config(block_size=2, n_embd=3, n_hidden=5, batch_size=4, seed=1, init="kaiming")
WIDE = Envelope(block_size=4, n_embd=6, n_hidden=9, batch_size=7, direct=True, dropout=True)


def engine_for(
    corpus: Corpus, capacity: int, *configs: Config, dtype: torch.dtype = torch.float32
) -> BatchedEngine:
    """Make an engine on the CPU with room for these configs."""
    return BatchedEngine(corpus, capacity, Envelope.around(*configs), device=CPU, dtype=dtype)


def run_all(engine: Engine, configs: list[Config]) -> list[TrainResult]:
    """Keep the engine full until every config is trained; return the results in their order."""
    waiting = list(range(len(configs)))
    slots: dict[int, int] = {}
    results: dict[int, TrainResult] = {}
    while waiting or slots:
        while waiting and len(slots) < engine.capacity:
            number = waiting.pop(0)
            slots[engine.admit(configs[number])] = number
        outcomes = engine.advance()
        assert outcomes, "models with steps left must be trained"
        for slot, outcome in outcomes:
            if not isinstance(outcome, EvalPoint) or outcome.step == configs[slots[slot]].max_steps:
                results[slots.pop(slot)] = engine.remove(slot)
    return [results[i] for i in range(len(configs))]


def stack_of(
    corpus: Corpus, envelope: Envelope, configs: list[Config], dtype: torch.dtype
) -> Stack:
    """Make a stack on the CPU with an untrained model of each config."""
    layout = Layout(envelope, len(corpus.vocab))
    soft = SoftTargets.of(corpus.teacher, CPU, dtype) if corpus.teacher else None
    stack = Stack(len(configs), layout, TrainSet(corpus.train, CPU, soft), dtype)
    for row, config in enumerate(configs):
        stack.load(row, config, 0, State.fresh(layout.pack(MLP(config, len(corpus.vocab)))), None)
    return stack


def train(stack: Stack, steps: int, configs: list[Config]) -> None:
    """Train all rows of a stack."""
    stack.prepare(steps, Parts.of(configs))
    assert stack.run(steps, Parts.of(configs), lambda: False)


class Alone:
    """One model alone, trained by torch's autograd and optimizers in float64, on the same draws."""

    def __init__(self, config: Config, corpus: Corpus) -> None:
        self.config = config
        self.corpus = corpus
        self.step = 0
        self.model = MLP(config, len(corpus.vocab)).double()
        self.dropout = seed_dropout(self.model, config.seed)
        kinds = {"sgd": torch.optim.SGD, "adamw": torch.optim.AdamW}
        self.optimizer = kinds[config.optimizer](
            self.model.parameters(), lr=config.lr, weight_decay=0
        )

    def train(self, steps: int) -> float:
        """Train some steps and return the mean of the minibatch losses."""
        config = self.config
        self.model.train()
        total = 0.0
        for step in range(self.step, self.step + steps):
            rows = batch_rows(config.seed, step, config.batch_size, len(self.corpus.train))
            X, Y = self.corpus.train.tensors(config.block_size, rows)
            self.dropout.start(step)
            loss = self.model.loss(X, Y)
            self.optimizer.zero_grad()
            loss.backward()
            lr = float(lr_at(config, np.array([step]))[0])
            for group in self.optimizer.param_groups:
                group["lr"] = lr
            with torch.no_grad():
                for parameter in self.model.parameters():
                    parameter.mul_(1 - lr * config.weight_decay)
            self.optimizer.step()
            total += loss.item()
        self.step += steps
        self.model.eval()
        return total / steps

    @torch.no_grad()
    def dev_loss(self) -> float:
        X, Y = self.corpus.dev.tensors(self.config.block_size)
        return F.cross_entropy(self.model(X), Y).item()


def check_against_alone(config: Config, corpus: Corpus, result: TrainResult) -> None:
    """Check all losses, and the parameters of the best evaluation, against the model alone."""
    alone = Alone(config, corpus)
    best = None
    for point in result.history:
        minibatch_loss = alone.train(point.step - alone.step)
        assert point.minibatch_loss == pytest.approx(minibatch_loss, rel=1e-6), point
        assert point.dev_loss == pytest.approx(alone.dev_loss(), rel=1e-6), point
        if point == result.best:
            best = {name: parameter.clone() for name, parameter in alone.model.named_parameters()}
    assert isinstance(result.model, MLP)
    for name, parameter in result.model.named_parameters():
        truth = best[name] if best else getattr(alone.model, name)
        torch.testing.assert_close(parameter.double(), truth, rtol=1e-5, atol=1e-5, msg=name)
