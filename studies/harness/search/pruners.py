"""Pruners: the rules that stop a trial early."""

from __future__ import annotations

from optuna.pruners import BasePruner, MedianPruner


def default_pruner() -> BasePruner:
    """Stops a trial that is worse than the median of the others at the same step."""
    return MedianPruner(n_startup_trials=5, n_warmup_steps=0)
