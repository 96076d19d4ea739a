"""Synthetic studies: trials with given losses, so that the right verdicts are known."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    distribution_to_json,
)
from optuna.trial import FrozenTrial, TrialState, create_trial

from studies.harness.report.results import Results, read_results

SPACE: dict[str, BaseDistribution] = {
    "lr": FloatDistribution(1e-3, 1.0, log=True),
    "block_size": IntDistribution(2, 8),
    "n_hidden": IntDistribution(50, 300, step=50),
    "batch_size": CategoricalDistribution([32, 64, 128, 256]),
}
PARAMS = {"lr": 0.1, "block_size": 3, "n_hidden": 100, "batch_size": 32}
BASE = {
    "max_steps": 1000,
    "eval_interval": 100,
    "n_embd": 10,
    "optimizer": "sgd",
    "schedule": "step",
}
START = 1.79e9  # seconds since the epoch
REASONS = {"COMPLETE": "finished", "PRUNED": "pruned", "FAIL": "engine failed"}


def make_trial(
    params: dict[str, Any],
    losses: Sequence[float],
    *,
    state: str = "COMPLETE",
    reason: str | None = None,
    space: dict[str, BaseDistribution] | None = None,
    at: float = START,
    compiled: float = 0.0,
    n_steps: int = 1000,
    **attrs: Any,
) -> FrozenTrial:
    """Return a trial as the studies store it.

    Args:
        params: the searched parameters.
        losses: dev loss at each evaluation, ten for a complete trial; the minibatch
            loss is 0.1 lower.
        state: name of Optuna's state.
        reason: why the trial ended; the state's usual reason if not given.
        space: distributions of the parameters.
        at: when it started, in seconds since the epoch.
        compiled: seconds from its start to its first training step.
        n_steps: steps of a complete trial; those up to an evaluation take a second.
        attrs: further user attributes, for example repeat_of.
    """
    steps = [(i + 1) * n_steps // 10 for i in range(len(losses))]
    times = [at + compiled + i + 1 for i in range(len(losses))]
    history = [
        [step, loss - 0.1, loss, 0.1, time]
        for step, loss, time in zip(steps, losses, times, strict=True)
    ]
    best = min(history, key=lambda row: row[2], default=[None] * 5)
    summary = {
        "reason": reason or REASONS[state],
        "best_step": best[0],
        "dev_loss": best[2],
        "history": history,
        "metrics": {"seconds": float(len(losses)), "n_params": 1000},
        "started": at,
        "ended": at + compiled + len(losses),
    }
    return create_trial(
        state=TrialState[state],
        value=best[2] if state == "COMPLETE" else None,
        params=params,
        distributions={name: d for name, d in (space or SPACE).items() if name in params},
        intermediate_values=dict(zip(steps, losses, strict=True)),
        user_attrs={"seed": 7, "launch": "one", "summary": summary, **attrs},
    )


def make_study(
    trials: Sequence[FrozenTrial] = (), space: dict[str, BaseDistribution] | None = None
) -> optuna.Study:
    """Return a study in memory with these trials."""
    study = optuna.create_study(study_name="made-up", storage=optuna.storages.InMemoryStorage())
    space = SPACE if space is None else space
    stored = {name: distribution_to_json(distribution) for name, distribution in space.items()}
    facts = {"base": BASE, "space": stored, "data": "names.txt", "data_sha256": "0" * 64, "seed": 0}
    for key, value in facts.items():
        study.set_user_attr(key, value)
    study.add_trials(trials)
    return study


def results_of(*trials: FrozenTrial) -> Results:
    """Return the results of a study with these trials."""
    return read_results(make_study(trials))


def repeats_of(number: int, *losses: float) -> list[FrozenTrial]:
    """Return seed repeats of a trial, one for each final dev loss."""
    return [make_trial(PARAMS, falling(loss), repeat_of=number) for loss in losses]


def falling(end: float, n: int = 10) -> list[float]:
    """Return n dev losses that fall to `end`."""
    return [end + 0.5 * 0.6**i for i in range(n - 1)] + [end]


def random_trials(
    n: int,
    loss: Callable[[dict[str, Any]], float],
    space: dict[str, BaseDistribution] | None = None,
    seed: int = 0,
    prune: bool = True,
) -> list[FrozenTrial]:
    """Return n trials with random parameters.

    Every third is pruned half-way if `prune` is set; those with an lr above 0.8 diverge.

    Args:
        loss: final dev loss for the parameters, to which noise of sd 0.003 is added.
    """
    rng = np.random.default_rng(seed)
    trials = []
    source = optuna.create_study(
        storage=optuna.storages.InMemoryStorage(), sampler=optuna.samplers.RandomSampler(seed=seed)
    )
    for i in range(n):
        params = source.ask(dict(space or SPACE)).params
        losses = falling(loss(params) + rng.normal(0, 0.003))
        more: dict[str, Any] = {"space": space, "at": START + 10 * i}
        if params.get("lr", 0.0) > 0.8:
            more |= {"state": "PRUNED", "reason": "diverged at step 90"}
            losses = []
        elif prune and i % 3 == 2:
            more |= {"state": "PRUNED"}
            losses = losses[:5]
        trials.append(make_trial(params, losses, **more))
    return trials
