"""Pruners: the rules that stop a trial before its last step.

The coordinator asks the study's pruner in one place, `Coordinator._should_prune`.
"""

from __future__ import annotations

from optuna.pruners import BasePruner, MedianPruner, SuccessiveHalvingPruner


def default_pruner() -> BasePruner:
    """Stop a trial whose dev loss is worse than the median of the trials at the same step."""
    return MedianPruner(n_startup_trials=5, n_warmup_steps=0)


def halving_pruner(steps: int) -> BasePruner:
    """Continue a quarter of the trials at 10% of the steps, and a quarter of those at 40%.

    Asynchronous successive halving, Li et al. 2018. It needs a dev loss that ranks the trials well
    at 10% of the steps.

    Args:
        steps: optimizer steps of a whole trial.
    """
    return SuccessiveHalvingPruner(min_resource=max(1, steps // 10), reduction_factor=4)
