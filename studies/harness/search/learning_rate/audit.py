"""Audit of the range test's rules: the dev losses of training at their suggestions.

The regret of a suggestion is its dev loss minus the lowest dev loss of a sweep of whole trainings.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from makemore.config import Config
from makemore.data import Corpus
from makemore.engines import Diverged, EngineFailed, EvalPoint
from makemore.engines.base import DIVERGED_LOSS
from makemore.engines.cpu.engine import CpuEngine
from makemore.lr_sweep import RULES, LrSweep, lr_range_test

N_LRS = 31  # learning rates of the sweep: a tenth of a decade apart, over three decades
N_SEEDS = 10  # range tests of a model


@dataclass(frozen=True)
class Model:
    """A model to audit, and its range of learning rates.

    Attributes:
        key: its name in MLflow's metrics.
    """

    key: str
    name: str
    config: Config
    lo: float
    hi: float


MODELS = (
    # The lecture's model, and the smaller one of the lecture's own sweep.
    Model("lecture", "block 3, embedding 10, hidden 200, batch 32, SGD", Config(), 1e-3, 1.0),
    Model(
        "small",
        "block 3, embedding 2, hidden 100, batch 32, SGD",
        Config(n_embd=2, n_hidden=100),
        1e-3,
        1.0,
    ),
    # A wider model with AdamW, like those that searches find.
    Model(
        "adamw",
        "block 8, embedding 24, hidden 200, batch 256, AdamW",
        Config(block_size=8, n_embd=24, batch_size=256, optimizer="adamw", init="kaiming"),
        1e-4,
        1e-1,
    ),
)


@dataclass(frozen=True)
class LrAudit:
    """Dev losses of one model, in nats per character at the last step; DIVERGED_LOSS if diverged.

    Attributes:
        lrs: (L,) float64, the learning rates of the sweep, rising.
        dev_losses: (L,) float64, after training with each of them.
        suggestions: for each rule (K,) float64, its suggestion from each of the K range tests.
        suggested_losses: for each rule (K,) float64, after training with each suggestion.
    """

    model: Model
    lrs: np.ndarray
    dev_losses: np.ndarray
    suggestions: dict[str, np.ndarray]
    suggested_losses: dict[str, np.ndarray]

    @cached_property
    def regrets(self) -> dict[str, np.ndarray]:
        """For each rule (K,) float64: its losses minus the lowest loss of the sweep, in nats.

        A regret is negative if a suggestion between two points of the sweep trained better.
        """
        lowest = self.dev_losses.min()
        return {rule: losses - lowest for rule, losses in self.suggested_losses.items()}

    @property
    def best_lr(self) -> float:
        """The learning rate of the sweep's lowest dev loss."""
        return float(self.lrs[np.argmin(self.dev_losses)])


def audit(
    model: Model,
    corpus: Corpus,
    *,
    steps: int,
    range_steps: int,
    stop: float | None,
    seed: int,
    slots: int,
) -> LrAudit:
    """Train a model with each learning rate of the sweep and with each suggestion of each rule.

    All trainings have the same seed, so they have the same initial weights and batches, and differ
    only in the learning rate.

    Args:
        steps: optimizer steps of each training, with the config's schedule.
        range_steps: n_steps of `lr_range_test`.
        stop: as in `lr_range_test`.
        seed: seed of the trainings. The range tests have this seed and the N_SEEDS - 1 next ones.
        slots: models trained at once, on the CPU.
    """

    def run_test(seed: int) -> LrSweep:
        config = model.config.replace(seed=seed)
        return lr_range_test(
            config, corpus, lo=model.lo, hi=model.hi, n_steps=range_steps, stop=stop
        )

    with ThreadPoolExecutor(slots) as threads:
        tests = list(threads.map(run_test, range(seed, seed + N_SEEDS)))
    suggestions = {rule: np.array([test.suggest(rule) for test in tests]) for rule in RULES}

    lrs = np.geomspace(model.lo, model.hi, N_LRS)
    wanted = sorted({float(lr) for some in (lrs, *suggestions.values()) for lr in some})
    base = model.config.replace(seed=seed, max_steps=steps, eval_interval=steps)
    trained = train_all([base.replace(lr=lr) for lr in wanted], corpus, slots)
    losses = dict(zip(wanted, trained, strict=True))
    return LrAudit(
        model,
        lrs,
        dev_losses=np.array([losses[lr] for lr in lrs]),
        suggestions=suggestions,
        suggested_losses={
            rule: np.array([losses[lr] for lr in some]) for rule, some in suggestions.items()
        },
    )


def train_all(configs: Sequence[Config], corpus: Corpus, slots: int) -> list[float]:
    """Train each config on the CPU, `slots` at once.

    Returns:
        The dev loss of each config at its last step, in nats; DIVERGED_LOSS if it diverged.

    Raises:
        EngineFailed: the machine ran out of memory.
    """
    losses = [DIVERGED_LOSS] * len(configs)
    waiting = list(enumerate(configs))
    running: dict[int, int] = {}  # slot -> index of its config
    with closing(CpuEngine(corpus, slots)) as engine:
        while waiting or running:
            while waiting and len(running) < slots:
                index, config = waiting.pop(0)
                running[engine.admit(config)] = index
            for slot, outcome in engine.advance():
                if isinstance(outcome, EngineFailed):
                    raise outcome
                index = running[slot]
                if isinstance(outcome, EvalPoint):
                    losses[index] = outcome.dev_loss
                if isinstance(outcome, Diverged) or outcome.step == configs[index].max_steps:
                    engine.remove(slot)
                    del running[slot]
    return losses


def rank(audits: Sequence[LrAudit]) -> dict[str, float]:
    """Return the mean over the models of each rule's median regret, in nats, lowest first."""
    means = {
        rule: statistics.fmean(float(np.median(a.regrets[rule])) for a in audits) for rule in RULES
    }
    return dict(sorted(means.items(), key=lambda item: item[1]))
