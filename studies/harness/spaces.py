"""Search spaces: functions (trial, base) -> Config, and the only place where ranges are written."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, distribution_to_json

from makemore.config import Config
from makemore.engines import Envelope

Space = Callable[[optuna.Trial, Config], Config]

# The lecture's configuration in the five searched parameters.
LECTURE: dict[str, Any] = {"lr": 0.1, "block_size": 3, "n_embd": 10, "n_hidden": 200, "batch_size": 32}


def five_parameters(trial: optuna.Trial, base: Config, lo: float = 1e-3, hi: float = 1.0) -> Config:
    """Learning rate (from `lo` to `hi`), context, embedding, hidden width and batch size."""
    return base.replace(
        lr=trial.suggest_float("lr", lo, hi, log=True),
        block_size=trial.suggest_int("block_size", 2, 8),
        n_embd=trial.suggest_int("n_embd", 2, 24),
        n_hidden=trial.suggest_int("n_hidden", 50, 300, step=50),
        batch_size=trial.suggest_categorical("batch_size", [32, 64, 128, 256]),
    )


def eight_parameters(trial: optuna.Trial, base: Config) -> Config:
    """The five, with ranges for AdamW and wide models, and dropout, weight decay and direct connections."""
    return base.replace(
        lr=trial.suggest_float("lr", 3e-4, 3e-2, log=True),
        block_size=trial.suggest_int("block_size", 4, 12),
        n_embd=trial.suggest_int("n_embd", 8, 32, step=4),
        n_hidden=trial.suggest_int("n_hidden", 128, 1024, step=128),
        batch_size=trial.suggest_categorical("batch_size", [64, 128, 256, 512]),
        dropout=trial.suggest_float("dropout", 0.0, 0.5),
        weight_decay=trial.suggest_float("weight_decay", 1e-4, 1.0, log=True),
        direct=trial.suggest_categorical("direct", [False, True]),
    )


def learning_rate(trial: optuna.Trial, base: Config, lo: float = 1e-3, hi: float = 1.0) -> Config:
    """Learning rate alone, log-uniform; over three decades, as the lecture's sweep, unless told."""
    return base.replace(lr=trial.suggest_float("lr", lo, hi, log=True))


def distributions(space: Space, base: Config) -> dict[str, BaseDistribution]:
    """The distribution of each parameter that the space asks for.

    Raises:
        ValueError: the space sets other fields than it asks for, or to other values, so that a trial's parameters would
            not tell its config.
    """
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    probe = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0)).ask()
    optuna.logging.set_verbosity(verbosity)
    config = space(probe, base)
    if config != base.replace(**probe.params):
        told = base.replace(**probe.params).model_dump()
        hidden = sorted(key for key, value in config.model_dump().items() if value != told[key])
        raise ValueError(
            f"the search space sets {', '.join(hidden)} beside what it suggests; put fixed fields into the base "
            "config, and name each suggested parameter as its field."
        )
    return probe.distributions


def describe(space: Space, base: Config) -> dict[str, str]:
    """Each parameter's range as JSON, to store with a study and to compare at the next launch."""
    return {name: distribution_to_json(d) for name, d in sorted(distributions(space, base).items())}


def envelope(space: Space, base: Config) -> Envelope:
    """The smallest envelope that holds every config of the space."""
    largest: dict[str, Any] = {
        name: max(d.choices) if isinstance(d, CategoricalDistribution) else d.high  # type: ignore
        for name, d in distributions(space, base).items()
        if name in ("block_size", "n_embd", "n_hidden", "batch_size", "direct", "dropout", "ema")
    }
    return Envelope.around(base.replace(**largest))
