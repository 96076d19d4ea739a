"""What the range test's rules cost: dev losses of training at what they suggest, against a sweep of whole trainings."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from rich import box
from rich.table import Table

from makemore.config import Config
from makemore.data import Corpus
from makemore.engines import Diverged, EngineFailed, EvalPoint
from makemore.engines.base import DIVERGED_LOSS
from makemore.engines.cpu.engine import CpuEngine
from makemore.lr_sweep import DEFAULT_RULE, RULES, LrSweep, lr_range_test

N_LRS = 31  # of the sweep: over three decades a tenth apart in log10
N_SEEDS = 10  # range tests of a model


@dataclass(frozen=True)
class Model:
    """A model that is audited, over a range of learning rates.

    Attributes:
        key: names it in MLflow's metrics.
    """

    key: str
    name: str
    config: Config
    lo: float
    hi: float


# The lecture's model, the smaller one of its own sweep, and a wider one with AdamW, as searches end at.
MODELS = (
    Model("lecture", "block 3, embedding 10, hidden 200, batch 32, SGD", Config(), 1e-3, 1.0),
    Model(
        "small",
        "block 3, embedding 2, hidden 100, batch 32, SGD",
        Config(n_embd=2, n_hidden=100),
        1e-3,
        1.0,
    ),
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
    """What was measured on a model. Dev losses are those of the last step, in nats; DIVERGED_LOSS where it diverged.

    Attributes:
        lrs: (L,) float64, the learning rates of the sweep, rising.
        dev_losses: (L,) float64, after training with each.
        suggestions: of each rule, (K,) float64: the learning rate that it reads off each range test.
        suggested_losses: of each rule, (K,) float64: the dev loss after training with each of these.
    """

    model: Model
    lrs: np.ndarray
    dev_losses: np.ndarray
    suggestions: dict[str, np.ndarray]
    suggested_losses: dict[str, np.ndarray]

    @cached_property
    def regrets(self) -> dict[str, np.ndarray]:
        """Of each rule, (K,) nats above the sweep's lowest loss; negative where it did better between its points."""
        return {
            rule: losses - self.dev_losses.min() for rule, losses in self.suggested_losses.items()
        }

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
    """Train with each learning rate of the sweep and with each that a rule suggests, all from the same seed.

    So all trainings share initial weights and batches, and differ by the learning rate alone.

    Args:
        steps: of each training; it follows the config's own schedule.
        range_steps, stop: as n_steps and stop of `lr_range_test`.
        seed: of the trainings; the range tests take it and the N_SEEDS - 1 after it.
        slots: models trained at once, on the CPU.
    """

    def test(seed: int) -> LrSweep:
        config = model.config.replace(seed=seed)
        return lr_range_test(
            config, corpus, lo=model.lo, hi=model.hi, n_steps=range_steps, stop=stop
        )

    with ThreadPoolExecutor(slots) as threads:
        tests = list(threads.map(test, range(seed, seed + N_SEEDS)))
    suggestions = {rule: np.array([test.suggest(rule) for test in tests]) for rule in RULES}
    lrs = np.geomspace(model.lo, model.hi, N_LRS)
    base = model.config.replace(seed=seed, max_steps=steps, eval_interval=steps)
    wanted = sorted({float(lr) for some in (lrs, *suggestions.values()) for lr in some})
    losses = dict(
        zip(wanted, train_all([base.replace(lr=lr) for lr in wanted], corpus, slots), strict=True)
    )
    at = {rule: np.array([losses[lr] for lr in some]) for rule, some in suggestions.items()}
    return LrAudit(model, lrs, np.array([losses[lr] for lr in lrs]), suggestions, at)


def train_all(configs: Sequence[Config], corpus: Corpus, slots: int) -> list[float]:
    """Train each config on the CPU, `slots` at once; the dev loss of each one's last step, in their order.

    Raises:
        EngineFailed: the machine ran out of memory.
    """
    losses, waiting, running = (
        [DIVERGED_LOSS] * len(configs),
        list(enumerate(configs)),
        dict[int, int](),
    )
    with closing(CpuEngine(corpus, slots)) as engine:
        while waiting or running:
            while waiting and len(running) < slots:
                number, config = waiting.pop(0)
                running[engine.admit(config)] = number
            for slot, outcome in engine.advance():
                if isinstance(outcome, EngineFailed):
                    raise outcome
                if isinstance(outcome, EvalPoint):
                    losses[running[slot]] = outcome.dev_loss
                if (
                    isinstance(outcome, Diverged)
                    or outcome.step == configs[running[slot]].max_steps
                ):
                    engine.remove(slot)
                    del running[slot]
    return losses


def rank(audits: Sequence[LrAudit]) -> dict[str, float]:
    """Each rule's mean over the models of its median regret, the least first."""
    means = {
        rule: statistics.fmean(float(np.median(a.regrets[rule])) for a in audits) for rule in RULES
    }
    return dict(sorted(means.items(), key=lambda item: item[1]))


def audit_table(audits: Sequence[LrAudit]) -> Table:
    """A row for each model and rule, and a last section of the means."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False)
    table.add_column("")
    for heading in ("suggested lr", "median regret", "worst regret"):
        table.add_column(heading, justify="right")
    for a in audits:
        table.add_row(a.model.name, style="bold")
        table.add_row("  lowest of the sweep", f"{a.best_lr:.2g}", f"dev {a.dev_losses.min():.4f}")
        for rule, regrets in a.regrets.items():
            lrs = a.suggestions[rule]
            span = f"{lrs.min():.2g} to {lrs.max():.2g}"
            table.add_row(f"  {rule}", span, f"{np.median(regrets):.4f}", f"{regrets.max():.4f}")
        table.add_section()
    table.add_row("mean of the models' medians, least first", style="bold")
    for rule, mean in rank(audits).items():
        table.add_row(f"  {rule}", "", f"{mean:.4f}", "")
    return table


def audit_sentences(audits: Sequence[LrAudit], steps: int) -> list[str]:
    """What the table says, and how its figures came about."""
    least = next(iter(rank(audits)))
    how = (
        f"Regret: dev loss after {steps:,} steps at a suggestion, above the lowest of {N_LRS} learning rates; in nats "
        f"per character, over {N_SEEDS} range tests. A diverged training counts as {DIVERGED_LOSS:g} nats."
    )
    verdict = "it is the default" if least == DEFAULT_RULE else f"the default is {DEFAULT_RULE}"
    return [how, f"Least regret, by the mean over the models of the median: {least}; {verdict}."]


def audit_metrics(audits: Sequence[LrAudit]) -> list[tuple[str, float, int]]:
    """Metrics of an MLflow run, (key, value, step): the means first, the sweeps with a learning rate a step."""
    rows = [(f"regret.{rule}", mean, 0) for rule, mean in rank(audits).items()]
    for a in audits:
        rows += [
            (f"median_regret.{a.model.key}.{rule}", float(np.median(r)), 0)
            for rule, r in a.regrets.items()
        ]
        rows += [
            (f"worst_regret.{a.model.key}.{rule}", float(r.max()), 0)
            for rule, r in a.regrets.items()
        ]
        curves = {"log10_lr": np.log10(a.lrs), "dev_loss": a.dev_losses}
        rows += [
            (f"{key}.{a.model.key}", float(v), i)
            for key, curve in curves.items()
            for i, v in enumerate(curve)
        ]
    return rows


def audit_json(audits: Sequence[LrAudit]) -> dict[str, Any]:
    """The audit for --json."""
    means = rank(audits)
    return {
        "least_regret": next(iter(means)),
        "default_rule": DEFAULT_RULE,
        "mean_regret": means,
        "diverged_loss": DIVERGED_LOSS,
        "models": [
            {
                "model": a.model.name,
                "best_lr": a.best_lr,
                "lowest_dev_loss": float(a.dev_losses.min()),
                "lrs": a.lrs.tolist(),
                "dev_losses": a.dev_losses.tolist(),
                "rules": {
                    rule: {
                        "median_regret": float(np.median(regrets)),
                        "worst_regret": float(regrets.max()),
                        "lrs": a.suggestions[rule].tolist(),
                        "regrets": regrets.tolist(),
                    }
                    for rule, regrets in a.regrets.items()
                },
            }
            for a in audits
        ],
    }
