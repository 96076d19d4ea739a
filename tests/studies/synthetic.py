"""Made-up studies, trial by trial: what a report says of them is known beforehand."""

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

SPACE: dict[str, BaseDistribution] = {
    "lr": FloatDistribution(1e-3, 1.0, log=True),
    "block_size": IntDistribution(2, 8),
    "n_hidden": IntDistribution(50, 300, step=50),
    "batch_size": CategoricalDistribution([32, 64, 128, 256]),
}
BASE = {
    "max_steps": 1000,
    "eval_interval": 100,
    "n_embd": 10,
    "optimizer": "sgd",
    "schedule": "step",
}
START = 1.79e9  # seconds since the epoch


def make_trial(
    params: dict[str, Any],
    losses: Sequence[float],
    *,
    state: str = "COMPLETE",
    reason: str | None = None,
    space: dict[str, BaseDistribution] | None = None,
    at: float = START,
    n_steps: int = 1000,
    **attrs: Any,
) -> FrozenTrial:
    """A trial as the studies store it.

    Args:
        losses: dev loss at each of its evaluations, ten for a trial that ended; the train loss is 0.1 lower.
        at: when it began; each evaluation took a second.
        attrs: more user attributes, for example repeat_of.
    """
    steps = [(i + 1) * n_steps // 10 for i in range(len(losses))]
    history = [
        [s, x - 0.1, x, 0.1, at + i + 1] for i, (s, x) in enumerate(zip(steps, losses, strict=True))
    ]
    best = min(history, key=lambda row: row[2], default=[None] * 5)
    summary = {
        "reason": reason
        or {"COMPLETE": "finished", "PRUNED": "pruned", "FAIL": "engine failed"}[state],
        "best_step": best[0],
        "train_loss": best[1],
        "dev_loss": best[2],
        "history": history,
        "metrics": {"seconds": float(len(losses)), "n_params": 1000},
        "started": at,
        "ended": at + len(losses),
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
    """A study in memory that holds these trials."""
    study = optuna.create_study(study_name="made-up", storage=optuna.storages.InMemoryStorage())
    stored = {
        name: distribution_to_json(d) for name, d in (SPACE if space is None else space).items()
    }
    facts = {"base": BASE, "space": stored, "data": "names.txt", "data_sha256": "0" * 64, "seed": 0}
    for key, value in facts.items():
        study.set_user_attr(key, value)
    study.add_trials(trials)
    return study


def falling(end: float, n: int = 10) -> list[float]:
    """The dev losses of a training that falls to `end`."""
    return [end + 0.5 * 0.6**i for i in range(n - 1)] + [end]


def random_trials(
    n: int,
    loss: Callable[[dict[str, Any]], float],
    space: dict[str, BaseDistribution] | None = None,
    seed: int = 0,
    prune: bool = True,
) -> list[FrozenTrial]:
    """Trials at random places; every third is pruned half-way, and an lr near 1 diverges."""
    rng, trials = np.random.default_rng(seed), []
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
